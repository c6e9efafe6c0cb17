/* The C interface as a hostile or careless caller uses it:  interface MODEL.fusedx
 *
 * Built twice: against libfusedx, and with an encoder that needs no OpenVINO, so that sanitizers see every thread.
 * Prints one line a test and ends with 1 at the first wrong one. */
#include <fusedx/fusedx.h>
#include <math.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SIDE = 260, CLASSES = 64, IMAGES = 7 };

#define CHECK(condition)                                                                                              \
    do {                                                                                                              \
        if (!(condition)) {                                                                                           \
            fprintf(stderr, "%s:%d: %s is false; last error: %s\n", __FILE__, __LINE__, #condition, fx_last_error()); \
            exit(1);                                                                                                  \
        }                                                                                                             \
    } while (0)
#define IS(status, call) CHECK((call) == (status))

static unsigned char pixels[IMAGES][SIDE * SIDE * 3];
static fx_model* model;

/* Images of one size and different content; numbers from a linear congruence. */
static void make_pixels(void) {
    unsigned state = 1;
    for (int i = 0; i < IMAGES; ++i)
        for (int j = 0; j < SIDE * SIDE * 3; ++j) state = state * 1664525u + 1013904223u, pixels[i][j] = (unsigned char)(state >> 24);
}

static fx_image image_of(int i) {
    fx_image image;
    memset(&image, 0, sizeof image);
    image.struct_size = sizeof image, image.data = pixels[i], image.width = SIDE, image.height = SIDE - i, image.format = FX_RGB8;
    return image;
}

typedef struct answer {
    fx_result r;
    double probabilities[CLASSES], scores[CLASSES], prior[CLASSES], draws[CLASSES * 8];
    int32_t labels[8];
} answer;

static void expect_nothing_yet(answer* a) {
    memset(a, 0, sizeof *a);
    a->r.struct_size = sizeof a->r, a->r.class_capacity = CLASSES, a->r.draw_capacity = 8;
    a->r.probabilities = a->probabilities, a->r.scores = a->scores, a->r.prior = a->prior;
    a->r.draw_scores = a->draws, a->r.draw_labels = a->labels;
}

static void same(const answer* a, const answer* b) {
    CHECK(a->r.status == FX_OK && b->r.status == FX_OK && a->r.index == b->r.index && a->r.draws == b->r.draws);
    CHECK(!memcmp(a->probabilities, b->probabilities, sizeof a->probabilities) && !memcmp(a->scores, b->scores, sizeof a->scores));
    CHECK(!memcmp(a->prior, b->prior, sizeof a->prior) && !memcmp(a->draws, b->draws, sizeof a->draws));
    CHECK(!memcmp(a->labels, b->labels, sizeof a->labels) && !memcmp(&a->r.stability, &b->r.stability, sizeof(double)));
    CHECK(!memcmp(a->r.image_sha256, b->r.image_sha256, 32) && !memcmp(a->r.patch_locations, b->r.patch_locations, 48));
}

static fx_classify_options options_of(int draws, int batch) {
    fx_classify_options o;
    IS(FX_OK, fx_classify_options_default(model, &o, sizeof o));
    o.draws = draws, o.batch = batch, o.seed = 11;
    return o;
}

/* Classifies images `which[0..count)` as one batch. */
static void classify(fx_model* m, const int* which, int count, const fx_classify_options* o, answer* answers) {
    fx_image images[IMAGES];
    fx_result results[IMAGES];
    for (int i = 0; i < count; ++i) images[i] = image_of(which[i]), expect_nothing_yet(&answers[i]), results[i] = answers[i].r;
    IS(FX_OK, fx_classify(m, images, count, o, results));
    for (int i = 0; i < count; ++i) answers[i].r = results[i];
}

static void test_arguments(const char* path) {
    fx_model* none = (fx_model*)(size_t)0xdeadbeef;
    fx_model_options o;
    fx_model_info info;
    answer a;
    fx_image image = image_of(0);
    IS(FX_BAD_ARGUMENT, fx_model_open(NULL, NULL, &none));
    CHECK(none == NULL && strlen(fx_last_error()) > 0);
    IS(FX_BAD_ARGUMENT, fx_model_open(path, NULL, NULL));
    IS(FX_BAD_ARGUMENT, fx_model_open("", NULL, &none));
    IS(FX_BAD_MODEL, fx_model_open("/nowhere/at/all", NULL, &none));
    IS(FX_BAD_MODEL, fx_model_open("/dev/null", NULL, &none));
    IS(FX_BAD_MODEL, fx_model_open("/", NULL, &none));
    IS(FX_BAD_ARGUMENT, fx_model_options_default(NULL, sizeof o));
    IS(FX_BAD_ARGUMENT, fx_model_options_default(&o, 3));
    IS(FX_OK, fx_model_options_default(&o, sizeof o));
    CHECK(o.struct_size == sizeof o && o.verify == 1 && o.threads == 0 && o.memory_budget == 0 && o.isa == NULL);
    o.isa = "quantum";
    IS(FX_UNAVAILABLE, fx_model_open(path, &o, &none));
    o.isa = NULL, o.threads = -1;
    IS(FX_BAD_ARGUMENT, fx_model_open(path, &o, &none));
    o.threads = 2000;
    IS(FX_BAD_ARGUMENT, fx_model_open(path, &o, &none));
    o.threads = 0, o.verify = 7;
    IS(FX_BAD_ARGUMENT, fx_model_open(path, &o, &none));
    o.verify = 1, o.memory_budget = -5;
    IS(FX_BAD_ARGUMENT, fx_model_open(path, &o, &none));
    o.memory_budget = 4096;
    IS(FX_OUT_OF_MEMORY, fx_model_open(path, &o, &none));
    o.memory_budget = 0, o.struct_size = 0;
    IS(FX_BAD_ARGUMENT, fx_model_open(path, &o, &none));
    o.struct_size = (size_t)-1;
    IS(FX_BAD_ARGUMENT, fx_model_open(path, &o, &none));
    CHECK(none == NULL);

    IS(FX_BAD_ARGUMENT, fx_model_get_info(model, NULL));
    memset(&info, 0, sizeof info);
    IS(FX_BAD_ARGUMENT, fx_model_get_info(model, &info));
    info.struct_size = sizeof info;
    IS(FX_BAD_ARGUMENT, fx_model_get_info(NULL, &info));
    IS(FX_OK, fx_model_get_info(model, &info));
    CHECK(info.class_count == fx_model_class_count(model) && info.class_count > 1 && strlen(info.digest) == 64 && info.threads >= 1);
    CHECK(strstr(info.manifest, "fusedx-compiled-model") && strncmp(info.family, "diffmic-v", 9) == 0 && info.weight_bytes > 0);
    CHECK(fx_model_class_name(model, 0) && !fx_model_class_name(model, -1) && !fx_model_class_name(model, info.class_count));
    CHECK(!fx_model_class_name(NULL, 0) && fx_model_class_count(NULL) == 0 && fx_model_class_count((fx_model*)&info) == 0);
    IS(FX_BAD_ARGUMENT, fx_model_warmup(model, 0));
    IS(FX_BAD_ARGUMENT, fx_model_warmup(NULL, 1));
    IS(FX_OK, fx_model_close(NULL));

    expect_nothing_yet(&a);
    IS(FX_BAD_ARGUMENT, fx_classify(NULL, &image, 1, NULL, &a.r));
    CHECK(a.r.status == FX_BAD_ARGUMENT && a.r.index == -1);
    IS(FX_BAD_ARGUMENT, fx_classify((fx_model*)&image, &image, 1, NULL, &a.r));
    IS(FX_BAD_ARGUMENT, fx_classify(model, NULL, 1, NULL, &a.r));
    IS(FX_BAD_ARGUMENT, fx_classify(model, &image, 1, NULL, NULL));
    IS(FX_BAD_ARGUMENT, fx_classify(model, &image, 0, NULL, &a.r));
    IS(FX_BAD_ARGUMENT, fx_classify(model, &image, -3, NULL, &a.r));
    a.r.class_capacity = info.class_count - 1;
    IS(FX_BAD_ARGUMENT, fx_classify(model, &image, 1, NULL, &a.r));
    a.r.class_capacity = CLASSES, a.r.draw_capacity = 0;
    IS(FX_BAD_ARGUMENT, fx_classify(model, &image, 1, NULL, &a.r));
    a.r.draw_capacity = 8, image.struct_size = 5;
    IS(FX_BAD_ARGUMENT, fx_classify(model, &image, 1, NULL, &a.r));
    image.struct_size = sizeof image, image.reserved = 1;
    IS(FX_BAD_ARGUMENT, fx_classify(model, &image, 1, NULL, &a.r));
    image.reserved = 0, a.r.struct_size = 1;
    IS(FX_BAD_ARGUMENT, fx_classify(model, &image, 1, NULL, &a.r));
    for (int wrong = 0; wrong < 7; ++wrong) {
        fx_classify_options c = options_of(1, 0);
        if (wrong == 0) c.draws = 0;
        if (wrong == 1) c.draws = 65537;
        if (wrong == 2) c.batch = -1;
        if (wrong == 3) c.max_pixels = 0;
        if (wrong == 4) c.min_side = 0;
        if (wrong == 5) c.reserved = 1;
        if (wrong == 6) c.cancel = (fx_cancel*)model;
        expect_nothing_yet(&a);
        IS(FX_BAD_ARGUMENT, fx_classify(model, &image, 1, &c, &a.r));
    }
    CHECK(!strcmp(fx_status_name(FX_CANCELLED), "cancelled") && !strcmp(fx_status_name(-1), "unknown") && !strcmp(fx_status_name(99), "unknown"));
    CHECK(!strcmp(fx_reason_name(FX_REASON_TOO_LARGE), "too_large") && !strcmp(fx_reason_name(1000), "unknown"));
    CHECK(fx_version() == FX_VERSION && strlen(fx_version_string()) >= 5 && strlen(fx_isas()) > 3);
    IS(FX_OK, fx_classify(model, &image, 1, NULL, (expect_nothing_yet(&a), &a.r)));
}

/* Images that cannot be used, each between two that can. */
static void test_images(void) {
    static const struct { int32_t width, height, format, reason; int64_t stride; int null; } bad[] = {
        {0, 5, FX_RGB8, FX_REASON_EMPTY, 0, 0},
        {5, 0, FX_GRAY16, FX_REASON_EMPTY, 0, 0},
        {-1, 5, FX_RGB8, FX_REASON_BAD_ARRAY, 0, 0},
        {5, INT32_MIN, FX_RGB8, FX_REASON_BAD_ARRAY, 0, 0},
        {1, 9, FX_RGB8, FX_REASON_TOO_SMALL, 0, 0},
        {INT32_MAX, INT32_MAX, FX_GRAY8, FX_REASON_TOO_LARGE, 0, 0},
        {100, 100, FX_RGB8, FX_REASON_BAD_ARRAY, 0, 1},
        {100, 100, 0, FX_REASON_BAD_ARRAY, 0, 0},
        {100, 100, 77, FX_REASON_BAD_ARRAY, 0, 0},
        {100, 100, FX_RGB8, FX_REASON_BAD_ARRAY, 299, 0},
        {100, 100, FX_RGB8, FX_REASON_BAD_ARRAY, -299, 0},
        {100, 100, FX_GRAY16, FX_REASON_BAD_ARRAY, INT64_MAX, 0},
        {100, 100, FX_GRAY16, FX_REASON_BAD_ARRAY, INT64_MIN, 0},
        {100, 100, FX_GRAY16, FX_REASON_BAD_ARRAY, INT64_MAX / 99, 0},
    };
    fx_classify_options o = options_of(2, 0);
    answer alone[2], among[3];
    int two[2] = {1, 2};
    classify(model, two, 2, &o, alone);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; ++i) {
        fx_image images[3] = {image_of(1), image_of(0), image_of(2)};
        fx_result results[3];
        images[1].width = bad[i].width, images[1].height = bad[i].height, images[1].format = bad[i].format, images[1].row_stride = bad[i].stride;
        if (bad[i].null) images[1].data = NULL;
        for (int j = 0; j < 3; ++j) expect_nothing_yet(&among[j]), results[j] = among[j].r;
        IS(FX_BAD_IMAGE, fx_classify(model, images, 3, &o, results));
        for (int j = 0; j < 3; ++j) among[j].r = results[j];
        CHECK(results[1].status == FX_BAD_IMAGE && results[1].reason == bad[i].reason && results[1].index == -1);
        CHECK(isnan(among[1].probabilities[0]) && isnan(among[1].draws[0]) && among[1].labels[0] == -1);
        CHECK(strstr(fx_last_error(), "image 1") && strstr(fx_last_error(), fx_reason_name(bad[i].reason)));
        same(&among[0], &alone[0]), same(&among[2], &alone[1]);
    }
}

