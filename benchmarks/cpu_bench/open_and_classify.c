/* open_and_classify MODEL: seconds from fx_model_open to the first prediction, and the memory held then (Linux), as JSON. */
#define _POSIX_C_SOURCE 200809L
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

static long long kibibytes(const char* name) {
    char line[256];
    long long found = -1;
    FILE* status = fopen("/proc/self/status", "r");
    if (!status) return -1;
    while (found < 0 && fgets(line, sizeof line, status))
        if (!strncmp(line, name, strlen(name)) && line[strlen(name)] == ':') found = atoll(line + strlen(name) + 1);
    fclose(status);
    return found;
}

int main(int count, char** arguments) {
    static unsigned char pixels[224 * 224 * 3];
    double probabilities[1024], started = now();
    fx_model* model = NULL;
    fx_image image;
    fx_result result;
    if (count != 2) return fprintf(stderr, "usage: open_and_classify MODEL\n"), 2;
    if (fx_model_open(arguments[1], NULL, &model)) return fprintf(stderr, "%s\n", fx_last_error()), 1;
    memset(&image, 0, sizeof image);
    memset(&result, 0, sizeof result);
    image.struct_size = sizeof image, image.data = pixels, image.width = image.height = 224, image.format = FX_RGB8;
    result.struct_size = sizeof result, result.probabilities = probabilities, result.class_capacity = 1024;
    if (fx_classify(model, &image, 1, NULL, &result)) return fprintf(stderr, "%s\n", fx_last_error()), 1;
    printf("{\"seconds\": %.6f, \"VmRSS\": %lld, \"VmHWM\": %lld}\n", now() - started, kibibytes("VmRSS") * 1024, kibibytes("VmHWM") * 1024);
    return fx_model_close(model);
}
