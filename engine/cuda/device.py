"""Which GPUs there are, and which one a ``device`` string means."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from fusedx.engine.cuda import driver
from fusedx.engine.errors import ConfigError, DeviceError, UnavailableError
from fusedx.kernels.target import Target, nearest


@dataclass(frozen=True, slots=True)
class GPU:
    """One GPU.  ``target``: its limits as the driver reports them; memory in bytes; ``driver``: the newest CUDA it runs."""

    index: int
    name: str
    target: Target
    memory: int
    driver: str

    @property
    def compute_capability(self) -> str:
        """Such as ``9.0``."""
        return f"{self.target.cc // 10}.{self.target.cc % 10}"

    def __str__(self) -> str:
        gib = self.memory / 2**30
        return f"cuda:{self.index} {self.name}, compute capability {self.compute_capability}, {self.target.sms} SMs, {gib:.0f} GiB"


def parse(device: str) -> int | None:
    """``cpu`` -> None; ``cuda`` -> 0; ``cuda:n`` -> n.  Raises ConfigError for anything else."""
    if device == "cpu":
        return None
    match = re.fullmatch(r"cuda(?::([0-9]{1,3}))?", device) if isinstance(device, str) else None
    if match is None:
        raise ConfigError(f"device must be cpu, cuda or cuda:N, got {device!r}")
    return int(match[1] or 0)


def find(index: int) -> GPU:
    """The GPU of that index.  Raises UnavailableError: no driver, no such GPU, or one that is too old."""
    count = driver.device_count()
    if index >= count:
        there = ", ".join(f"cuda:{i} ({driver.device_name(i)})" for i in range(count)) or "none"
        raise UnavailableError(f"there is no cuda:{index}; GPUs that this process may see: {there}")
    cc = 10 * driver.attribute(index, "COMPUTE_CAPABILITY_MAJOR") + driver.attribute(index, "COMPUTE_CAPABILITY_MINOR")
    try:
        known = nearest(cc)
    except ValueError as error:
        raise UnavailableError(f"cuda:{index} ({driver.device_name(index)}) cannot be used: {error}") from None
    target = replace(
        known,
        cc=known.cc,  # binaries are built for the table's entry; newer minor versions run them
        sms=driver.attribute(index, "MULTIPROCESSOR_COUNT"),
        shared_per_block=driver.attribute(index, "MAX_SHARED_MEMORY_PER_BLOCK_OPTIN"),
        shared_per_sm=driver.attribute(index, "MAX_SHARED_MEMORY_PER_MULTIPROCESSOR"),
        l2=driver.attribute(index, "L2_CACHE_SIZE"),
        registers_per_sm=driver.attribute(index, "MAX_REGISTERS_PER_MULTIPROCESSOR"),
    )
    return GPU(index, driver.device_name(index), target, driver.total_memory(index), driver.driver_version())


def find_all() -> list[GPU]:
    """Every GPU that can be used; see :func:`why_not` for when there is none."""
    found = []
    for index in range(driver.device_count()):
        try:
            found.append(find(index))
        except UnavailableError:
            continue
    return found


def why_not() -> str | None:
    """None when a GPU can be used here, otherwise the reason."""
    try:
        if find_all():
            return None
        count = driver.device_count()
        return f"none of the {count} GPUs here is new enough (8.0 or newer is needed)" if count else "the driver sees no GPU"
    except (UnavailableError, DeviceError) as error:
        return str(error)