/* The same pixels upside down with a negative stride, and with gaps between rows, are the same image. */
static void test_strides(void) {
    static unsigned char turned[SIDE * SIDE * 3], gaps[SIDE * (SIDE * 3 + 13)];
    fx_classify_options o = options_of(1, 0);
    fx_image image = image_of(0);
    answer plain, other;
    int zero = 0;
    classify(model, &zero, 1, &o, &plain);
    for (int y = 0; y < SIDE; ++y) {
        memcpy(turned + (size_t)(SIDE - 1 - y) * SIDE * 3, pixels[0] + (size_t)y * SIDE * 3, SIDE * 3);
        memcpy(gaps + (size_t)y * (SIDE * 3 + 13), pixels[0] + (size_t)y * SIDE * 3, SIDE * 3);
    }
    image.data = turned + (size_t)(SIDE - 1) * SIDE * 3, image.row_stride = -SIDE * 3;
    expect_nothing_yet(&other);
    IS(FX_OK, fx_classify(model, &image, 1, &o, &other.r));
    same(&plain, &other);
    image.data = gaps, image.row_stride = SIDE * 3 + 13;
    expect_nothing_yet(&other);
    IS(FX_OK, fx_classify(model, &image, 1, &o, &other.r));
    same(&plain, &other);
}

