"""One layer of the denoiser: matrix product, time-step scale and shift, softplus, image feature, in one pass.

``conditional_layer`` is the numpy reference, for any float dtype; ``projected_layer`` adds the denoiser's last layer, and
``tangent_layer`` differentiates the layer along given directions.
``run`` and ``run_projected`` are their float32 forms for processors, on weights from ``pack`` and ``pack_projection``;
``available()`` says whether they are built.
"""

from fusedx.kernels.conditional_layer.native import available, pack, pack_projection, run, run_projected
from fusedx.kernels.conditional_layer.reference import conditional_layer, projected_layer, tangent_layer

__all__ = ["available", "conditional_layer", "pack", "pack_projection", "projected_layer", "run", "run_projected", "tangent_layer"]
