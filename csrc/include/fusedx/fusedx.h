/* fusedx: DiffMIC and DiffMIC-v2 inference inside other software.  The only public header of libfusedx; plain C99.
 *
 *     fx_model* model = NULL;
 *     if (fx_model_open("skin.fusedx", NULL, &model)) { puts(fx_last_error()); return 1; }
 *     double probabilities[7];
 *     fx_image image = {sizeof image, pixels, width, height, 0, FX_RGB8, 0};
 *     fx_result result = {sizeof result};
 *     result.probabilities = probabilities, result.class_capacity = 7;
 *     if (fx_classify(model, &image, 1, NULL, &result)) puts(fx_last_error());
 *     else printf("%s\n", fx_model_class_name(model, result.index));
 *     fx_model_close(model);
 *
 * Status.  Every function that can fail returns an fx_status; 0 is success.  fx_last_error() then has the text for people: what was
 * expected, what was found and what to do.  Nothing is printed, no exception leaves the library, and it never ends the process.
 *
 * Threads.  Every function may be called from any thread at any time, and one model may serve any number of them.  What a call
 * computes does not depend on what else runs.
 *
 * Bits.  For one compiled model an image, a seed and a number of draws give the same bits alone or in any batch, in any order,
 * for any number of threads and on any instruction set, and those of the Python package's native backend.  The encoder, which
 * OpenVINO runs, is bound to OpenVINO's version and to the kind of processor.
 *
 * Growth.  Structures begin with their size, which the caller sets to sizeof; later versions of the library only add fields at the
 * end and go on to accept the smaller structure.  Numbers, names and meanings below never change; new ones may appear.
 *
 * Ownership.  The library copies what it is given before a call returns, and frees what it made; it never frees the caller's memory.
 * Text is UTF-8 and ends with NUL.
 */
#ifndef FUSEDX_H
#define FUSEDX_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define FX_API __attribute__((visibility("default")))
#else
#define FX_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Version and status ------------------------------------------------------------------------------------------------------- */

#define FX_VERSION_MAJOR 0
#define FX_VERSION_MINOR 1
#define FX_VERSION_PATCH 0
#define FX_VERSION (FX_VERSION_MAJOR * 10000 + FX_VERSION_MINOR * 100 + FX_VERSION_PATCH)

/* FX_VERSION and "MAJOR.MINOR.PATCH" of the library that runs, which may be newer than this header. */
FX_API int32_t fx_version(void);
FX_API const char* fx_version_string(void);

typedef int32_t fx_status;
enum {
    FX_OK = 0,
    FX_BAD_ARGUMENT = 1,  /* a setting has an impossible value, a pointer is NULL, or a handle is closed */
    FX_BAD_MODEL = 2,     /* the compiled model is damaged, tampered with, incomplete or newer than the library */
    FX_BAD_IMAGE = 3,     /* at least one image has no result; the others have theirs, see fx_result.status */
    FX_UNAVAILABLE = 4,   /* an instruction set, encoder or format cannot run here, or the model was opened before a fork */
    FX_OUT_OF_MEMORY = 5, /* the system's memory or the model's memory_budget does not suffice */
    FX_CANCELLED = 6,     /* see fx_cancel_set */
    FX_INTERNAL = 7       /* a defect of fusedx or of a library below it, or a self-test that failed */
};

/* "ok", "bad_argument" ... of a status; "unknown" for other numbers.  Static. */
FX_API const char* fx_status_name(fx_status status);

/* What went wrong in the last call of this thread that failed; "" before the first.  Valid until this thread's next call that
 * fails, or its end. */
FX_API const char* fx_last_error(void);

/* ---- Log ---------------------------------------------------------------------------------------------------------------------- */

enum { FX_LOG_ERROR = 1, FX_LOG_WARNING = 2, FX_LOG_INFO = 3, FX_LOG_DEBUG = 4 };

/* Called on the thread that makes the call being logged, by several threads at a time.  `text` is one line without its end, valid
 * during the call.  It never holds pixels, predictions or names of images.  Must return, and must not call fx_set_log_callback; a call
 * of its own that fails replaces what fx_last_error() tells this thread. */
typedef void (*fx_log_callback)(int32_t level, const char* text, void* user);

/* One for the process; NULL ends it.  `level`: the most detailed level wanted.  When this returns, the former callback is not running
 * and is never called again. */
FX_API fx_status fx_set_log_callback(fx_log_callback callback, int32_t level, void* user);

/* ---- Models ------------------------------------------------------------------------------------------------------------------- */

/* A handle.  It is not an address: a closed or invented one is FX_BAD_ARGUMENT everywhere, and never a crash. */
typedef struct fx_model fx_model;