/* Batch, order, blocks, threads, instruction set and budget leave no trace in the bits. */
static void test_invariance(const char* path) {
    const int order[IMAGES] = {0, 1, 2, 3, 4, 5, 6}, other_order[IMAGES] = {5, 3, 6, 0, 2, 1, 4};
    static const char* const isas[] = {"baseline", NULL};
    answer together[IMAGES], again[IMAGES], alone;
    fx_classify_options o = options_of(5, 0);
    classify(model, order, IMAGES, &o, together);
    classify(model, other_order, IMAGES, &o, again);
    for (int i = 0; i < IMAGES; ++i) same(&together[other_order[i]], &again[i]);
    for (int i = 0; i < IMAGES; ++i) classify(model, &order[i], 1, &o, &alone), same(&together[i], &alone);
    for (int batch = 1; batch < 4; ++batch) {
        o = options_of(5, batch);
        classify(model, order, IMAGES, &o, again);
        for (int i = 0; i < IMAGES; ++i) same(&together[i], &again[i]);
    }
    for (int threads = 1; threads < 4; ++threads)
        for (int i = 0; i < 2; ++i) {
            fx_model_options mo;
            fx_model* m;
            if (isas[i] != NULL && !strstr(fx_isas(), isas[i])) continue;
            IS(FX_OK, fx_model_options_default(&mo, sizeof mo));
            mo.threads = threads, mo.isa = isas[i], mo.verify = threads == 1;
            IS(FX_OK, fx_model_open(path, &mo, &m));
            classify(m, order, IMAGES, &o, again);
            /* the encoder's bits may depend on threads; what follows it must not */
            for (int j = 0; j < IMAGES; ++j)
                if (!memcmp(again[j].prior, together[j].prior, sizeof again[j].prior)) same(&together[j], &again[j]);
            IS(FX_OK, fx_model_close(m));
        }
}

