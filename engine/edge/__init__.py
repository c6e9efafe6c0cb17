"""A compiled model on an NVIDIA GPU without torch: TensorRT for the encoder, the CUDA kernels for frames and chain, PyCUDA for memory.

    requirements   what has to be installed, and what is missing       frames   decoded frames to the network's input
    encoder        a TensorRT plan between them                        model    all of it behind one object

The same :class:`fusedx.engine.engine.Engine` as everywhere: only its two parts, encoder and chain runner, are others.
"""

from fusedx.engine.edge.model import Classified, EdgeModel
from fusedx.engine.edge.requirements import why_not

__all__ = ["Classified", "EdgeModel", "why_not"]