typedef struct fx_model_options {
    size_t struct_size;
    /* Threads that one call may use, 1 to 1024; 0: the environment's FUSEDX_THREADS, else the processors that this process may use. */
    int32_t threads;
    /* 1: check the SHA-256 of every file, and that all weights are finite.  0: sizes and structure alone. */
    int32_t verify;
    /* Bytes that the model may hold, weights and working memory of all its calls together; 0: no limit.  Opening fails with
     * FX_OUT_OF_MEMORY if the weights alone need more; large batches are worked through in smaller parts so as to stay within it. */
    int64_t memory_budget;
    /* Instruction set by name, of fx_isas(); NULL: the environment's FUSEDX_ISA, else the best of this processor. */
    const char* isa;
} fx_model_options;

/* Fills in the defaults (threads 0, verify 1, memory_budget 0, isa NULL) and struct_size.  FX_BAD_ARGUMENT: NULL, or a size that no
 * version of the structure has. */
FX_API fx_status fx_model_options_default(fx_model_options* options, size_t struct_size);

/* Opens the compiled model (a folder made by `fusedx compile`) at `path`.  options NULL: the defaults.  On failure *model is NULL.
 * The folder may be removed afterwards. */
FX_API fx_status fx_model_open(const char* path, const fx_model_options* options, fx_model** model);

/* Runs a procedural picture once as a batch of `images`, or of as many as run together where that is fewer, so that the first real
 * one is as fast as the rest. */
FX_API fx_status fx_model_warmup(fx_model* model, int32_t images);

/* Returns at once; calls under way in other threads end as usual, and then the memory is given back.  NULL is FX_OK. */
FX_API fx_status fx_model_close(fx_model* model);

/* Pointers are valid until the model is closed. */
typedef struct fx_model_info {
    size_t struct_size;
    int32_t class_count;
    int32_t default_draws;
    uint64_t default_seed;
    const char* family;            /* "diffmic-v1" or "diffmic-v2" */
    const char* task;              /* "multiclass" or "multilabel" */
    const char* precision;         /* of the denoiser's weights: "fp32", "bf16", "fp16", "int8" or "int4" */
    const char* encoder_precision; /* "fp32" or "int8" */
    const char* encoder;           /* what runs the encoder, with its version */
    const char* isa;               /* instruction set of the chain */
    const char* digest;            /* SHA-256 of manifest.json in hexadecimal, which covers every file of the model */
    const char* manifest;          /* text of manifest.json */
    int64_t weight_bytes;          /* of the denoiser's weights in memory */
    int32_t threads;               /* that one call may use */
    int32_t has_self_test;         /* 1: the model holds its own known answer, see fx_self_test */
} fx_model_info;

/* Set info->struct_size first. */
FX_API fx_status fx_model_get_info(const fx_model* model, fx_model_info* info);

/* Number of classes, 0 for what is no model. */
FX_API int32_t fx_model_class_count(const fx_model* model);

/* Name of class `index`, counted from 0, valid until the model is closed; NULL outside of the model's classes. */
FX_API const char* fx_model_class_name(const fx_model* model, int32_t index);

/* ---- Cancellation ------------------------------------------------------------------------------------------------------------- */

typedef struct fx_cancel fx_cancel; /* a handle, as fx_model */

FX_API fx_status fx_cancel_create(fx_cancel** cancel);

/* Every fx_classify that was given this token returns FX_CANCELLED soon, after the encoder's image or the chain's step that it is
 * at; so does every later one, until fx_cancel_reset. */
FX_API fx_status fx_cancel_set(fx_cancel* cancel);
FX_API fx_status fx_cancel_reset(fx_cancel* cancel);

/* May be called while calls use the token.  NULL is FX_OK. */
FX_API fx_status fx_cancel_destroy(fx_cancel* cancel);

/* ---- Images ------------------------------------------------------------------------------------------------------------------- */

enum {
    FX_RGB8 = 1,  /* 3 bytes a pixel: red, green, blue */
    FX_GRAY8 = 2, /* 1 byte a pixel */
    FX_GRAY16 = 3 /* 2 bytes a pixel in the processor's byte order, any alignment; scaled by the image's own least and greatest value */
};

typedef struct fx_image {
    size_t struct_size;
    const void* data;   /* first pixel of the upper row */
    int32_t width;      /* pixels */
    int32_t height;
    int64_t row_stride; /* bytes from a row to the next below, negative if rows are stored upwards; 0: rows follow without a gap */
    int32_t format;     /* FX_RGB8 ... */
    int32_t reserved;   /* 0 */
} fx_image;

/* Why an image has no result.  fx_reason_name gives the codes that the Python package uses: "empty", "too_large" ... */
enum {
    FX_REASON_NONE = 0,
    FX_REASON_EMPTY = 1,      /* no pixels */
    FX_REASON_TOO_LARGE = 2,  /* more pixels than max_pixels */
    FX_REASON_TOO_SMALL = 3,  /* the shorter side is below min_side */
    FX_REASON_BAD_ARRAY = 4,  /* NULL data, an unknown format, a stride shorter than a row or beyond the address space */
    FX_REASON_NOT_FINITE = 5  /* the model's weights overflow on this image */
};
FX_API const char* fx_reason_name(int32_t reason); /* static; "unknown" for other numbers */

/* ---- Classification ----------------------------------------------------------------------------------------------------------- */