static void test_budget(const char* path) {
    const int order[IMAGES] = {0, 1, 2, 3, 4, 5, 6};
    answer free_of_limits[IMAGES], limited[IMAGES];
    fx_classify_options o = options_of(8, 0);
    fx_model_options mo;
    fx_model* m = NULL;
    int opened = 0;
    o.sampler = FX_SAMPLER_PARALLEL, o.sampler_rows = 200;
    classify(model, order, IMAGES, &o, free_of_limits);
    IS(FX_OK, fx_model_options_default(&mo, sizeof mo));
    for (mo.memory_budget = 1 << 20; opened < 3; mo.memory_budget += mo.memory_budget / 8) {
        fx_status status = fx_model_open(path, &mo, &m);
        if (status == FX_OUT_OF_MEMORY) {
            CHECK(strstr(fx_last_error(), "MiB"));
            continue;
        }
        CHECK(status == FX_OK);
        {
            fx_image image = image_of(0);
            fx_result result;
            memset(&result, 0, sizeof result);
            result.struct_size = sizeof result;
            status = fx_classify(m, &image, 1, &o, &result);
            CHECK(status == FX_OK || (status == FX_OUT_OF_MEMORY && result.status == FX_OUT_OF_MEMORY));
            if (status == FX_OK) {
                classify(m, order, IMAGES, &o, limited), ++opened;
                for (int i = 0; i < IMAGES; ++i) same(&free_of_limits[i], &limited[i]);
            }
        }
        IS(FX_OK, fx_model_close(m));
    }
    { /* what grows with an image counts as well */
        enum { LARGE = 6000 };
        unsigned char* deep = calloc((size_t)LARGE * LARGE, 2);
        fx_image image = {sizeof image, deep, LARGE, LARGE, 0, FX_GRAY16, 0};
        fx_result result;
        CHECK(deep != NULL && mo.memory_budget < (int64_t)LARGE * LARGE);
        memset(&result, 0, sizeof result);
        result.struct_size = sizeof result;
        IS(FX_OK, fx_model_open(path, &mo, &m));
        IS(FX_OUT_OF_MEMORY, fx_classify(m, &image, 1, &o, &result));
        IS(FX_OK, fx_model_close(m));
        free(deep);
    }
}

