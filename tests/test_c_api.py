"""libfusedx: its C interface under sanitizers and against OpenVINO, its ABI, and the archive that others build with."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent / "native"))
import builds  # noqa: E402

import fusedx  # noqa: E402
from fusedx.engine import safetensors  # noqa: E402
from fusedx.kernels import native_module  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
API = ROOT / "tests/native/api"
DEMO = ROOT / "python/fusedx/demo/model.fusedx"
TOOLS = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
#: As a machine without Python's environment: nothing of ours on any path.
BARE = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "LC_ALL": "C"}

pytestmark = [
    pytest.mark.skipif(builds.missing_tool() is not None, reason=str(builds.missing_tool())),
    pytest.mark.skipif(not (ROOT / "csrc/include").is_dir(), reason="runs in the source tree only"),
]


def run(*command: object, env: dict[str, str] | None = None, cwd: Path | None = None, timeout: int = 300) -> str:
    done = subprocess.run([str(c) for c in command], env=env, cwd=cwd, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, f"{command[0]} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-5000:]}"
    return done.stdout


def compiler(name: str, default: str) -> str:
    found = os.environ.get(name, default)
    if shutil.which(found) is None:
        pytest.skip(f"{found} is not installed")
    return found


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build folder of libfusedx with OpenVINO from Python's package, and of the programs that use it."""
    openvino = pytest.importorskip("openvino", reason="openvino, whose wheel holds the C++ runtime, is not installed")
    config = Path(openvino.__path__[0]) / "cmake"
    if not (config / "OpenVINOConfig.cmake").is_file():
        pytest.skip(f"this openvino has no C++ development files ({config})")
    folder = tmp_path_factory.mktemp("library")
    flags = ["-DFUSEDX_PYTHON=OFF", "-DFUSEDX_TESTS=ON", f"-DOpenVINO_DIR={config}"]
    env = os.environ | {"PATH": TOOLS}
    run("cmake", "-G", "Ninja", "-S", ROOT, "-B", folder, *flags, env=env)
    run("ninja", "-C", folder, "fusedx", "interface", "flat_memory", env=env, timeout=900)
    return folder


