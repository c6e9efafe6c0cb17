"""Build the sdist, the wheel from it, install the wheel into an empty environment, and run the demonstration there.

    python tools/check_wheel.py

Proves what no test inside the checkout can: that the symlinked folders, the native module, the demonstration model and its
pictures are in the wheel, and that running needs none of torch, onnx and the source tree.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MUST_HOLD = (
    "fusedx/engine/sampler/parallel.py",
    "fusedx/kernels/step/reference.py",
    "fusedx/demo/model.fusedx/encoder.onnx.data",
    "fusedx/kernels/chain/chain.cu",
    "fusedx/kernels/chain/params.cuh",
    "fusedx/kernels/resize/resize.cu",
    "fusedx/py.typed",
)


def main() -> None:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        builder, user = (make_environment(folder / name) for name in ("builder", "user"))
        # Sources alone, and a folder of their own: an installation from the tree may be under way.
        made = (".*", "venv", "build", "dist", "demo-output", "__pycache__", "*.so", "*.egg-info", "_build_info.json")
        tree = shutil.copytree(ROOT, folder / "tree", symlinks=True, ignore=shutil.ignore_patterns(*made))
        # What pyproject.toml asks for and nothing else, as `build` would install it by itself: once for the sdist, again for the wheel.
        requires = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
        run([builder, "-m", "pip", "install", "-q", "build", *requires], folder, environment)
        compiler = shutil.which(environment.get("CXX", "c++"))
        if compiler:
            environment["FUSEDX_NATIVE"] = "1"  # where it can be built, failing to build it is a failure
        tools = environment | {"PATH": os.pathsep.join([str(builder.parent), environment.get("PATH", "")])}
        # `build` without --sdist or --wheel makes the wheel from the sdist, not from the tree.
        run([builder, "-m", "build", "--no-isolation", "--outdir", folder / "dist", tree], folder, tools)
        (wheel,) = (folder / "dist").glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            names = set(archive.namelist())
        missing = [name for name in MUST_HOLD if name not in names]
        assert not missing, f"{wheel.name} lacks {missing}"
        print(f"{wheel.name}: {wheel.stat().st_size / 2**20:.1f} MiB, {len(names)} files")
        run([user, "-m", "pip", "install", "-q", wheel], folder, environment)
        fusedx = user.with_name("fusedx")
        run([fusedx, "doctor"], folder, environment)
        if compiler:
            assert any(name.startswith("fusedx/_native") for name in names), f"{wheel.name} lacks the native module"
            code = "from fusedx.engine.backends import available; print(available()['native'])"
            reason = subprocess.check_output([user, "-c", code], cwd=folder, env=environment, text=True).strip()
            assert reason == "None", f"the native module of the wheel does not load: {reason}"
        else:
            print("no C++ compiler here: the wheel is pure Python, and that the native module loads from a wheel was not shown")
        run([fusedx, "demo", "-o", folder / "pictures"], folder, environment)
        assert len(list((folder / "pictures").glob("*.png"))) >= 6, "the demonstration wrote too few pictures"
        where = "from fusedx.demo import MODEL; print(MODEL)"
        model = subprocess.check_output([user, "-c", where], cwd=folder, env=environment, text=True).strip()
        run([fusedx, "verify", model], folder, environment)
        check = "import importlib.util as u; print([m for m in ('torch', 'onnx') if u.find_spec(m)])"
        absent = subprocess.check_output([user, "-c", check], cwd=folder, env=environment, text=True)
        assert absent.strip() == "[]", f"the wheel pulled in {absent}"
    print("wheel check passed")


def make_environment(folder: Path) -> Path:
    """Path of the new environment's interpreter."""
    venv.create(folder, with_pip=True)
    return folder / "bin" / "python"


def run(command: list[object], folder: Path, environment: dict[str, str]) -> None:
    print("+", " ".join(str(c).replace(str(folder), "$SCRATCH").replace(str(ROOT), ".") for c in command), flush=True)
    subprocess.run([str(c) for c in command], cwd=folder, env=environment, check=True)


if __name__ == "__main__":
    sys.exit(main())
