"""The chain of DiffMIC at full width: fusedx against plain torch, same weights, same noise, alternating in one process.

    python benchmarks/bench_chain.py [--batches 1,16] [--rounds 3] [--json FILE]

Four contenders compute the golden case v1-isic (7 classes, F 6144, 250 steps):

    released   the published semantics: the image encoder runs again at every step
    hoisted    plain torch with the image feature computed once
    stepwise   the engine, from a compiled model, one step after the other
    fusedx     the same with the sampler that it chooses by itself, which may read the weights fewer times (``auto``)

Timed is everything from (image, prior, noise) to the final state, the image feature included.  The prior is given to the torch
contenders; the engine has one graph for prior and feature and pays for both, a handicap of two ResNet-50 passes.  ``ms/step`` and GB/s
are of the chain after the feature (for the released form, of everything).  Batches above 4 run --long-steps steps only (a step
costs the same wherever it stands), because the released semantics would take minutes.  Accuracy, in the same row, is the relative
error of the final state against the float64 golden arrays where the case has them, otherwise against hoisted torch.

Memory is the peak resident size of a fresh process that loads the compiled model and classifies one picture.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "python"), str(ROOT / "tools"), str(ROOT / "benchmarks")]
import machine  # noqa: E402
import torch_diffmic as plain  # noqa: E402
from fusedx import golden  # noqa: E402
from fusedx.compiler import compile_checkpoint  # noqa: E402
from fusedx.engine.backends import open_chains  # noqa: E402
from fusedx.engine.compiled import open_model  # noqa: E402
from fusedx.engine.encoder import open_encoder  # noqa: E402
from fusedx.engine.sampler import SEQUENTIAL, Plan, measured  # noqa: E402
from fusedx.engine.sampling import Sampler  # noqa: E402

CASE = ROOT / "tests" / "golden" / "v1-isic.json"

PEAK = r"""
import re, sys, numpy as np, fusedx
model = fusedx.load(sys.argv[1])
model.classify(np.zeros((256, 256, 3), np.uint8))
# Not ru_maxrss, which a child inherits from the process that started it.
print(int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read()).group(1)) * 1024)
"""

START = """
import time
started = time.perf_counter()
import fusedx
from fusedx.demo import IMAGES, MODEL
fusedx.load(MODEL).classify(IMAGES / "grade2_moderate.jpg")
print(time.perf_counter() - started)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", default="1,16")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--long-steps", type=int, default=25, help="steps timed at batches above 4")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    results = {"machine": machine.show(), "threads": cores, "rows": []}

    with tempfile.TemporaryDirectory() as scratch:
        checkpoint = Path(scratch) / "checkpoint"
        subprocess.run([sys.executable, CASE.with_name("make_checkpoint.py"), CASE.stem, checkpoint], check=True)
        case, reference = golden.load(CASE), load_plain(checkpoint)
        bandwidth = read_bandwidth()
        print(f"\nread bandwidth of 604 MB of float32, summed by {cores} threads: {bandwidth:.1f} GB/s\n")
        header = f"{'batch':>5} {'steps':>5}  {'':9} {'median s':>9} {'ms/step':>8} {'x released':>10} {'GB/s':>6} {'of peak':>8}  error"
        print(header + "\n" + "-" * len(header))
        for batch in map(int, args.batches.split(",")):
            steps = case.noise.shape[0] if batch <= 4 else args.long_steps
            results["rows"] += bench(case, checkpoint, reference, Path(scratch), batch, steps, args.rounds, bandwidth)
        results["memory"] = memory(checkpoint, Path(scratch))
        results["start"] = start()
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


def load_plain(checkpoint: Path) -> plain.ConditionalDenoiser:
    tensors = torch.load(checkpoint / "ckpt_best.pth", weights_only=True)[0]
    model = plain.ConditionalDenoiser(num_classes=7, feature_dim=6144)
    model.load_state_dict(tensors)
    return model.eval()


