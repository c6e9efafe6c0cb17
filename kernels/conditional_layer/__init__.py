"""One layer of the denoiser: matrix product, time-step scale and shift, softplus, image feature, in one pass.

``conditional_layer`` is the numpy reference, for any float dtype.  ``pack`` and ``run`` are the float32 form for
processors; ``available()`` says whether it is built.
"""

from .native import available, pack, run
from .reference import conditional_layer

__all__ = ["available", "conditional_layer", "pack", "run"]
