"""The shape of the house: which part may import which, and what importing costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: Part -> prefixes of fusedx that it may import.  Dependencies point one way: python -> engine -> kernels.
ALLOWED = {
    "kernels": ("fusedx._native", "fusedx.kernels"),
    "engine": ("fusedx.engine", "fusedx.kernels"),
}
#: Modules that a prediction on a CPU must not import.
HEAVY = ("torch", "onnx", "yaml", "safetensors", "onnxruntime", "click", "rich", "pyarrow", "skimage", "matplotlib")


def imports(path: Path, package: str) -> list[str]:
    """Absolute names that a file imports, wherever in it."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*base, node.module] if node.module else base)
            found += [f"{module}.{alias.name}" for alias in node.names]
    return found


@pytest.mark.parametrize("part", ALLOWED)
def test_dependencies_point_one_way(part: str) -> None:
    wrong, files = [], list((ROOT / part).rglob("*.py"))
    for file in files:
        package = ".".join(["fusedx", *file.relative_to(ROOT).parent.parts])
        for name in imports(file, package):
            if name.split(".")[0] == "fusedx" and not any(name == a or name.startswith(a + ".") for a in ALLOWED[part]):
                wrong.append(f"{file.relative_to(ROOT)} imports {name}")
    assert len(files) > 3 and not wrong, wrong


def test_the_check_sees_relative_imports(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text("from ..engine import manifest\nfrom .. import model\nimport fusedx.cli\n")
    assert imports(file, "fusedx.kernels") == ["fusedx.engine.manifest", "fusedx.model", "fusedx.cli"]


@pytest.mark.parametrize("part", ["engine", "kernels"])
def test_bare_imports_are_refused(part: str) -> None:
    done = subprocess.run([sys.executable, "-c", f"import {part}"], cwd=ROOT, capture_output=True, text=True, env={"PATH": ""})
    assert done.returncode and f"import fusedx.{part}" in done.stderr


@pytest.mark.parametrize("part", ["engine", "kernels"])
def test_packages_are_relative_links_in_the_tree(part: str) -> None:
    link = ROOT / "python" / "fusedx" / part
    if not link.is_symlink():
        pytest.skip("not a checkout")
    assert str(link.readlink()) == f"../../{part}"


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT / "python")}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_is_free() -> None:
    names = ("numpy", "PIL", "openvino", *HEAVY)
    assert python(f"import sys, fusedx; print([m for m in {names!r} if m in sys.modules])") == "[]\n"


def test_prediction_needs_neither_torch_nor_onnx(small_model) -> None:
    code = (
        f"import sys, fusedx, numpy as np; p = fusedx.load({str(small_model)!r}).classify(np.zeros((9, 9, 3), np.uint8) + 7); "
        f"print(p.index >= 0, [m for m in {HEAVY!r} if m in sys.modules])"
    )
    assert python(code) == "True []\n"


def test_prediction_runs_where_torch_and_onnx_cannot_be_imported(small_model) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'yaml', 'safetensors'): sys.modules[name] = None\n"
        f"import fusedx, numpy as np; print(fusedx.load({str(small_model)!r}).classify(np.zeros((9, 9, 3), np.uint8)).draws)\n"
        f"from fusedx.verify import verify; print(verify({str(small_model)!r}).ok)"
    )
    assert python(code) == "1\nTrue\n"


def test_nothing_reads_outside_the_checkout() -> None:
    outside = "../" + "shared"
    folders = ("python", "engine", "kernels", "csrc", "tests", "tools", "benchmarks", "examples")
    for file in [path for folder in folders for path in (ROOT / folder).rglob("*")]:
        if file.is_file() and file.suffix in {".py", ".cpp", ".hpp", ".toml", ".txt", ".sh", ".md"}:
            assert outside not in file.read_text(errors="replace"), file
