"""What a kernel's host code may know about a GPU, as plain numbers: no driver, no framework.

The table holds the limits of the seven architectures that the CUDA and Triton kernels are built for, so that plans and choices
can be made and tested where there is no GPU.  The numbers are those of NVIDIA's CUDA C++ Programming Guide, "Compute
Capabilities"; processor counts and cache sizes are those of the product named and are replaced by the driver's on a real device.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """One GPU.  ``cc``: compute capability as an integer, 90 for 9.0.  Sizes in bytes; registers are 32-bit, per processor."""

    cc: int
    sms: int
    shared_per_block: int
    shared_per_sm: int
    l2: int
    example: str
    registers_per_sm: int = 65536

    @property
    def arch(self) -> str:
        """The name that nvcc takes: features of one architecture alone (sm_90a) where a kernel uses them."""
        return f"sm_{self.cc}a" if self.cc == 90 else f"sm_{self.cc}"


#: By compute capability.
TARGETS = {
    80: Target(80, 108, 163 << 10, 164 << 10, 40 << 20, "A100"),
    86: Target(86, 84, 99 << 10, 100 << 10, 6 << 20, "RTX 3090, A40"),
    87: Target(87, 16, 163 << 10, 164 << 10, 4 << 20, "Jetson AGX Orin"),
    89: Target(89, 142, 99 << 10, 100 << 10, 96 << 20, "L40S, RTX 4090"),
    90: Target(90, 132, 227 << 10, 228 << 10, 50 << 20, "H100"),
    100: Target(100, 148, 227 << 10, 228 << 10, 126 << 20, "B200"),
    120: Target(120, 170, 99 << 10, 100 << 10, 96 << 20, "RTX 5090, RTX PRO 6000"),
}


def nearest(cc: int) -> Target:
    """The table's entry for a compute capability, or the newest one of the same major version that is not newer.

    Raises ValueError, naming what is supported, where there is none.
    """
    same = [k for k in TARGETS if k // 10 == cc // 10 and k <= cc]
    if not same:
        known = ", ".join(f"{k // 10}.{k % 10}" for k in TARGETS)
        raise ValueError(f"compute capability {cc // 10}.{cc % 10} is not supported; supported: {known} (and newer minor versions)")
    return TARGETS[max(same)]
