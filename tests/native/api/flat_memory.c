/* Start-up time and resident memory, and whether memory stays flat: prints one line of JSON.
 *
 *     flat_memory MODEL.fusedx COUNT
 *
 * Opens the model, classifies one picture, then COUNT more; every 64th call is a batch of three with a bad picture in it, every 256th
 * opens and closes a cancellation token.  Exit 1 if resident memory grew by more than 8 MiB after the first tenth.  Times are printed,
 * never judged. */
#include <fusedx/fusedx.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static long status_kib(const char* name) {
    char line[256];
    long kib = -1;
    FILE* f = fopen("/proc/self/status", "r");
    while (f != NULL && kib < 0 && fgets(line, sizeof line, f))
        if (!strncmp(line, name, strlen(name))) kib = strtol(line + strlen(name) + 1, NULL, 10);
    if (f != NULL) fclose(f);
    return kib;
}

static int stop(const char* what) {
    fprintf(stderr, "%s: %s\n", what, fx_last_error());
    return 2;
}

int main(int argc, char** argv) {
    static unsigned char pixels[300 * 260 * 3];
    const long count = argc > 2 ? strtol(argv[2], NULL, 10) : 0;
    const double start = now();
    double opened, first, last;
    long i, early = 0, resident_first, resident_last;
    fx_model* model = NULL;
    fx_image images[3];
    fx_result results[3];
    fx_model_info info;
    if (argc != 3) return fprintf(stderr, "usage: %s MODEL.fusedx COUNT\n", argv[0]), 2;
    memset(images, 0, sizeof images), memset(results, 0, sizeof results), memset(&info, 0, sizeof info);
    for (i = 0; i < 3; ++i) {
        images[i].struct_size = sizeof *images, results[i].struct_size = sizeof *results;
        images[i].data = pixels, images[i].width = 300, images[i].height = 260, images[i].format = FX_RGB8;
    }
    images[1].width = 0;
    if (fx_model_open(argv[1], NULL, &model)) return stop("open");
    opened = now();
    if (fx_classify(model, images, 1, NULL, results)) return stop("classify");
    first = now();
    resident_first = status_kib("VmRSS");
    info.struct_size = sizeof info;
    fx_model_get_info(model, &info);
    for (i = 0; i < count; ++i) {
        fx_status status;
        memset(pixels, (int)(i & 255), 3 * 300);
        if (i % 256 == 0) {
            fx_cancel* cancel;
            fx_classify_options options;
            fx_classify_options_default(model, &options, sizeof options);
            if (fx_cancel_create(&cancel) || fx_cancel_set(cancel)) return stop("cancel");
            options.cancel = cancel;
            if (fx_classify(model, images, 1, &options, results) != FX_CANCELLED) return stop("not cancelled");
            fx_cancel_destroy(cancel);
        }
        status = fx_classify(model, images, i % 64 == 0 ? 3 : 1, NULL, results);
        if (status != (i % 64 == 0 ? FX_BAD_IMAGE : FX_OK)) return stop("classify");
        if (i == count / 10) early = status_kib("VmRSS");
    }
    last = now();
    resident_last = status_kib("VmRSS");
    fx_model_close(model);
    printf("{\"open_seconds\": %.3f, \"first_prediction_seconds\": %.3f, \"resident_mib_first\": %.1f, \"resident_mib_early\": %.1f, "
           "\"resident_mib_last\": %.1f, \"resident_mib_peak\": %.1f, \"weights_mib\": %.1f, \"classifications\": %ld, \"ms_each\": %.3f}\n",
           opened - start, first - start, (double)resident_first / 1024, (double)early / 1024, (double)resident_last / 1024,
           (double)status_kib("VmHWM") / 1024, (double)info.weight_bytes / 1048576, count, count ? 1e3 * (last - first) / (double)count : 0.0);
    return count > 0 && resident_last > early + 8 * 1024;
}
