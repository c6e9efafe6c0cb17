"""The encoder, prior and feature of an image on the device: torch and TensorRT, images one by one or in one pass."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from fusedx import golden
from fusedx.engine.cuda.context import Context
from fusedx.engine.cuda.encoder import DeviceEncoder, Network
from fusedx.engine.cuda.network import open_network
from fusedx.engine.encoder import onnx_file, tensorrt
from fusedx.verify import relative_error
from gpu_bench.figures import NOT_INVARIANT, WEIGHT_BYTES, Row
from gpu_bench.setting import Setting
from gpu_bench.timing import device_time
from turns import alternate


class Encoders:
    """Encoders of one context, opened once: ``torch bf16``, ``tensorrt bf16, not invariant`` and so on."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self.context = Context(setting.device, capture=True)
        self._networks: dict[str, tuple[Network, list[str]]] = {}
        self._encoders: dict[str, DeviceEncoder] = {}

    def get(self, name: str) -> DeviceEncoder:
        """By its name."""
        if name not in self._encoders:
            kind, precision = name.removesuffix(NOT_INVARIANT).split()
            invariant = not name.endswith(NOT_INVARIANT)
            network, outputs = getattr(self, f"_{kind}")(precision, invariant)
            self._encoders[name] = DeviceEncoder(kind, network, outputs, self.context, precision, batch_invariant=invariant)
        return self._encoders[name]

    def operations(self) -> int:
        """Of one image, counted while it runs."""
        s = self._setting
        with self.context.working():
            network, _ = open_network(s.compiled.encoder, s.device, "fp32", compiler=None)
            with FlopCounterMode(display=False) as counter:
                network(torch.zeros(1, 3, 224, 224, device=s.device), 0)
        return int(counter.get_total_flops())

    def _torch(self, precision: str, invariant: bool) -> tuple[Network, list[str]]:
        s = self._setting
        if precision not in self._networks:
            with self.context.working():
                self._networks[precision] = open_network(s.compiled.encoder, s.device, precision, compiler=s.compiler)
        return self._networks[precision]

    def _tensorrt(self, precision: str, invariant: bool) -> tuple[Network, list[str]]:
        from fusedx.engine.cuda.tensorrt_network import open_tensorrt

        s = self._setting
        with self.context.working():
            return open_tensorrt(s.compiled, s.gpu, self.context, precision, batch_invariant=invariant)


def names(batch: int) -> list[str]:
    """Contenders of one batch size; one image alone is the same in both ways."""
    kinds = ["torch bf16"] + (["tensorrt bf16"] if tensorrt.why_not() is None else [])
    ways = [""] if batch == 1 else ["", NOT_INVARIANT]
    return [kind + way for kind in kinds for way in ways]


def measure(setting: Setting, encoders: Encoders, batch: int, contenders: list[str], operations: int) -> list[Row]:
    """``batch`` images, already on the device and normalised, to all outputs, still on the device."""
    x = images(setting, batch)
    on_device = torch.from_numpy(x).to(setting.device)
    clock, last = setting.clock(encoders.context.stream), {}

    def timed(name: str) -> Callable[[], float]:
        encoder = encoders.get(name)

        def run() -> None:
            last[name] = encoder.run(on_device)

        run()
        return lambda: device_time(run, clock, head_start=0.02, prepare=setting.cold)

    ready = {}
    for name in contenders:
        try:
            ready[name] = timed(name)
        except Exception as error:  # a plan that cannot be built, a compiler that fails
            setting.leave_out(f"encoder, {batch} images, {name}", error)
    seconds = alternate(ready, setting.rounds)
    rows = []
    for name in ready:
        with encoders.context.working():
            got = dict(last[name])
        rows.append(_row(setting, name, batch, seconds[name], got, operations))
    return rows


def images(setting: Setting, batch: int) -> np.ndarray:
    """float32 [B,3,224,224]: the case's images first, then synthetic ones."""
    more = batch - len(setting.case.x)
    parts = [setting.case.x[:batch]] + ([golden.image(1, "bench", (more, *setting.case.x.shape[1:]))] if more > 0 else [])
    return np.concatenate(parts)


def _row(setting: Setting, name: str, batch: int, seconds: list[float], got: dict[str, np.ndarray], operations: int) -> Row:
    known = min(batch, len(setting.case.x))
    expected = setting.case.expected
    weights = onnx_file.data_file(setting.compiled.encoder).stat().st_size / WEIGHT_BYTES["fp32"]
    row = Row(
        part="encoder",
        name=name,
        batch=batch,
        seconds=seconds,
        moved=weights * WEIGHT_BYTES[name.removesuffix(NOT_INVARIANT).split()[1]],
        operations=batch * operations,
        error=max(relative_error(got[key][:known], expected[key][:known]) for key in ("prior", "feature")),
        against="golden",
        l2="cold",
    )
    setting.report(row)
    return row
