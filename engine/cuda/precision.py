"""What a precision means on a GPU: that of the denoiser's two large matrices; the encoder's follows unless it is chosen too."""

from __future__ import annotations

from fusedx.kernels.conditional_layer.formats import FORMATS

PRECISIONS = tuple(FORMATS)
#: Precision of the denoiser's weights -> that of the encoder.
ENCODER_PRECISION = {"fp32": "fp32", "bf16": "bf16", "fp16": "fp16", "fp8": "bf16"}
