"""The one tolerance table.  Widening a row is a reviewed decision with its reason beside it."""

#: (device, dtype) -> relative error, a ratio of Euclidean norms, against the golden arrays of the original authors' code.
GOLDEN = {
    ("cpu", "float64"): 1e-9,
    ("cpu", "float32"): 1e-5,
}

#: (device, weights' precision) -> the same in low precision on a processor, about twice the worst stage of the golden cases, which is
#: v2-placental's final map (ten large steps of an untrained network): 4.8e-3, 7.0e-4, 3.0e-2, 1.2e-1.
GOLDEN |= {
    ("cpu", "bf16"): 1e-2,  # 8 bits of fraction a weight; activations float32
    ("cpu", "fp16"): 1.5e-3,  # 11 bits
    ("cpu", "int8"): 6e-2,  # 8 bits a weight and an activation, each row's largest setting the step
    ("cpu", "int4"): 2.5e-1,  # 4 bits a weight, 64 to a scale
}

#: (device, weights' precision) -> the same on a GPU, TF32 off, sums of other orders and convolutions of another library.  In lower
#: precision the encoder rounds too, and what a region choice between two nearly equal scores changes is not counted: GPU_TIE.
#: Rounded chains of the golden cases, emulated on a CPU, differ by 3e-5 .. 2e-3 (bf16), 5e-6 .. 3e-4 (fp16) and 7e-4 .. 2e-2 (fp8),
#: encoders by up to 6e-3 (bf16) and 8e-4 (fp16).
GOLDEN |= {
    ("cuda", "fp32"): 1e-4,
    ("cuda", "bf16"): 2e-2,  # 8 bits of fraction, in weights, activations and the encoder's features
    ("cuda", "fp16"): 5e-3,  # 11 bits
    ("cuda", "fp8"): 5e-2,  # 4 bits a weight, averaged over the width; activations fp16, the encoder bf16
}
#: Two regions whose scores are this near, relative to the larger, may change places where the saliency is computed in fp16.
GPU_TIE = 1e-3

#: Weights' precision -> relative error of the final state of the chain alone, fed with golden arrays.  fp32 is the engine's promise;
#: the others are about twice the worst of the small golden cases, computed by the persistent kernel emulated on a CPU (bf16 1.6e-3,
#: fp16 1.3e-4, fp8 2.3e-2).
GPU_CHAIN = {"fp32": 1e-4, "bf16": 4e-3, "fp16": 4e-4, "fp8": 5e-2}
