"""What a precision means on a GPU: that of the denoiser's two large matrices; the encoder's follows unless it is chosen too."""

from __future__ import annotations

from fusedx.kernels.conditional_layer.formats import FORMATS

PRECISIONS = tuple(FORMATS)
#: Precision of the denoiser's weights -> that of the encoder.
ENCODER_PRECISION = {"fp32": "fp32", "bf16": "bf16", "fp16": "fp16", "fp8": "bf16"}
#: The same -> bits behind the point of the grid that the denoiser sees the state on, as fine as the arithmetic behind it can tell apart:
#: activations of 8 or 11 bits, and of fp8 weights of 4.  A coarser grid lets the parallel sampler take its guesses sooner.
GRID_BITS = {"fp32": 18, "bf16": 10, "fp16": 10, "fp8": 10}