def bench(
    case: golden.GoldenCase,
    checkpoint: Path,
    reference: plain.ConditionalDenoiser,
    scratch: Path,
    batch: int,
    steps: int,
    rounds: int,
    bandwidth: float,
) -> list[dict]:
    """One row a contender; the contenders take turns within each round."""
    compiled = scratch / f"{steps}.fusedx"
    if not compiled.exists():
        compile_checkpoint(checkpoint, compiled, steps=steps)
    model = open_model(compiled)
    encoder = open_encoder("openvino", model.encoder)
    chains = open_chains("auto", model.stored_denoiser(), model.manifest.schedule)

    repeat = -(-batch // len(case.x))
    x = np.concatenate([case.x] * repeat)[:batch]
    prior = np.concatenate([case.expected["prior"]] * repeat)[:batch]
    if steps == case.noise.shape[0]:
        z = np.concatenate([case.noise] * repeat, axis=1)[:, :batch]
    else:
        z = golden.normal(1, "bench", (steps, batch, 7))
    tx, tp, tz = torch.from_numpy(x), torch.from_numpy(prior).float(), torch.from_numpy(z)

    @torch.inference_mode()
    def released() -> tuple[np.ndarray, float]:
        return plain.sample_released(reference, tx, tp, tz).numpy(), time.perf_counter()

    @torch.inference_mode()
    def hoisted() -> tuple[np.ndarray, float]:
        feature, encoded = reference.feature(tx), time.perf_counter()
        return plain.sample_hoisted(reference, feature, tp, tz).numpy(), encoded

    def engine(name: str, plan: Plan) -> Callable[[], tuple[np.ndarray, float]]:
        def run() -> tuple[np.ndarray, float]:
            feature, encoded = encoder.run(x)["feature"], time.perf_counter()
            done = chains.run({"prior": prior, "feature": feature}, z[:, None], keep=False, plan=plan)
            reads[name] = float(done.work.sweeps.mean())
            return done.scores[0], encoded

        return run

    costs = measured.costs("fp32", model.manifest.network.feature_dim)
    reads = {"released": float(steps), "hoisted": float(steps)}
    contenders: dict[str, Callable[[], tuple[np.ndarray, float]]] = {"released": released, "hoisted": hoisted}
    contenders["stepwise"] = engine("stepwise", SEQUENTIAL)
    contenders["fusedx"] = engine("fusedx", costs.choose(Sampler("auto"), steps=steps, chains=batch))
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    chain_only: dict[str, list[float]] = {name: [] for name in contenders}
    final: dict[str, np.ndarray] = {}
    hoisted(), contenders["stepwise"](), contenders["fusedx"]()  # warm caches, pools and allocators; the released form shares torch's
    for _ in range(rounds):
        for name, run in contenders.items():
            started = time.perf_counter()
            final[name], encoded = run()
            done = time.perf_counter()
            seconds[name].append(done - started)
            chain_only[name].append(done - (started if name == "released" else encoded))
    expected = case.expected["y_final"][:batch] if steps == case.noise.shape[0] and batch <= len(case.x) else final["hoisted"]

    rows = []
    for name in contenders:
        median = statistics.median(seconds[name])
        ratio = statistics.median(a / b for a, b in zip(seconds["released"], seconds[name], strict=True))
        step = statistics.median(chain_only[name]) / steps
        rate = 2 * 6144 * 6144 * 4 * reads[name] / steps / step / 1e9
        error = float(np.linalg.norm(final[name] - expected) / np.linalg.norm(expected))
        row = {"batch": batch, "steps": steps, "contender": name, "seconds": seconds[name], "ms_per_step": step * 1e3}
        rows.append(row | {"x_released": ratio, "gb_s": rate, "error": error})
        columns = f"{median:9.3f} {step * 1e3:8.2f} {ratio:10.2f} {rate:6.1f} {rate / bandwidth:8.0%}  {error:.0e}"
        print(f"{batch:5d} {steps:5d}  {name:9} {columns}", flush=True)
    ratios = [statistics.median(a / b for a, b in zip(t["hoisted"], t["fusedx"], strict=True)) for t in (seconds, chain_only)]
    print(f"{'':12} fusedx is {ratios[0]:.2f} x hoisted torch, {ratios[1]:.2f} x on the chain alone\n")
    rows[-1] |= {"x_hoisted": ratios[0], "x_hoisted_chain": ratios[1]}
    return rows


def read_bandwidth() -> float:
    """GB/s of a plain multi-threaded sum over memory that no cache holds."""
    data = torch.ones(2 * 6144 * 6144 * 2)
    times = []
    for _ in range(7):
        started = time.perf_counter()
        data.sum()
        times.append(time.perf_counter() - started)
    return data.numel() * 4 / min(times) / 1e9


def start() -> dict[str, float]:
    """Seconds from nothing imported to the first prediction of the demonstration model, in fresh processes; files are warm."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "python")}
    seconds = []
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", START], env=environment, capture_output=True, text=True, check=True)
        seconds.append(float(done.stdout))
    spread = f"median of 5, {min(seconds):.2f} to {max(seconds):.2f}"
    print(f"demonstration model, import to first prediction: {statistics.median(seconds):.2f} s ({spread})")
    return {"median_seconds": statistics.median(seconds), "seconds": seconds}


def memory(checkpoint: Path, scratch: Path) -> dict[str, float]:
    """Peak resident bytes of load and one classification, against the bytes of the weights."""
    compiled = scratch / "memory.fusedx"
    compile_checkpoint(checkpoint, compiled)
    environment = os.environ | {"PYTHONPATH": str(ROOT / "python")}
    done = subprocess.run([sys.executable, "-c", PEAK, compiled], env=environment, capture_output=True, text=True, check=True)
    peak, weights = int(done.stdout), open_model(compiled, verify=False).weight_bytes()
    print(f"peak memory {peak / 2**20:.0f} MiB = {peak / weights:.2f} x the {weights / 2**20:.0f} MiB of weights")
    return {"peak_bytes": peak, "weight_bytes": weights, "ratio": peak / weights}


if __name__ == "__main__":
    main()
