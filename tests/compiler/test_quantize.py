"""The int8 encoder: made from a calibration folder, the same bytes each time, run by every evaluator, and close to float32."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent))
import fusedx  # noqa: E402
import tiny  # noqa: E402
from fusedx.compiler import calibration, checkpoint, quantize, trunks  # noqa: E402
from fusedx.engine.encoder import network, onnx_file, open_encoder, qdq  # noqa: E402
from fusedx.engine.encoder.graph import Graph  # noqa: E402
from fusedx.engine.encoder.network import output_shapes  # noqa: E402
from fusedx.engine.encoder.reference import ReferenceEncoder  # noqa: E402
from fusedx.engine.encoder.tensorrt.typed import typed  # noqa: E402
from fusedx.engine.errors import ConfigError, UnavailableError  # noqa: E402
from fusedx.verify import verify  # noqa: E402

nncf = pytest.importorskip("nncf", reason="needs nncf: pip install 'fusedx[quantize]'")

#: torch does literally what the reference does, but sums in float32: a value next to a rounding boundary becomes its neighbour, which in a
#: network of width 8 was seen to cost 2.7e-3.  OpenVINO and ONNX Runtime fuse quantised operators, which rounds in other
#: places, and end 1e-2 to 5e-2 from the reference, no farther from float32 than it.
LITERAL = 1e-2
FLOAT_ONLY = ("saliency", "y_global")


def picture(seed: int) -> np.ndarray:
    """uint8 [80,96,3]: blobs over a gradient, so that activations are neither constant nor white noise."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (5, 6, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((96, 80), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """17 pictures in two folders, and files that are none."""
    out = tmp_path_factory.mktemp("calibration")
    (out / "b").mkdir()
    for seed in range(17):
        Image.fromarray(picture(seed)).save(out / ("b" if seed % 2 else "") / f"{seed:02}.png")
    (out / "README.txt").write_text("not a picture")
    (out / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    (out / ".hidden.png").write_bytes(b"")
    (out / "empty.jpg").write_bytes(b"")
    return out


@pytest.fixture(scope="module")
def images(folder) -> list[np.ndarray]:
    return calibration.read_folder(folder).images


@pytest.fixture(scope="module")
def made(images, tmp_path_factory) -> dict[str, tuple]:
    """family -> (network, float32 graph, int8 graph, report, path of the written int8 graph)."""
    out = {}
    for family, source in (("v1", tiny.write_v1), ("v2", lambda folder: tiny.write_v2(folder / "last.ckpt"))):
        where = tmp_path_factory.mktemp(family)
        ckpt = checkpoint.read(source(where))
        graph = network.build(ckpt.network, ckpt.prior, ckpt.model)
        int8, report = quantize.quantize_encoder(graph, ckpt.network, images)
        path = where / "encoder.onnx"
        onnx_file.write(int8, path, output_shapes(ckpt.network), 224)
        out[family] = ckpt.network, graph, int8, report, path
    return out


families = pytest.mark.parametrize("family", ["v1", "v2"])


def test_folder(folder):
    found = calibration.read_folder(folder)
    assert len(found.images) == 17 and all(image.shape == (3, 224, 224) and image.dtype == np.float32 for image in found.images)
    assert sorted(Path(text.split(":")[0]).name for text in found.skipped) == ["README.txt", "broken.png", "empty.jpg"]
    again = calibration.read_folder(folder)
    assert again.digest == found.digest and all(np.array_equal(a, b) for a, b in zip(again.images, found.images, strict=True))


def test_folder_digest_is_of_the_pictures(folder, tmp_path):
    """Another name of the folder changes nothing, another picture does."""
    digest = calibration.read_folder(folder).digest
    for path in folder.rglob("[0-9]*.png"):
        copy = tmp_path / path.relative_to(folder)
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes())
    assert calibration.read_folder(tmp_path).digest == digest
    Image.fromarray(picture(99)).save(tmp_path / "b" / "01.png")
    assert calibration.read_folder(tmp_path).digest != digest


def test_too_few(folder, tmp_path):
    Image.fromarray(picture(0)).save(tmp_path / "one.png")
    (tmp_path / "none.png").write_bytes(b"text")
    with pytest.raises(ConfigError, match="at least 16 .* gave 1; 1 could not be read.*none.png"):
        calibration.read_folder(tmp_path)
    with pytest.raises(ConfigError, match="not a folder"):
        calibration.read_folder(tmp_path / "one.png")
    with pytest.raises(ConfigError, match="not a folder"):
        calibration.read_folder(tmp_path / "nowhere")


def test_many_are_thinned_evenly(folder, monkeypatch):
    monkeypatch.setattr(calibration, "FEWEST", 1)
    monkeypatch.setattr(calibration, "MOST", 5)
    few = calibration.read_folder(folder)
    assert len(few.images) + len(few.skipped) == 5


@families
def test_round_trip(family, made):
    _, _, int8, _, path = made[family]
    back = onnx_file.read(path)
    assert [n.op for n in back.nodes] == [n.op for n in int8.nodes]
    for name, array in int8.constants.items():
        assert back.constants[name].dtype == array.dtype and back.constants[name].tobytes() == array.tobytes(), name


@families
def test_what_is_quantised(family, made):
    """Every convolution of the trunks but the saliency's; no weight is held in float32 beside its int8 form."""
    _, graph, int8, report, path = made[family]
    weights = {n.inputs[0] for n in int8.nodes if n.op == qdq.DEQUANTIZE and n.inputs[0] in int8.constants}
    prefixes = tuple(trunks.TRUNKS)
    expected = {n.inputs[1] for n in trunks.linear_products(graph)[0] if n.inputs[1].startswith(prefixes)}
    assert {name.removesuffix(".int8") for name in weights} == expected
    assert not expected & set(int8.constants)
    assert all(int8.constants[name].dtype == np.int8 and np.abs(int8.constants[name].astype(int)).max() <= 64 for name in weights)
    for node in int8.nodes:  # nothing that decides or weighs reads a value that was rounded just before it
        if node.op in ("Softmax", "Sigmoid", "Tanh", "Greater", "Equal", "LayerNormalization", "Erf"):
            assert not any("quantized" in name for name in node.inputs)
    assert sum(some for some, _ in report.quantised.values()) == len(expected)
    assert report.images == 17 and report.regions_changed == 0 and report.nncf == nncf.__version__
    assert "17 calibration images" in report.note()