typedef struct caller { pthread_t thread; fx_model* m; int first, done; answer expected[IMAGES]; } caller;

static void* call(void* context) {
    caller* c = context;
    for (int i = 0; i < 12; ++i) {
        const int which = (c->first + i) % IMAGES;
        fx_classify_options o = options_of(3, 0);
        answer a;
        classify(c->m, &which, 1, &o, &a);
        same(&a, &c->expected[which]);
        if (i % 4 == 0) CHECK(fx_classify(NULL, NULL, 0, NULL, NULL) == FX_BAD_ARGUMENT && strstr(fx_last_error(), "count"));
        ++c->done;
    }
    return NULL;
}

static void test_threads(void) {
    enum { CALLERS = 5 };
    static caller callers[CALLERS];
    const int order[IMAGES] = {0, 1, 2, 3, 4, 5, 6};
    fx_classify_options o = options_of(3, 0);
    classify(model, order, IMAGES, &o, callers[0].expected);
    for (int i = 0; i < CALLERS; ++i) {
        memcpy(callers[i].expected, callers[0].expected, sizeof callers[0].expected);
        callers[i].first = i, callers[i].m = model;
        CHECK(pthread_create(&callers[i].thread, NULL, call, &callers[i]) == 0);
    }
    for (int i = 0; i < CALLERS; ++i) CHECK(pthread_join(callers[i].thread, NULL) == 0 && callers[i].done == 12);
}

typedef struct endless { fx_model* m; fx_cancel* cancel; fx_status status; int32_t result_status; } endless;

static void* call_endlessly(void* context) {
    endless* e = context;
    fx_image image = image_of(0);
    fx_classify_options o = options_of(65536, 0);
    fx_result result;
    memset(&result, 0, sizeof result);
    result.struct_size = sizeof result;
    o.cancel = e->cancel;
    e->status = fx_classify(e->m, &image, 1, &o, &result);
    e->result_status = result.status;
    return NULL;
}

static void pause_ms(long ms) {
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&t, NULL);
}

/* A call is cancelled, its token destroyed and its model closed by another thread, while it runs. */
static void test_cancel(const char* path) {
    endless e = {NULL, NULL, -1, -1};
    pthread_t thread;
    fx_image image = image_of(0);
    fx_classify_options o = options_of(1, 0);
    answer a;
    IS(FX_BAD_ARGUMENT, fx_cancel_create(NULL));
    IS(FX_BAD_ARGUMENT, fx_cancel_set(NULL));
    IS(FX_BAD_ARGUMENT, fx_cancel_set((fx_cancel*)model));
    IS(FX_OK, fx_cancel_destroy(NULL));
    IS(FX_OK, fx_model_open(path, NULL, &e.m));
    IS(FX_OK, fx_cancel_create(&e.cancel));
    CHECK(pthread_create(&thread, NULL, call_endlessly, &e) == 0);
    pause_ms(300);
    IS(FX_OK, fx_cancel_set(e.cancel));
    IS(FX_OK, fx_cancel_destroy(e.cancel));
    IS(FX_OK, fx_model_close(e.m));
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(e.status == FX_CANCELLED && e.result_status == FX_CANCELLED);
    IS(FX_BAD_ARGUMENT, fx_cancel_destroy(e.cancel));
    IS(FX_BAD_ARGUMENT, fx_cancel_reset(e.cancel));

    IS(FX_OK, fx_cancel_create(&o.cancel));
    IS(FX_OK, fx_cancel_set(o.cancel));
    expect_nothing_yet(&a);
    IS(FX_CANCELLED, fx_classify(model, &image, 1, &o, &a.r));
    CHECK(isnan(a.probabilities[0]) && a.labels[0] == -1);
    IS(FX_OK, fx_cancel_reset(o.cancel));
    IS(FX_OK, fx_classify(model, &image, 1, &o, &a.r));
    IS(FX_OK, fx_cancel_destroy(o.cancel));
}

static void test_closed(const char* path) {
    fx_model* m;
    fx_model_info info;
    fx_image image = image_of(0);
    answer a;
    uint32_t ran;
    info.struct_size = sizeof info;
    expect_nothing_yet(&a);
    IS(FX_OK, fx_model_open(path, NULL, &m));
    IS(FX_OK, fx_model_close(m));
    IS(FX_BAD_ARGUMENT, fx_model_close(m));
    IS(FX_BAD_ARGUMENT, fx_classify(m, &image, 1, NULL, &a.r));
    IS(FX_BAD_ARGUMENT, fx_model_get_info(m, &info));
    IS(FX_BAD_ARGUMENT, fx_model_warmup(m, 1));
    IS(FX_BAD_ARGUMENT, fx_self_test(m, &ran, NULL));
    CHECK(fx_model_class_count(m) == 0 && fx_model_class_name(m, 0) == NULL);
}

