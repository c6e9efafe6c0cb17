"""All steps of the chain in one launch (CUDA C++, at most eight rows): plan it, pack its weights, fill its argument."""

from fusedx.kernels.chain.layout import FORMATS, MAX_CLASSES, MAX_ROWS
from fusedx.kernels.chain.pack import pack_weight, pad
from fusedx.kernels.chain.params import (
    ChainControl,
    ChainParams,
    chain_params,
    failure,
)
from fusedx.kernels.chain.plan import ChainPlan, plan

__all__ = [
    "FORMATS",
    "MAX_CLASSES",
    "MAX_ROWS",
    "ChainControl",
    "ChainParams",
    "ChainPlan",
    "chain_params",
    "failure",
    "pack_weight",
    "pad",
    "plan",
]