/* How a chain's steps are computed.  It decides how long a call takes, and no bit of a result. */
enum {
    FX_SAMPLER_DEFAULT = 0,    /* the model's own default, which is FX_SAMPLER_AUTO unless it was compiled otherwise */
    FX_SAMPLER_SEQUENTIAL = 1, /* one step after the other */
    FX_SAMPLER_PARALLEL = 2,   /* many steps at once, at guessed states; only what was guessed right is kept */
    FX_SAMPLER_AUTO = 3        /* whichever is expected to be faster */
};

typedef struct fx_classify_options {
    size_t struct_size;
    uint64_t seed;      /* of the noise */
    int32_t draws;      /* independent chains to average, 1 to 65536; more draws: a steadier answer and a `stability` */
    int32_t batch;      /* images whose chains run together at most; 0: chosen.  Speed and memory depend on it, results do not. */
    int64_t max_pixels; /* of an image; guards against broken headers */
    int32_t min_side;   /* pixels of the shorter side of an image */
    int32_t reserved;   /* 0 */
    fx_cancel* cancel;  /* NULL: cannot be cancelled */
    int32_t sampler;      /* FX_SAMPLER_DEFAULT ... */
    int32_t sampler_rows; /* of the denoiser in one parallel sweep, over all images and draws that run together; 0: chosen */
} fx_classify_options;

/* Fills in the model's default seed and draws, batch 0, max_pixels 89478485, min_side 2, cancel NULL,
 * FX_SAMPLER_DEFAULT, sampler_rows 0, and struct_size.
 * model NULL: seed 0, draws 1. */
FX_API fx_status fx_classify_options_default(const fx_model* model, fx_classify_options* options, size_t struct_size);

typedef struct fx_result {
    /* Set by the caller.  Arrays belong to the caller; NULL: not wanted. */
    size_t struct_size;
    double* probabilities; /* [classes]: softmax of scores; of a multilabel model scores clipped to 0..1 */
    double* scores;        /* [classes]: the chain's final state, mean over draws */
    double* prior;         /* [classes]: the prior encoder's own answer */
    double* draw_scores;   /* [draws][classes]: every draw's final state */
    int32_t* draw_labels;  /* [draws]: class of the largest score of every draw */
    int32_t class_capacity; /* elements in probabilities, scores and prior; draw_scores has class_capacity * draw_capacity */
    int32_t draw_capacity;  /* elements in draw_labels */
    /* Set by the library.  Of arrays, only elements that exist are written: rows of draw_scores are `classes` long. */
    fx_status status;         /* of this image; unless FX_OK all below but reason is 0 and arrays are NaN, index and labels -1 */
    int32_t reason;           /* FX_REASON_NONE ... */
    int32_t index;            /* class of the largest score */
    int32_t draws;            /* averaged */
    double stability;         /* share of the draws whose own label is `index` */
    uint8_t image_sha256[32]; /* of the image as 8-bit RGB, which keys its noise */
    int32_t patch_locations[6][2]; /* (row, column) of the model's regions in pixels of the 224x224 input */
    double preprocess_seconds;     /* this image's own */
    double encoder_seconds;        /* its share of its batch's */
    double chain_seconds;
    int64_t sweeps;           /* evaluations of the denoiser that a draw of it had rows in: the most of its draws */
    int64_t evaluations;      /* rows of the denoiser that its draws took in all */
    int64_t sequential_steps; /* steps of its draws that were taken one at a time: all of them in a sequential run */
} fx_result;

/* Classifies `count` images.  options NULL: the defaults.  images[0].struct_size is the distance from an image to the next, and
 * results[0].struct_size that of results; all elements must have the same.
 *
 * FX_OK: every image has its result.  FX_BAD_IMAGE: at least one has none, see its status and reason; fx_last_error() is about the
 * first of them.  Any other status: there are no results at all, and each result's status is that one. */
FX_API fx_status fx_classify(fx_model* model, const fx_image* images, int32_t count, const fx_classify_options* options,
                             fx_result* results);

/* ---- Self-test and processor -------------------------------------------------------------------------------------------------- */

enum {
    FX_TEST_SHA256 = 1,  /* against the standard's vectors */
    FX_TEST_PHILOX = 2,  /* against the generator's published vectors, and stored normal numbers to the bit */
    FX_TEST_RESIZE = 4,  /* against stored pixels */
    FX_TEST_SOFTMAX = 8, /* against stored numbers to the bit */
    FX_TEST_MODEL = 16   /* against the probabilities stored in the model when it was compiled, within its stored tolerance */
};

/* Runs known-answer tests of this library on this machine, and, with a model that holds one (fx_model_info.has_self_test), of the
 * model; model NULL: the library's alone.  *ran and *failed (each may be NULL): sets of FX_TEST_ bits.  FX_INTERNAL if any failed. */
FX_API fx_status fx_self_test(fx_model* model, uint32_t* ran, uint32_t* failed);

/* Instruction sets that this build holds and this machine runs, best first, separated by commas.  Static. */
FX_API const char* fx_isas(void);

#ifdef __cplusplus
}
#endif

#endif
