/* Classifies one picture and prints the prediction as JSON:
 *
 *     classify MODEL.fusedx IMAGE.ppm [--raw 640x480xgray16] [--draws N] [--seed N]
 */
#include <fusedx/fusedx.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image_file.h"

static void on_log(int32_t level, const char* text, void* user) {
    (void)user;
    fprintf(stderr, "fusedx %s: %s\n", level <= FX_LOG_WARNING ? "warning" : "info", text);
}

static int stop(const char* what, fx_status status) {
    fprintf(stderr, "%s: %s: %s\n", what, fx_status_name(status), fx_last_error());
    return 1;
}

/* The whole text as a number from 0 to `most`; 0 if it is none: a slip must not become another seed. */
static int read_number(const char* text, uint64_t most, uint64_t* number) {
    *number = 0;
    if (*text == '\0') return 0;
    for (; *text; ++text) {
        const uint64_t digit = (uint64_t)(*text - '0');
        if (*text < '0' || *text > '9' || *number > (most - digit) / 10) return 0;
        *number = 10 * *number + digit;
    }
    return 1;
}

static void print_text(const char* text) {
    putchar('"');
    for (; *text; ++text) {
        if (*text == '"' || *text == '\\') putchar('\\');
        if ((unsigned char)*text < 0x20) printf("\\u%04x", *text);
        else putchar(*text);
    }
    putchar('"');
}

static void print_numbers(const char* name, const fx_model* model, const double* values, int32_t count) {
    printf(", \"%s\": {", name);
    for (int32_t c = 0; c < count; ++c) {
        if (c > 0) printf(", ");
        print_text(fx_model_class_name(model, c));
        printf(": %.17g", values[c]); /* 17 digits: the very number */
    }
    printf("}");
}

static void print_result(const fx_model* model, const fx_model_info* info, const fx_result* r, uint64_t seed) {
    printf("{\"label\": ");
    print_text(fx_model_class_name(model, r->index));
    printf(", \"index\": %" PRId32, r->index);
    print_numbers("probabilities", model, r->probabilities, info->class_count);
    print_numbers("scores", model, r->scores, info->class_count);
    print_numbers("prior", model, r->prior, info->class_count);
    printf(", \"draws\": %" PRId32 ", \"stability\": %.17g, \"image_sha256\": \"", r->draws, r->stability);
    for (int i = 0; i < 32; ++i) printf("%02x", r->image_sha256[i]);
    printf("\", \"patch_locations\": [");
    for (int i = 0; i < 6; ++i) printf("%s[%" PRId32 ", %" PRId32 "]", i ? ", " : "", r->patch_locations[i][0], r->patch_locations[i][1]);
    printf("], \"timing\": {\"preprocess\": %.6f, \"encoder\": %.6f, \"chain\": %.6f}", r->preprocess_seconds, r->encoder_seconds, r->chain_seconds);
    printf(", \"provenance\": {\"model_sha256\": \"%s\", \"fusedx\": \"%s\", \"precision\": \"%s\", \"encoder\": ", info->digest, fx_version_string(), info->precision);
    print_text(info->encoder);
    printf(", \"isa\": \"%s\", \"seed\": %" PRIu64 "}}\n", info->isa, seed);
}

int main(int argc, char** argv) {
    const char *raw = NULL, *draws = NULL, *seed = NULL, *wrong;
    fx_model* model = NULL;
    fx_status status;
    image_file file;
    uint64_t draw_count = 0, seed_number = 0;
    int i;
    for (i = 3; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--raw")) raw = argv[i + 1];
        else if (!strcmp(argv[i], "--draws")) draws = argv[i + 1];
        else if (!strcmp(argv[i], "--seed")) seed = argv[i + 1];
        else break;
    }
    if (argc < 3 || i < argc) {
        fprintf(stderr, "usage: %s MODEL.fusedx IMAGE.pgm|ppm|raw [--raw WIDTHxHEIGHTxrgb8|gray8|gray16] [--draws N] [--seed N]\n", argv[0]);
        return 2;
    }
    if ((draws != NULL && !read_number(draws, INT32_MAX, &draw_count)) || (seed != NULL && !read_number(seed, UINT64_MAX, &seed_number))) {
        fprintf(stderr, "--draws and --seed need whole numbers\n");
        return 2;
    }
    wrong = image_file_read(argv[2], raw, &file);
    if (wrong != NULL) {
        fprintf(stderr, "%s: %s\n", argv[2], wrong);
        return 1;
    }
    fx_set_log_callback(on_log, FX_LOG_WARNING, NULL);
    status = fx_model_open(argv[1], NULL, &model);
    if (status == FX_OK) {
        fx_model_info info;
        fx_classify_options options;
        fx_result result;
        double* numbers;
        memset(&info, 0, sizeof info);
        memset(&result, 0, sizeof result);
        info.struct_size = sizeof info;
        result.struct_size = sizeof result;
        fx_model_get_info(model, &info);
        fx_classify_options_default(model, &options, sizeof options);
        if (draws != NULL) options.draws = (int32_t)draw_count;
        if (seed != NULL) options.seed = seed_number;
        numbers = (double*)calloc(3 * (size_t)info.class_count, sizeof *numbers);
        if (numbers != NULL) {
            result.probabilities = numbers;
            result.scores = numbers + info.class_count;
            result.prior = numbers + 2 * info.class_count;
            result.class_capacity = info.class_count;
            status = fx_classify(model, &file.image, 1, &options, &result);
            if (status == FX_OK) print_result(model, &info, &result, options.seed);
        }
        free(numbers);
    }
    if (status != FX_OK) stop(argv[2], status);
    fx_model_close(model);
    free(file.pixels);
    return status == FX_OK ? 0 : 1;
}