/* A caller of a later version, whose structures are longer, and its arrays wider. */
static void test_growth(void) {
    struct { fx_image image; char more[16]; } images[2];
    struct { fx_result result; double more[2]; } results[2];
    struct { fx_classify_options o; int64_t more; } o;
    memset(images, 0, sizeof images), memset(results, 0, sizeof results), memset(&o, 0xff, sizeof o);
    for (int i = 0; i < 2; ++i) {
        images[i].image = image_of(i), images[i].image.struct_size = sizeof *images;
        results[i].result.struct_size = sizeof *results, results[i].more[0] = 7;
    }
    IS(FX_OK, fx_classify_options_default(model, &o.o, sizeof o));
    CHECK(o.o.struct_size == sizeof o && o.more == 0);
    IS(FX_OK, fx_classify(model, &images[0].image, 2, &o.o, &results[0].result));
    CHECK(results[1].result.index >= 0 && results[1].result.struct_size == sizeof *results && results[0].more[0] == 7);
    results[1].result.struct_size = sizeof(fx_result);
    IS(FX_BAD_ARGUMENT, fx_classify(model, &images[0].image, 2, &o.o, &results[0].result));
}

/* A caller of version 0.1, whose structures end before the sampler. */
static void test_elder(void) {
    fx_image image = image_of(1);
    fx_classify_options o = options_of(2, 0);
    answer now, then;
    const int which = 1;
    classify(model, &which, 1, &o, &now);
    o.struct_size = offsetof(fx_classify_options, sampler), o.sampler = 99, o.sampler_rows = -1; /* which is not its memory */
    expect_nothing_yet(&then);
    then.r.struct_size = offsetof(fx_result, sweeps), then.r.sweeps = -7, then.r.sequential_steps = -7;
    IS(FX_OK, fx_classify(model, &image, 1, &o, &then.r));
    CHECK(then.r.sweeps == -7 && then.r.sequential_steps == -7 && then.r.struct_size == offsetof(fx_result, sweeps));
    same(&now, &then);
    o.struct_size -= 8;
    IS(FX_BAD_ARGUMENT, fx_classify(model, &image, 1, &o, &then.r));
    o.struct_size += 8, then.r.struct_size -= 8;
    IS(FX_BAD_ARGUMENT, fx_classify(model, &image, 1, &o, &then.r));
    IS(FX_OK, fx_classify_options_default(model, &o, offsetof(fx_classify_options, sampler)));
}

/* Every sampler and number of rows: the same bits, and what they took. */
static void test_samplers(void) {
    const int order[IMAGES] = {0, 1, 2, 3, 4, 5, 6};
    answer sequential[IMAGES], other[IMAGES];
    fx_classify_options o = options_of(2, 0);
    fx_image image = image_of(0);
    int64_t steps;
    CHECK(o.sampler == FX_SAMPLER_DEFAULT && o.sampler_rows == 0);
    o.sampler = FX_SAMPLER_SEQUENTIAL;
    classify(model, order, IMAGES, &o, sequential);
    steps = sequential[0].r.sweeps;
    CHECK(steps >= 1);
    for (int i = 0; i < IMAGES; ++i)
        CHECK(sequential[i].r.sweeps == steps && sequential[i].r.evaluations >= 2 * steps &&
              sequential[i].r.sequential_steps == sequential[i].r.evaluations);
    for (int sampler = FX_SAMPLER_DEFAULT; sampler <= FX_SAMPLER_AUTO; ++sampler)
        for (int count = 1; count <= IMAGES; count += IMAGES - 1) {
            static const int32_t rows[] = {0, 1, 5, 64, 16384};
            for (size_t r = 0; r < sizeof rows / sizeof *rows; ++r) {
                o.sampler = sampler, o.sampler_rows = rows[r];
                classify(model, order, count, &o, other);
                for (int i = 0; i < count; ++i) same(&sequential[i], &other[i]);
                CHECK(other[0].r.sweeps >= 1 && other[0].r.sweeps <= steps && other[0].r.evaluations >= other[0].r.sweeps);
                if (sampler == FX_SAMPLER_PARALLEL && rows[r] >= 64) CHECK(other[0].r.sweeps < steps && other[0].r.sequential_steps == 0);
            }
        }
    expect_nothing_yet(&other[0]);
    o = options_of(1, 0), o.sampler = 4;
    IS(FX_BAD_ARGUMENT, fx_classify(model, &image, 1, &o, &other[0].r));
    CHECK(strstr(fx_last_error(), "FX_SAMPLER_DEFAULT") && other[0].r.status == FX_BAD_ARGUMENT && other[0].r.sweeps == 0);
    o.sampler = -1;
    IS(FX_BAD_ARGUMENT, fx_classify(model, &image, 1, &o, &other[0].r));
    o.sampler = FX_SAMPLER_PARALLEL, o.sampler_rows = -1;
    IS(FX_BAD_ARGUMENT, fx_classify(model, &image, 1, &o, &other[0].r));
    CHECK(strstr(fx_last_error(), "sampler_rows"));
    o.sampler_rows = 16385;
    IS(FX_BAD_ARGUMENT, fx_classify(model, &image, 1, &o, &other[0].r));
}