@pytest.fixture(scope="session")
def archive(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive, unpacked at a place with a space in its name."""
    run("cpack", cwd=library, env=os.environ | {"PATH": TOOLS})
    (packed,) = library.glob("fusedx-*.tar.gz")
    folder = tmp_path_factory.mktemp("an archive")
    with tarfile.open(packed) as tar:
        tar.extractall(folder, filter="data")
    (unpacked,) = folder.iterdir()
    return unpacked


@pytest.fixture(scope="session")
def examples(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples, built from the archive's own sources."""
    folder = tmp_path_factory.mktemp("embed")
    env = os.environ | {"PATH": TOOLS}
    run("cmake", "-G", "Ninja", "-S", archive / "share/fusedx/examples/embed", "-B", folder, f"-DCMAKE_PREFIX_PATH={archive}", env=env)
    run("ninja", "-C", folder, env=env)
    return folder


@pytest.mark.parametrize("language", ["c", "c++"])
def test_the_header_alone_compiles_without_a_warning(language: str, tmp_path: Path):
    tool = compiler("CC", "cc") if language == "c" else compiler("CXX", "c++")
    source = tmp_path / "includes.c"
    source.write_text("#include <fusedx/fusedx.h>\n#include <fusedx/fusedx.h>\nextern int number;\nint number = FX_VERSION;\n")
    standard = "-std=c99" if language == "c" else "-std=c++11"
    run(tool, "-x", language, standard, "-pedantic", "-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'csrc/include'}", "-c", source,
        "-o", tmp_path / "includes.o")  # fmt: skip


def test_the_binary_interface_is_the_stored_one(library: Path, tmp_path: Path):
    """A difference that is meant goes into abi.txt; anything but an added line breaks programs that exist."""
    run(compiler("CC", "cc"), "-std=c99", f"-I{ROOT / 'csrc/include'}", API / "abi.c", "-o", tmp_path / "abi")
    symbols = run(compiler("NM", "nm"), "-D", "--defined-only", library / "csrc/libfusedx.so").splitlines()
    found = run(tmp_path / "abi").splitlines() + [f"symbol {s.split()[2]}" for s in symbols if s.split()[1] != "A"]
    assert found == (API / "abi.txt").read_text().splitlines()


def test_versions_agree():
    cmake = (ROOT / "CMakeLists.txt").read_text().split("VERSION ")[-1].split(")")[0]
    header = (ROOT / "csrc/include/fusedx/fusedx.h").read_text()
    parts = [header.split(f"#define FX_VERSION_{name} ")[1].split("\n")[0] for name in ("MAJOR", "MINOR", "PATCH")]
    assert ".".join(parts) == cmake


@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_the_interface_under_sanitizers(sanitizer: str, tmp_path_factory: pytest.TempPathFactory):
    """With an encoder of our own: sanitizers would take OpenVINO's uninstrumented threads for races."""
    folder = builds.build(tmp_path_factory, sanitizer, "fake_interface")
    assert builds.run(next(folder.rglob("fake_interface")), DEMO).split()[-1] == "fork"


def test_the_interface_with_openvino(library: Path):
    assert run(next(library.rglob("interface")), DEMO).split()[-1] == "fork"


def test_a_model_that_answers_otherwise_fails_its_self_test(library: Path, tmp_path: Path):
    """A changed record, and changed weights: digests are recomputed in both, so that opening finds nothing."""
    program = next(p for p in library.rglob("interface") if p.is_file())
    assert json.loads((DEMO / "manifest.json").read_text())["self_test"], "the demo model has no known answer; compile it again"
    run(program, DEMO, "self_test")
    for change in ("record", "weights"):
        folder = Path(shutil.copytree(DEMO, tmp_path / change))
        manifest = json.loads((folder / "manifest.json").read_text())
        if change == "record":
            manifest["self_test"]["probabilities"][0] += 2 * manifest["self_test"]["tolerance"]
        else:
            tensors = safetensors.read(DEMO / "denoiser.safetensors")
            safetensors.write(tensors | {"weight4": -tensors["weight4"]}, folder / "denoiser.safetensors")
            raw = (folder / "denoiser.safetensors").read_bytes()
            manifest["files"]["denoiser.safetensors"] = {"sha256": hashlib.sha256(raw).hexdigest(), "bytes": len(raw)}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        done = subprocess.run([program, folder, "self_test"], capture_output=True, text=True, timeout=120)
        assert done.returncode == 1 and "the model's own answer" in done.stderr, (change, done)


def test_memory_stays_flat(library: Path):
    """Bounded; `flat_memory MODEL 10000` is the whole run."""
    report = json.loads(run(next(library.rglob("flat_memory")), DEMO, 500))
    assert report["classifications"] == 500


# Same answers as Python ------------------------------------------------------------------------------------------------------------


def write_pnm(path: Path, array: np.ndarray) -> Path:
    kind, most = ("P6", 255) if array.ndim == 3 else ("P5", 65535 if array.dtype == np.uint16 else 255)
    raw = array.astype(">u2").tobytes() if array.dtype == np.uint16 else array.tobytes()
    path.write_bytes(f"{kind}\n# made by a test\n{array.shape[1]} {array.shape[0]}\n{most}\n".encode() + raw)
    return path


def pictures() -> dict[str, np.ndarray]:
    """Sizes that hurt: odd differences of sides, one side short, larger and smaller than the network's input, constant."""
    rng = np.random.default_rng(3)
    return {
        "rgb_wide": rng.integers(0, 256, (223, 500, 3), np.uint8),
        "rgb_small": rng.integers(0, 256, (2, 3, 3), np.uint8),
        "rgb_exact": rng.integers(0, 256, (224, 224, 3), np.uint8),
        "grey_tall": rng.integers(0, 256, (611, 308), np.uint8),
        "deep": rng.integers(900, 5000, (401, 302), np.uint16),
        "deep_full": rng.integers(0, 65536, (250, 251), np.uint16),
        "deep_constant": np.full((240, 230), 777, np.uint16),
    }


def test_examples_answer_as_python_does(examples: Path, any_model: Path, tmp_path: Path):
    """Built from the archive, run without Python on any path, the same bits for the same pixels."""
    if native_module.native is None:
        pytest.skip(f"fusedx._native is not built: {native_module.reason}")
    model = fusedx.load(any_model, encoder="openvino", backend="native")
    for name, array in pictures().items():
        path = write_pnm(tmp_path / f"{name}.pnm", array)
        for draws, seed in ((1, 0), (5, 2**64 - 1)):
            answer = json.loads(run(examples / "classify", any_model, path, "--draws", draws, "--seed", seed, env=BARE, cwd=tmp_path))
            expected = model.classify(array, draws=draws, seed=seed).to_dict()
            for key in ("label", "index", "probabilities", "scores", "prior", "draws", "stability", "image_sha256", "patch_locations"):
                assert answer[key] == expected[key], f"{name}, {draws} draws: {key}"
            assert answer["provenance"]["model_sha256"] == model.digest


MODELS = {"v1": "fp32", "v1-multilabel": "int8", "v2": "fp32", "v2-int4": "int4"}


@pytest.fixture(scope="session", params=MODELS)
def any_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Narrow models of both families, tasks, and formats of the weights."""
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    sys.path.insert(0, str(ROOT / "tests/compiler"))
    import tiny

    folder, name = tmp_path_factory.mktemp("model"), str(request.param)
    source = tiny.write_v2(folder / "last.ckpt") if name.startswith("v2") else tiny.write_v1(folder / "v1")
    task = "multilabel" if "multilabel" in name else "multiclass"
    return Path(fusedx.compile_checkpoint(source, folder / "m.fusedx", precision=MODELS[name], task=task).path)


def test_the_cpp_example_reads_many(examples: Path, tmp_path: Path):
    """One bad picture among good ones is named and spoils nothing; the same numbers as the C program's."""
    good = [write_pnm(tmp_path / f"{name}.pnm", pictures()[name]) for name in ("rgb_wide", "deep")]
    bad = write_pnm(tmp_path / "thin.pnm", np.zeros((300, 1), np.uint8))
    command = [str(examples / "classify_cpp"), str(DEMO), str(good[0]), str(bad), str(good[1])]
    done = subprocess.run(command, env=BARE, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "too_small" in done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [a["source"] for a in answers] == [str(p) for p in good]
    for path, answer in zip(good, answers, strict=True):
        alone = json.loads(run(examples / "classify", DEMO, path, env=BARE))
        assert all(alone[key] == answer[key] for key in ("label", "probabilities", "scores", "prior", "stability"))


def test_preprocessing_is_that_of_the_golden_cases(examples: Path, tmp_path: Path):
    """The digest and the answer for the stored pictures: crop, antialiased resize and normalisation as Python's, and so Pillow's."""
    if native_module.native is None:
        pytest.skip(f"fusedx._native is not built: {native_module.reason}")
    from PIL import Image

    model = fusedx.load(DEMO, encoder="openvino", backend="native")
    stored = sorted((ROOT / "tests/golden/preprocess").glob("*.png"))
    assert stored
    for source in stored:
        with Image.open(source) as image:
            array = np.asarray(image.convert("RGB"))
        answer = json.loads(run(examples / "classify", DEMO, write_pnm(tmp_path / "p.pnm", array), env=BARE))
        expected = model.classify(array).to_dict()
        assert all(answer[key] == expected[key] for key in ("scores", "prior", "image_sha256")), source.name


def test_a_raw_frame_is_the_same_picture(examples: Path, tmp_path: Path):
    deep = pictures()["deep"]
    (tmp_path / "frame.raw").write_bytes(deep.tobytes())
    pnm = write_pnm(tmp_path / "deep.pnm", deep)
    shape = f"{deep.shape[1]}x{deep.shape[0]}xgray16"
    a, b = (json.loads(run(examples / "classify", DEMO, *rest, env=BARE)) for rest in ([pnm], [tmp_path / "frame.raw", "--raw", shape]))
    assert a["scores"] == b["scores"] and a["image_sha256"] == b["image_sha256"]


def test_the_example_refuses_with_a_sentence(examples: Path, tmp_path: Path):
    picture = write_pnm(tmp_path / "p.pnm", pictures()["rgb_exact"])
    cut = tmp_path / "cut.pnm"
    cut.write_bytes(picture.read_bytes()[:1000])
    damaged = tmp_path / "damaged.fusedx"
    shutil.copytree(DEMO, damaged)
    with (damaged / "denoiser.safetensors").open("r+b") as f:
        f.seek(5000)
        f.write(b"\x55\xaa")
    for arguments, text in (
        ([DEMO, cut], "too short"),
        ([DEMO, tmp_path / "none.pnm"], "cannot be opened"),
        ([tmp_path / "none.fusedx", picture], "bad_model"),
        ([damaged, picture], "SHA-256"),
        ([DEMO, picture, "--draws", "0"], "bad_argument"),
        ([DEMO, picture, "--draws", "4294967297"], "whole numbers"),  # 2**32 + 1, which is 1 in 32 bits
        ([DEMO, picture, "--seed", "-1"], "whole numbers"),
        ([DEMO, picture, "--seed", "18446744073709551616"], "whole numbers"),
        ([DEMO, picture, "--raw", "224x223xrgb8"], "longer"),
    ):
        done = subprocess.run([examples / "classify", *arguments], env=BARE, capture_output=True, text=True, timeout=60)
        assert done.returncode in (1, 2) and text in done.stderr and not done.stdout, (arguments, done)


def test_the_example_is_clean_under_valgrind(examples: Path, tmp_path: Path):
    if shutil.which("valgrind") is None:
        pytest.skip("valgrind is not installed")
    picture = write_pnm(tmp_path / "p.pnm", pictures()["rgb_wide"])
    environment = BARE | {"FUSEDX_ISA": "avx2" if "avx2" in open("/proc/cpuinfo").read() else "baseline"}  # valgrind knows no AVX-512
    run("valgrind", "--error-exitcode=99", "--leak-check=full", "--errors-for-leak-kinds=definite",
        f"--suppressions={API / 'valgrind.supp'}", examples / "classify", DEMO, picture, env=environment, timeout=600)  # fmt: skip


# The archive ------------------------------------------------------------------------------------------------------------------------


def test_the_archive_needs_nothing_of_ours(archive: Path):
    """Every library that it does not hold is the system's; no path of the build is inside."""
    needed = run("ldd", archive / "lib/libfusedx.so", env=BARE)
    assert "not found" not in needed
    for line in needed.splitlines():
        name, _, place = line.strip().partition(" => ")
        assert not place or str(archive) in place or place.startswith(("/lib", "/usr/lib")), line
    assert str(ROOT) not in (archive / "lib/libfusedx.so").read_bytes().decode("latin-1")
    for path in archive.rglob("*"):
        if path.suffix in (".cmake", ".pc", ".json", ".md", ".txt") and "openvino" not in path.name:
            assert str(ROOT) not in path.read_text(errors="replace"), path


def test_pkg_config_builds_the_example(archive: Path, tmp_path: Path):
    if shutil.which("pkg-config") is None:
        pytest.skip("pkg-config is not installed")
    place = tmp_path / "plain"  # a place without a space: pkg-config's output is split by the shell
    shutil.copytree(archive, place, symlinks=True)
    flags = run("pkg-config", "--cflags", "--libs", "fusedx", env=BARE | {"PKG_CONFIG_PATH": str(place / "lib/pkgconfig")}).split()
    run(compiler("CC", "cc"), place / "share/fusedx/examples/embed/classify.c", *flags, "-o", tmp_path / "classify")
    picture = write_pnm(tmp_path / "p.pnm", pictures()["rgb_exact"])
    assert json.loads(run(tmp_path / "classify", DEMO, picture, env=BARE))["index"] >= 0


def test_the_bill_of_materials_is_true(archive: Path):
    sbom = json.loads((archive / "share/doc/fusedx/sbom.spdx.json").read_text())
    assert sbom["spdxVersion"] == "SPDX-2.3"
    names = {package["name"] for package in sbom["packages"]}
    assert {"fusedx", "OpenVINO", "oneTBB"} <= names
    listed = {file["fileName"]: file for file in sbom["files"]}
    held = {f"./{p.relative_to(archive)}" for p in archive.rglob("*") if p.is_file() and not p.is_symlink()}
    assert set(listed) == held - {"./share/doc/fusedx/sbom.spdx.json"}
    for name, file in listed.items():
        sums = {c["algorithm"]: c["checksumValue"] for c in file["checksums"]}
        assert sums["SHA256"] == hashlib.sha256((archive / name).read_bytes()).hexdigest()
    ids = [entry["SPDXID"] for entry in [*sbom["packages"], *sbom["files"]]]
    assert len(set(ids)) == len(ids)
    assert all({r["spdxElementId"], r["relatedSpdxElement"]} <= {*ids, "SPDXRef-DOCUMENT"} for r in sbom["relationships"])
