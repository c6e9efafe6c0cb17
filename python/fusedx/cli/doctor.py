"""``fusedx doctor``."""

from __future__ import annotations

import json
from typing import Any

import click

from fusedx.cli import progress
from fusedx.cli.options import json_option
from fusedx.cli.text import facts, printable, table


@click.command("doctor", short_help="Say what is installed and usable here.")
@json_option
@click.option("--calibrate", is_flag=True, help="First measure how long this machine takes, for the sampler's choices: half a minute.")
def command(as_json: bool, calibrate: bool) -> None:
    """Say what is installed, built and usable here, and why the rest is not.

    \b
    fusedx doctor
    fusedx doctor --json > report.json
    fusedx doctor --calibrate
    """
    from fusedx.cli.diagnosis import diagnose

    if calibrate:
        _calibrate()
    found = diagnose()
    click.echo(json.dumps(found, indent=1) if as_json else describe(found))


def _calibrate() -> None:
    """Measure this machine for the sampler and keep it."""
    from fusedx.engine.sampler import measure, measured

    machine = measured.this_machine()
    with progress.stages("calibrate") as stage:
        tables = measure.measure(lambda done, total, what: stage(what))
    click.echo(f"kept in {printable(str(measured.write(machine, tables)))}\n", err=True)


def describe(found: dict[str, Any]) -> str:
    """The report for people."""
    parts = [_guarded(found, name, show) for name, show in _SECTIONS]
    return "\n\n".join(part for part in parts if part)


def _guarded(found: dict[str, Any], name: str, show: Any) -> str:
    section = found[name]
    if isinstance(section, dict) and set(section) == {"error"}:
        return facts([(name, f"could not be examined: {section['error']}")])
    return show(found)


def _machine(found: dict[str, Any]) -> str:
    python, system, fusedx = found["python"], found["platform"], found["fusedx"]
    pairs = [
        ("fusedx", f"{fusedx.get('version')}  {fusedx.get('location')}"),
        ("python", f"{python.get('implementation')} {python.get('version')}  {python.get('executable')}"),
        ("platform", f"{system.get('system')}"),
    ]
    return facts(pairs)


def _cpu(found: dict[str, Any]) -> str:
    return facts([("cpu", found["cpu"]["model"]), ("", " ".join(found["cpu"]["instruction_sets"]))])


def _threads(found: dict[str, Any]) -> str:
    t, pages = found["threads"], found["huge_pages"]
    limits = [f"{t['processors']} processors, {t['allowed']} allowed"]
    if t["cgroup_limit"] is not None:
        limits.append(f"cgroup limit {t['cgroup_limit']}")
    limits += [f"{name}={t[name]}" for name in ("FUSEDX_THREADS", "OMP_NUM_THREADS") if t[name]]
    if t["native"] is not None:
        limits.append(f"native chain uses {t['native']}")
    return facts([("threads", "; ".join(limits)), ("huge pages", f"transparent: {pages.get('transparent') or 'unknown'}")])


def _native(found: dict[str, Any]) -> str:
    n = found["native"]
    if n["loadable"]:
        text = f"built and loaded; uses {n['chosen']}, runs here: {', '.join(n['runs_here'])}"
        rows = [("native module", text), ("", f"weights in {', '.join(n['precisions'])}")]
        return facts([*rows, ("", f"compiler {n['compiler']}" if n["compiler"] else n["build_reason"])])
    return facts([("native module", f"not usable: {n['load_reason']}"), ("", f"build: {n['build_reason'] or 'done'}")])


def _library(found: dict[str, Any]) -> str:
    c = found["library"]
    if c["path"] is None:
        return facts([("C library", c["reason"])])
    state = f"libfusedx {c['version']}, loads" if c["version"] else c["reason"]
    return facts([("C library", state), ("", c["path"]), ("", c["header"] or "its header is missing")])


def _choices(title: str) -> Any:
    def show(found: dict[str, Any]) -> str:
        rows = [(name, "usable" if reason is None else f"not usable: {reason}") for name, reason in found[title].items()]
        return f"{title}\n" + facts(rows, indent="  ")

    return show


def _packages(found: dict[str, Any]) -> str:
    rows = []
    for name, p in found["packages"].items():
        state = "broken, see below" if p["problem"] else "ok" if p["version"] else p["install"]
        rows.append((f"  {name}", p["version"] or "-", state, p["purpose"]))
    broken = [f"  {name}: {p['problem']}; {p['install']}" for name, p in found["packages"].items() if p["problem"]]
    shown = table(("  name", "version", "state, or how to get it", "for"), rows)
    return "\n".join(["packages", shown, *(printable(line) for line in broken)])


def _dicom(found: dict[str, Any]) -> str:
    d = found["dicom"]
    rows = [(name, ", ".join(plugins) or "no decoder") for name, plugins in d["decoders"].items()]
    rows = [(name, text + " (8 bits only)" if (name, text) == ("JPEGExtended12Bit", "pillow") else text) for name, text in rows]
    more = f"\n  for the rest: {d['install']}" if d["missing"] else ""
    return "compressed DICOM, and what decodes it\n" + facts(rows, indent="  ") + more


def _gpu(found: dict[str, Any]) -> str:
    g = found["gpu"]
    devices = [
        f"{d['device']}  {d['name']}, {d['compute_capability']}, {d['sms']} SMs, {d['memory_gib']} GiB, "
        f"L2 {d['l2_mib']} MiB, driver for CUDA {d['driver']}"
        for d in g["devices"]
    ]
    return facts(
        [
            ("gpu", "\n".join(devices) or f"none: {g['reason']}"),
            ("  torch", g["torch"]),
            ("  triton", g["triton"]),
            ("  tensorrt", g["tensorrt"] or "usable"),
            ("  pycuda", g["pycuda"]),
            ("  nvcc", g["nvcc"] or "not found"),
            ("  kernels", ", ".join(g["shipped_kernels"]) or "none shipped; compiled by nvcc when first needed"),
            ("  cache", g["cache"]),
        ]
    )


def _sampler(found: dict[str, Any]) -> str:
    s = found["sampler"]
    if s["reason"]:
        return facts([("sampler", f"sequential: {s['reason']}")])
    lines = [f"sampler: one chain of 250 steps at full width (F {s['width']}); times {s['source']}"]
    rows = [(f"  {p['precision']}", f"{p['sequential'] * 1e3:.0f} ms", f"{p['parallel'] * 1e3:.0f} ms", p["auto"]) for p in s["plans"]]
    return "\n".join([*lines, table(("  precision", "sequential", "parallel", "auto"), rows)])


def _ready(found: dict[str, Any]) -> str:
    return facts([(f"ready to {task}" if task != "parquet" else "ready for Parquet", why or "yes") for task, why in found["ready"].items()])


_SECTIONS = (
    ("fusedx", _machine), ("cpu", _cpu), ("threads", _threads), ("native", _native), ("library", _library), ("gpu", _gpu),
    ("encoders", _choices("encoders")), ("backends", _choices("backends")), ("sampler", _sampler),
    ("packages", _packages), ("dicom", _dicom), ("ready", _ready),
)  # fmt: skip
