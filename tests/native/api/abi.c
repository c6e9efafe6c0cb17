/* Prints what a compiled caller relies on: sizes, offsets and numbers of fusedx.h.  tests/test_c_api.py compares with abi.txt. */
#include <fusedx/fusedx.h>
#include <stdio.h>

#define STRUCT(s) printf("struct %s %zu\n", #s, sizeof(s))
#define FIELD(s, f) printf("  %s.%s %zu %zu\n", #s, #f, offsetof(s, f), sizeof(((s*)0)->f))
#define NUMBER(n) printf("%s %d\n", #n, (int)(n))

int main(void) {
    STRUCT(fx_model_options);
    FIELD(fx_model_options, struct_size);
    FIELD(fx_model_options, threads);
    FIELD(fx_model_options, verify);
    FIELD(fx_model_options, memory_budget);
    FIELD(fx_model_options, isa);
    STRUCT(fx_model_info);
    FIELD(fx_model_info, struct_size);
    FIELD(fx_model_info, class_count);
    FIELD(fx_model_info, default_draws);
    FIELD(fx_model_info, default_seed);
    FIELD(fx_model_info, family);
    FIELD(fx_model_info, task);
    FIELD(fx_model_info, precision);
    FIELD(fx_model_info, encoder_precision);
    FIELD(fx_model_info, encoder);
    FIELD(fx_model_info, isa);
    FIELD(fx_model_info, digest);
    FIELD(fx_model_info, manifest);
    FIELD(fx_model_info, weight_bytes);
    FIELD(fx_model_info, threads);
    FIELD(fx_model_info, has_self_test);
    STRUCT(fx_image);
    FIELD(fx_image, struct_size);
    FIELD(fx_image, data);
    FIELD(fx_image, width);
    FIELD(fx_image, height);
    FIELD(fx_image, row_stride);
    FIELD(fx_image, format);
    FIELD(fx_image, reserved);
    STRUCT(fx_classify_options);
    FIELD(fx_classify_options, struct_size);
    FIELD(fx_classify_options, seed);
    FIELD(fx_classify_options, draws);
    FIELD(fx_classify_options, batch);
    FIELD(fx_classify_options, max_pixels);
    FIELD(fx_classify_options, min_side);
    FIELD(fx_classify_options, reserved);
    FIELD(fx_classify_options, cancel);
    FIELD(fx_classify_options, sampler);
    FIELD(fx_classify_options, sampler_rows);
    STRUCT(fx_result);
    FIELD(fx_result, struct_size);
    FIELD(fx_result, probabilities);
    FIELD(fx_result, scores);
    FIELD(fx_result, prior);
    FIELD(fx_result, draw_scores);
    FIELD(fx_result, draw_labels);
    FIELD(fx_result, class_capacity);
    FIELD(fx_result, draw_capacity);
    FIELD(fx_result, status);
    FIELD(fx_result, reason);
    FIELD(fx_result, index);
    FIELD(fx_result, draws);
    FIELD(fx_result, stability);
    FIELD(fx_result, image_sha256);
    FIELD(fx_result, patch_locations);
    FIELD(fx_result, preprocess_seconds);
    FIELD(fx_result, encoder_seconds);
    FIELD(fx_result, chain_seconds);
    FIELD(fx_result, sweeps);
    FIELD(fx_result, evaluations);
    FIELD(fx_result, sequential_steps);
    NUMBER(FX_OK);
    NUMBER(FX_BAD_ARGUMENT);
    NUMBER(FX_BAD_MODEL);
    NUMBER(FX_BAD_IMAGE);
    NUMBER(FX_UNAVAILABLE);
    NUMBER(FX_OUT_OF_MEMORY);
    NUMBER(FX_CANCELLED);
    NUMBER(FX_INTERNAL);
    NUMBER(FX_LOG_ERROR);
    NUMBER(FX_LOG_WARNING);
    NUMBER(FX_LOG_INFO);
    NUMBER(FX_LOG_DEBUG);
    NUMBER(FX_RGB8);
    NUMBER(FX_GRAY8);
    NUMBER(FX_GRAY16);
    NUMBER(FX_REASON_NONE);
    NUMBER(FX_REASON_EMPTY);
    NUMBER(FX_REASON_TOO_LARGE);
    NUMBER(FX_REASON_TOO_SMALL);
    NUMBER(FX_REASON_BAD_ARRAY);
    NUMBER(FX_REASON_NOT_FINITE);
    NUMBER(FX_SAMPLER_DEFAULT);
    NUMBER(FX_SAMPLER_SEQUENTIAL);
    NUMBER(FX_SAMPLER_PARALLEL);
    NUMBER(FX_SAMPLER_AUTO);
    NUMBER(FX_TEST_SHA256);
    NUMBER(FX_TEST_PHILOX);
    NUMBER(FX_TEST_RESIZE);
    NUMBER(FX_TEST_SOFTMAX);
    NUMBER(FX_TEST_MODEL);
    return 0;
}