static int logged;
static char last_logged[256];
static void on_log(int32_t level, const char* text, void* user) {
    *(int*)user += level >= FX_LOG_ERROR;
    snprintf(last_logged, sizeof last_logged, "%s", text);
    CHECK(fx_set_log_callback(NULL, 0, NULL) == FX_BAD_ARGUMENT);
}

/* These texts have no character of four bytes. */
static void check_line(const char* text) {
    for (const unsigned char* c = (const unsigned char*)text; *c;) {
        int more = *c < 0x80 ? 0 : *c >= 0xe0 ? 2 : 1;
        CHECK(*c >= 0x20 && *c != 0x7f && !(*c >= 0x80 && *c < 0xc2));
        for (++c; more > 0; --more, ++c) CHECK((*c & 0xc0) == 0x80);
    }
}

static void on_line(int32_t level, const char* text, void* user) {
    (void)level;
    ++*(int*)user;
    check_line(text);
}

/* One line of UTF-8 reaches the caller and the log, whatever is in a path or a setting: a forged line would be believed. */
static void test_texts(const char* path) {
    static const char* const paths[] = {"/nowhere/\xff\xfe\x80", "/nowhere\n2026-01-01 opened model of good repute",
                                        "/nowhere/\x1b[2J\xc2\x9b\xe2\x80\xa8", "/\xed\xa0\x80"};
    static const char* const isas[] = {"avx2\nopened", "\xff"};
    static char much[6002];
    fx_model_options o;
    fx_model* m;
    logged = 0;
    IS(FX_OK, fx_model_options_default(&o, sizeof o));
    IS(FX_OK, fx_set_log_callback(on_line, FX_LOG_DEBUG, &logged));
    for (int i = 0; i < 4; ++i) {
        IS(FX_BAD_MODEL, fx_model_open(paths[i], NULL, &m));
        check_line(fx_last_error());
        CHECK(strstr(fx_last_error(), "\\x"));
    }
    for (int i = 0; i < 2; ++i) {
        o.isa = isas[i];
        IS(FX_UNAVAILABLE, fx_model_open(path, &o, &m));
        check_line(fx_last_error());
        CHECK(strstr(fx_last_error(), "\\x"));
    }
    for (int start = 0; start < 2; ++start) { /* cut in the middle of a character */
        much[0] = 'a';
        for (int j = 0; j < 3000; ++j) memcpy(much + start + 2 * j, "\xc3\xa9", 2);
        IS(FX_BAD_MODEL, fx_model_open(much, NULL, &m));
        check_line(fx_last_error());
    }
    CHECK(logged >= 8);
    IS(FX_OK, fx_set_log_callback(NULL, 0, NULL));
}

static void test_log(void) {
    IS(FX_BAD_ARGUMENT, fx_set_log_callback(on_log, 9, &logged));
    IS(FX_OK, fx_set_log_callback(on_log, FX_LOG_DEBUG, &logged));
    IS(FX_BAD_ARGUMENT, fx_model_warmup(NULL, 1));
    CHECK(logged > 0 && strstr(last_logged, "model"));
    logged = 0;
    IS(FX_OK, fx_set_log_callback(NULL, 0, NULL));
    IS(FX_BAD_ARGUMENT, fx_model_warmup(NULL, 1));
    CHECK(logged == 0);
}