@families
def test_deterministic(family, made, images, tmp_path):
    net, graph, _, report, path = made[family]
    again, second = quantize.quantize_encoder(graph, net, images)
    onnx_file.write(again, tmp_path / "encoder.onnx", output_shapes(net), 224)
    for one, two in ((path, tmp_path / "encoder.onnx"), (onnx_file.data_file(path), tmp_path / "encoder.onnx.data")):
        assert hashlib.sha256(one.read_bytes()).digest() == hashlib.sha256(two.read_bytes()).digest()
    assert second == report


@families
def test_close_to_float32(family, made, images):
    """On pictures that were not calibrated with; saliency and regions, which int8 does not touch, stay as they were."""
    _, graph, int8, _, _ = made[family]
    new = np.stack(images[:2])[:, :, ::-1].copy()
    right, got = ReferenceEncoder(graph).run(new), ReferenceEncoder(int8).run(new)
    for name in (*FLOAT_ONLY, "patch_locations"):
        assert np.array_equal(got[name], right[name]), name
    for name in ("prior", "feature" if family == "v1" else "fused_feature"):
        assert 0 < np.linalg.norm(got[name] - right[name]) / np.linalg.norm(right[name]) < 0.15, name


@families
@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime", "torch"])
def test_every_runtime(family, runtime, made, images):
    """The same arithmetic in each, and none is farther from float32 than that arithmetic makes it."""
    if runtime != "openvino":
        pytest.importorskip(runtime)
    _, graph, int8, _, path = made[family]
    exact, right = ReferenceEncoder(graph).run(np.stack(images[:2])), ReferenceEncoder(int8).run(np.stack(images[:2]))
    got = open_encoder(runtime, path).run(np.stack(images[:2]))
    assert np.array_equal(got["patch_locations"], right["patch_locations"])
    for name in right:
        size, error = np.linalg.norm(right[name]), np.linalg.norm(got[name] - right[name])
        assert np.linalg.norm(got[name] - exact[name]) < 2 * np.linalg.norm(right[name] - exact[name]) + 1e-2 * size, name
        if name in FLOAT_ONLY or runtime == "torch":
            assert error < (1e-5 if name in FLOAT_ONLY else LITERAL) * size, (name, error / size)


@families
def test_alone_and_among_others(family, made, images):
    """The same bits in any batch and order, also with int8 kernels."""
    encoder = open_encoder("openvino", made[family][-1])
    batch = np.stack(images[:5])
    together, backwards = encoder.run(batch), encoder.run(batch[::-1])
    for i in range(5):
        alone = encoder.run(batch[i : i + 1])
        for name in alone:
            assert alone[name].tobytes() == together[name][i : i + 1].tobytes() == backwards[name][4 - i : 5 - i].tobytes(), name


def test_refused_on_a_gpu(made):
    with pytest.raises(UnavailableError, match="processors only"):
        typed(made["v1"][2], "fp16")


def test_without_nncf(made, images, monkeypatch):
    net, graph, *_ = made["v1"]
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(UnavailableError, match="fusedx\\[quantize\\]"):
        quantize.quantize_encoder(graph, net, images)


def test_ranges_that_int8_cannot_hold(made, images):
    """Pictures of one colour give a trunk nothing to measure; whatever NNCF makes of that is a graph that can be read, or an error."""
    net, graph, *_ = made["v1"]
    flat = [np.zeros_like(images[0])] * 16
    try:
        int8, _ = quantize.quantize_encoder(graph, net, flat)
    except ConfigError as error:
        assert "int8" in str(error)
        return
    assert isinstance(int8, Graph)
    qdq.check(int8)


@families
def test_whole_model_in_int8(family, folder, tmp_path):
    """Compiled by one call; says of itself, loaded and in every prediction, that its encoder is int8; verify holds it to float64."""
    source = tiny.write_v1(tmp_path / "ckpt") if family == "v1" else tiny.write_v2(tmp_path / "last.ckpt")
    settings = {"precision": "int8", "encoder_precision": "int8", "calibration": folder}
    made = fusedx.compile_checkpoint(source, tmp_path / "m.fusedx", **settings)
    assert made.manifest.encoder_precision == "int8" and made.manifest.versions["nncf"] == nncf.__version__
    assert any("int8 encoder:" in note for note in made.manifest.notes) and any("17 pictures" in note for note in made.manifest.notes)
    model = fusedx.load(made.path)
    assert (model.runtime["precision"], model.runtime["encoder_precision"]) == ("int8", "int8")
    assert model.classify(picture(3)).provenance["encoder_precision"] == "int8"
    assert fusedx.load(made.path, encoder="reference").runtime["encoder_precision"] == "int8"
    report = verify(made.path)
    assert report.ok, report
