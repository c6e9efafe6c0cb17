"""All steps of the chain in one launch (CUDA C++, at most eight rows): plan it, pack its weights, fill its argument."""

from fusedx.kernels.chain.layout import FORMATS, MAX_CLASSES, MAX_ROWS
from fusedx.kernels.chain.pack import pack_weight, pad
from fusedx.kernels.chain.params import (
    DDIM_COEFFICIENTS,
    POSTERIOR_COEFFICIENTS,
    ChainControl,
    ChainParams,
    chain_params,
    failure,
)
from fusedx.kernels.chain.plan import ChainPlan, plan

__all__ = [
    "DDIM_COEFFICIENTS",
    "FORMATS",
    "MAX_CLASSES",
    "MAX_ROWS",
    "POSTERIOR_COEFFICIENTS",
    "ChainControl",
    "ChainParams",
    "ChainPlan",
    "chain_params",
    "failure",
    "pack_weight",
    "pad",
    "plan",
]