static void test_self_test(int real_encoder) {
    uint32_t ran = 99, failed = 99;
    fx_model_info info;
    IS(FX_OK, fx_self_test(NULL, &ran, &failed));
    CHECK(ran == (FX_TEST_SHA256 | FX_TEST_PHILOX | FX_TEST_RESIZE | FX_TEST_SOFTMAX) && failed == 0);
    IS(FX_OK, fx_self_test(NULL, NULL, NULL));
    info.struct_size = sizeof info;
    IS(FX_OK, fx_model_get_info(model, &info));
    if (!real_encoder) return; /* the stored answer is of the model's own encoder */
    IS(FX_OK, fx_self_test(model, &ran, &failed));
    CHECK(failed == 0 && ((ran & FX_TEST_MODEL) != 0) == info.has_self_test);
}

static void on_signal(int number) { (void)number; }

/* Runtimes below may give a thread a stack for signals; it must still be there, or the former one be back, when models are gone. */
static void test_signals(const char* path) {
    fx_model *first = NULL, *second = NULL;
    struct sigaction action, before;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    action.sa_flags = SA_ONSTACK;
    fx_model_options options;
    IS(FX_OK, fx_model_options_default(&options, sizeof options));
    options.threads = 1; /* everything on this thread */
    IS(FX_OK, fx_model_open(path, &options, &first));
    IS(FX_OK, fx_model_open(path, &options, &second));
    IS(FX_OK, fx_model_close(first));
    IS(FX_OK, fx_model_close(second));
    CHECK(sigaction(SIGUSR1, &action, &before) == 0 && raise(SIGUSR1) == 0 && sigaction(SIGUSR1, &before, NULL) == 0);
}

static sem_t callback_entered, callback_may_end;
static void slow_log(int32_t level, const char* text, void* user) {
    (void)level, (void)text, (void)user;
    sem_post(&callback_entered);
    sem_wait(&callback_may_end);
}

static void* fail_loudly(void* context) {
    (void)context;
    IS(FX_BAD_ARGUMENT, fx_model_warmup(NULL, 1));
    return NULL;
}

/* A child inherits locks as they are and not the threads that would release them. */
static void test_fork_in_callback(void) {
    pthread_t thread;
    pid_t child;
    int status = -1;
    CHECK(sem_init(&callback_entered, 0, 0) == 0 && sem_init(&callback_may_end, 0, 0) == 0);
    IS(FX_OK, fx_set_log_callback(slow_log, FX_LOG_DEBUG, NULL));
    CHECK(pthread_create(&thread, NULL, fail_loudly, NULL) == 0);
    CHECK(sem_wait(&callback_entered) == 0);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        alarm(60);
        _exit(fx_set_log_callback(NULL, 0, NULL) == FX_OK && fx_model_close(model) == FX_OK ? 0 : 2);
    }
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK(sem_post(&callback_may_end) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    IS(FX_OK, fx_set_log_callback(NULL, 0, NULL));
}

static void test_fork(void) {
    int status = -1;
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        fx_image image = image_of(0);
        fx_result result;
        memset(&result, 0, sizeof result);
        result.struct_size = sizeof result;
        if (fx_classify(model, &image, 1, NULL, &result) != FX_UNAVAILABLE || !strstr(fx_last_error(), "fork")) _exit(2);
        if (fx_model_close(model) != FX_OK) _exit(3);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(int argc, char** argv) {
    const char* only = argc > 2 ? argv[2] : "";
    if (argc < 2) return fprintf(stderr, "usage: %s MODEL.fusedx [TEST]\n", argv[0]), 2;
    make_pixels();
    IS(FX_OK, fx_model_open(argv[1], NULL, &model));
    IS(FX_OK, fx_model_warmup(model, 2));
#define TEST(name, call)                 \
    if (!*only || !strcmp(only, #name)) { \
        call;                            \
        printf("%s\n", #name);           \
        fflush(stdout);                  \
    }
    fx_model_info info;
    info.struct_size = sizeof info;
    IS(FX_OK, fx_model_get_info(model, &info));
    TEST(arguments, test_arguments(argv[1]))
    TEST(images, test_images())
    TEST(strides, test_strides())
    TEST(invariance, test_invariance(argv[1]))
    TEST(budget, test_budget(argv[1]))
    TEST(threads, test_threads())
    TEST(cancel, test_cancel(argv[1]))
    TEST(closed, test_closed(argv[1]))
    TEST(growth, test_growth())
    TEST(elder, test_elder())
    TEST(samplers, test_samplers())
    TEST(log, test_log())
    TEST(texts, test_texts(argv[1]))
    TEST(self_test, test_self_test(strstr(info.encoder, "openvino") != NULL))
    TEST(signals, test_signals(argv[1]))
    TEST(fork_in_callback, test_fork_in_callback())
    TEST(fork, test_fork())
    IS(FX_OK, fx_model_close(model));
    return 0;
}
