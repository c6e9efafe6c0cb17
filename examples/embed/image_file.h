/* Reads a picture for the examples: binary PGM (P5) and PPM (P6), or a raw frame.  Header only, C99 and C++. */
#ifndef IMAGE_FILE_H
#define IMAGE_FILE_H

#include <fusedx/fusedx.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct image_file {
    unsigned char* pixels; /* free() it */
    fx_image image;
} image_file;

/* The next number of a PNM header, comments skipped; -1 if there is none below a million. */
static long image_file_number(FILE* file) {
    long number = 0;
    int c = fgetc(file), digits = 0;
    while (c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == '#') {
        if (c == '#')
            while (c != '\n' && c != EOF) c = fgetc(file);
        c = fgetc(file);
    }
    for (; c >= '0' && c <= '9' && number < 1000000; c = fgetc(file)) number = 10 * number + (c - '0'), ++digits;
    return digits > 0 && number < 1000000 ? number : -1;
}

/* Big-endian 16-bit values, as PGM has them, to the processor's order. */
static void image_file_to_native(unsigned char* pixels, size_t count) {
    for (size_t i = 0; i < count; ++i) {
        unsigned short value = (unsigned short)(pixels[2 * i] << 8 | pixels[2 * i + 1]);
        memcpy(pixels + 2 * i, &value, 2);
    }
}

/* raw: NULL, or WIDTHxHEIGHTxFORMAT with FORMAT rgb8, gray8 or gray16.  NULL on success, else what is wrong. */
static const char* image_file_read(const char* path, const char* raw, image_file* out) {
    long width = 0, height = 0, most = 255;
    int format = 0, is_pnm = raw == NULL;
    char name[8] = "";
    size_t bytes;
    FILE* file;
    memset(out, 0, sizeof *out);
    if (raw != NULL) {
        if (sscanf(raw, "%7ldx%7ldx%7s", &width, &height, name) != 3) return "--raw needs WIDTHxHEIGHTxFORMAT";
        format = !strcmp(name, "rgb8") ? FX_RGB8 : !strcmp(name, "gray8") ? FX_GRAY8 : !strcmp(name, "gray16") ? FX_GRAY16 : 0;
        if (format == 0) return "the FORMAT of --raw is rgb8, gray8 or gray16";
    }
    file = fopen(path, "rb");
    if (file == NULL) return "the file cannot be opened";
    if (is_pnm) {
        char magic[2] = {0, 0};
        if (fread(magic, 1, 2, file) != 2 || magic[0] != 'P' || (magic[1] != '5' && magic[1] != '6')) {
            fclose(file);
            return "not a binary PGM (P5) or PPM (P6) file; other frames need --raw";
        }
        width = image_file_number(file), height = image_file_number(file), most = image_file_number(file);
        format = magic[1] == '6' ? FX_RGB8 : most > 255 ? FX_GRAY16 : FX_GRAY8;
    }
    if (width < 1 || height < 1 || most < 1 || most > 65535 || (format != FX_GRAY16 && most != 255)) {
        fclose(file);
        return "the size or depth is not supported: gray of 8 bits (255) or up to 16, or colour of 8 bits";
    }
    bytes = (size_t)width * (size_t)height * (format == FX_RGB8 ? 3 : format == FX_GRAY16 ? 2 : 1);
    out->pixels = (unsigned char*)malloc(bytes);
    if (out->pixels == NULL || fread(out->pixels, 1, bytes, file) != bytes) {
        int no_memory = out->pixels == NULL;
        free(out->pixels);
        out->pixels = NULL;
        fclose(file);
        return no_memory ? "not enough memory" : "the file is too short";
    }
    if (!is_pnm && fgetc(file) != EOF) { /* of another size or depth, then: its rows would be read askew */
        fclose(file);
        free(out->pixels);
        out->pixels = NULL;
        return "the file is longer than --raw says";
    }
    fclose(file);
    if (is_pnm && format == FX_GRAY16) image_file_to_native(out->pixels, (size_t)width * (size_t)height);
    out->image.struct_size = sizeof out->image;
    out->image.data = out->pixels;
    out->image.width = (int32_t)width;
    out->image.height = (int32_t)height;
    out->image.format = format;
    return NULL;
}

#endif
