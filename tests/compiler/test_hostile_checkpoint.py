"""Checkpoints from an attacker: nothing of them runs, nothing hangs or eats memory, and the answer is a CheckpointError."""

from __future__ import annotations

import io
import os
import pickle
import resource
import shutil
import struct
import subprocess
import tempfile
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tiny
from fusedx.compiler import checkpoint, compile_checkpoint, config_yaml, torch_file
from fusedx.engine.encoder import onnx_file
from fusedx.engine.errors import CheckpointError, FusedxError

FUZZ = settings(derandomize=True, max_examples=80, deadline=None, database=None, suppress_health_check=list(HealthCheck))

#: What a payload would leave; of this process alone, so that runs side by side cannot fool each other.
# It is in the names of tests, and all workers of a session must see the same ones.
MARKER = Path(tempfile.gettempdir()) / f"fusedx-marker-{os.environ.get('PYTEST_XDIST_TESTRUNUID', os.getpid())}"


@pytest.fixture(autouse=True)
def bounded():
    """No test here may reserve more than 3 GiB on top of what the process has."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() if Path("/proc/self/statm").exists() else 1 << 40
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + (3 << 30), hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


class Call:
    """Pickles as the call ``function(*arguments)``."""

    def __init__(self, function, *arguments):
        self.what = (function, arguments)

    def __reduce__(self):
        return self.what


def payloads(marker: Path) -> dict[str, Call]:
    shell, text = f"touch {marker}", f"open({str(marker)!r}, 'w').close()"
    return {
        "posix.system": Call(os.system, shell),
        "builtins.exec": Call(exec, text),
        "builtins.eval": Call(eval, text),
        "shutil.copyfile": Call(shutil.copyfile, __file__, str(marker)),
        "builtins.getattr": Call(getattr, "x", "y"),
        "subprocess.Popen": Call(subprocess.Popen, ["touch", str(marker)]),
        "torch.serialization.load": Call(torch.serialization.load, str(marker)),
        "pathlib.PosixPath": marker,
        "numpy.fromfile": Call(np.fromfile, str(marker)),
    }


NAMES = list(payloads(Path("x")))


def refused(source: Path, *texts: str, **more: object) -> str:
    with pytest.raises(CheckpointError) as caught:
        compile_checkpoint(source, source.parent / "out.fusedx", **more)
    assert "more memory than there is" not in str(caught.value)
    assert len(str(caught.value)) < 4000 and str(caught.value).isprintable() or "\n" in str(caught.value)
    for text in texts:
        assert text in str(caught.value), str(caught.value)
    assert not (source.parent / "out.fusedx").exists()
    return str(caught.value)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("place", ["optimizer", "after the weights", "instead of a tensor", "whole"])
@pytest.mark.parametrize("legacy", [False, True])
def test_v1_payload(name, place, legacy, tmp_path):
    marker = tmp_path / "marker"
    bad, model = payloads(marker)[name], {"lin4.bias": torch.zeros(5)}
    saved = {
        "optimizer": [model, {"state": {0: {"exp_avg": [bad]}}}, 0, 0],
        "after the weights": [model, {}, 0, bad],
        "instead of a tensor": [model | {"x": bad}, {}],
        "whole": bad,
    }[place]
    source = tiny.write_v1(tmp_path / "v1", model=model, aux=model)
    torch.save(saved, source / "ckpt_best.pth", _use_new_zipfile_serialization=not legacy)
    refused(source, name)
    assert not marker.exists()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("place", ["hyper_parameters", "callbacks", "state_dict"])
def test_v2_payload(name, place, tmp_path):
    marker = tmp_path / "marker"
    bad = payloads(marker)[name]
    state = {"model.x": torch.zeros(1)}
    hparams = tiny.v2_hparams()
    if place == "hyper_parameters":
        hparams["data"]["dataset"] = bad
    elif place == "state_dict":
        state["model.y"] = bad
    more = {"callbacks": {"ModelCheckpoint": {"best": bad}}} if place == "callbacks" else {}
    source = tiny.write_v2(tmp_path / "last.ckpt", state=state, hparams={"hparams": hparams}, **more)
    refused(source, name)
    assert not marker.exists()


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", NAMES)
def test_plain_pickle_payload(name, protocol, tmp_path):
    marker = tmp_path / "marker"
    source = tmp_path / "last.ckpt"
    source.write_bytes(pickle.dumps({"state_dict": {}, "hyper_parameters": payloads(marker)[name]}, protocol))
    refused(source, name)
    assert not marker.exists()


def pkl_zip(path: Path, pickled: bytes, **entries: bytes) -> Path:
    """A torch zip around a hand-written pickle."""
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("archive/data.pkl", pickled)
        z.writestr("archive/version", b"3\n")
        z.writestr("archive/byteorder", b"little")
        for name, data in entries.items():
            z.writestr(f"archive/data/{name}", data)
    return path


def opcodes(*parts: object) -> bytes:
    """Pickle protocol 2: bytes as they are, str as unicode, int as BININT."""
    out = b"\x80\x02"
    for p in parts:
        if isinstance(p, str):
            out += b"X" + struct.pack("<I", len(p.encode())) + p.encode()
        elif isinstance(p, int):
            out += b"J" + struct.pack("<i", p)
        else:
            out += p
    return out + b"."


LONG = b"\x8a\x06" + (40 << 30).to_bytes(6, "little")  # 40 GiB


@pytest.mark.parametrize(
    "pickled, text",
    [
        (opcodes(b"cposix\nsystem\n", f"touch {MARKER}", b"\x85R"), "posix.system"),
        (opcodes(b"cos\nsystem\n", f"touch {MARKER}", b"\x85R"), "os.system"),
        (opcodes(f"(S'touch {MARKER}'\nios\nsystem\n".encode()), "os.system"),
        (opcodes("os", "system", b"\x93", f"touch {MARKER}", b"\x85R"), "os.system"),
        (opcodes(b"c__builtin__\nbytearray\n", LONG, b"\x85R"), "bytearray"),
        (opcodes(b"cbuiltins\nbytearray\n", LONG, b"\x85R"), "bytearray"),
        # _codecs.encode(..., "hex") doubles its argument each time
        (opcodes(*[b"c_codecs\nencode\n"] * 40, b"U\x01x", *["hex", b"\x86R"] * 40), "_codecs.encode"),
        (opcodes(b"\x82\x01"), ""),
        (b"\x80\x02", ""),
        (b"", ""),
        (opcodes(b"\x8e" + struct.pack("<Q", 1 << 60)), ""),
        (opcodes(b"X\xff\xff\xff\xff"), ""),
        (opcodes(b"}q\x00X\x01\x00\x00\x00ah\x00s"), "lacks state_dict"),
        (b"\x80\x02" + b"(" * 200000 + b".", ""),
        (b"\x80\x02" + b"]" + b"]a" * 10 + b"." + b"\0" * (9 << 20), "large"),
    ],
)  # fmt: skip
def test_hand_written_pickles(pickled, text, tmp_path):
    marker = MARKER
    refused(pkl_zip(tmp_path / "last.ckpt", pickled), text)
    (tmp_path / "plain.ckpt").write_bytes(pickled)
    refused(tmp_path / "plain.ckpt", text if text not in ("lacks state_dict", "large") else "")
    assert not marker.exists()


class Shadowed(dict):
    """Pickles as an OrderedDict with the same entries and, in its __dict__, values that hide its methods."""

    def __reduce__(self):
        hidden = dict.fromkeys(["items", "get", "keys", "values", "__len__", "__iter__", "pop"], 5)
        return OrderedDict, (), hidden, None, iter(self.items())


def test_mapping_with_attributes_that_hide_its_methods(tmp_path):
    """An EasyDict entry is also set as an attribute, so an entry named ``items`` hides the method of that name."""
    source = tiny.write_v2(tmp_path / "last.ckpt", state=Shadowed(tiny.v2_tensors()), hparams=Shadowed(h=tiny.v2_hparams(Shadowed)))
    assert checkpoint.read(source).network.num_classes == 4


def test_hyper_parameters_that_contain_themselves(tmp_path):
    loop: dict = {}
    loop["hparams"] = loop
    refused(tiny.write_v2(tmp_path / "last.ckpt", hparams=loop), "section 'data'")


def test_deeply_nested_values(tmp_path):
    pickled = b"\x80\x02}(X\x0a\x00\x00\x00state_dict}X\x10\x00\x00\x00hyper_parameters}X\x04\x00\x00\x00data)" + b"\x85" * 100_000 + b"su."
    refused(pkl_zip(tmp_path / "last.ckpt", pickled), "section 'data'")
    pickled = b"\x80\x02}(X\x0a\x00\x00\x00state_dict})" + b"\x85" * 100_000 + b"K\x01sX\x10\x00\x00\x00hyper_parameters}u."
    refused(pkl_zip(tmp_path / "last.ckpt", pickled))


@pytest.mark.parametrize("name", ["model.a\ud800b", "model.\x1b[2Jgone", "model.a\nb", "model.\u202ex"])
def test_tensor_names_that_are_not_printable(name, tmp_path):
    state = tiny.v2_tensors() | {name: torch.zeros(1)}
    refused(tiny.write_v2(tmp_path / "last.ckpt", state=state), "not printable")


# Zip and storage.


def rezip(source: Path, target: Path, compression: int = zipfile.ZIP_STORED, drop: str = "", **replace: bytes) -> Path:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for entry in old.namelist():
            short = entry.split("/", 1)[1]
            if short != drop:
                new.writestr(entry, replace.get(short.replace("/", "_").replace(".", "_"), old.read(entry)))
    return target


def test_truncated_anywhere(tmp_path):
    source = tiny.write_v1(tmp_path / "v1")
    path = source / "aux_ckpt_best.pth"
    whole = path.read_bytes()
    cuts = [0, 1, 3, 4, 5, 30, 64, 100, 1000, *(len(whole) * i // 23 for i in range(1, 23)), len(whole) - 30, len(whole) - 1]
    for cut in cuts:
        path.write_bytes(whole[:cut])
        refused(source, "aux_ckpt_best.pth")
    config = source / "config.yml"
    text = config.read_bytes()
    path.write_bytes(whole)
    for cut in range(0, len(text) - 20, 13):
        config.write_bytes(text[:cut])
        with pytest.raises(FusedxError):
            checkpoint.read(source)


def test_truncated_legacy_file(tmp_path):
    path = tmp_path / "last.ckpt"
    saved = {"state_dict": {"model.a": torch.zeros(300), "aux_model.b": torch.zeros(9)}, "hyper_parameters": tiny.v2_hparams()}
    torch.save(saved, path, _use_new_zipfile_serialization=False)
    assert torch_file.load(path)["state_dict"]["model.a"].shape == (300,)
    whole = path.read_bytes()
    for cut in range(0, len(whole) - 1, 41):
        path.write_bytes(whole[:cut])
        refused(path, "last.ckpt")


def test_one_flipped_bit_in_the_weights(tmp_path):
    """A damaged copy must not compile to a model that answers wrongly; the zip's own checksums say so."""
    path = tiny.write_v2(tmp_path / "last.ckpt")
    with zipfile.ZipFile(path) as z:
        largest = max(z.infolist(), key=lambda e: e.file_size)
    raw = bytearray(path.read_bytes())
    raw[largest.header_offset + 2000] ^= 4
    path.write_bytes(raw)
    refused(path, "checksum", largest.filename)


def test_zip_bomb(tmp_path):
    plain = tiny.write_v2(tmp_path / "plain.ckpt")
    bomb = rezip(plain, tmp_path / "last.ckpt", zipfile.ZIP_DEFLATED, data_pkl=b"\x80\x02" + b"0" * (64 << 20))
    assert bomb.stat().st_size < 30 << 20
    refused(bomb, "compressed")


def test_entry_given_twice_missing_or_resized(tmp_path):
    path = tmp_path / "a" / "last.ckpt"
    for change in ("twice", "no pickle", "no storage", "short storage", "empty storage"):
        plain = tiny.write_v2(path)
        if change == "twice":
            with pytest.warns(UserWarning), zipfile.ZipFile(plain, "a") as z:
                z.writestr("last/data.pkl", opcodes(b"cposix\nsystem\n", f"touch {MARKER}", b"\x85R"))
            refused(plain, "twice")
            continue
        drop = {"no pickle": "data.pkl", "no storage": "data/0"}.get(change, "")
        replace = {"short storage": {"data_0": b"1234"}, "empty storage": {"data_0": b""}}.get(change, {})
        other = rezip(plain, tmp_path / "b.ckpt", drop=drop, **replace)
        with pytest.raises(CheckpointError):
            checkpoint.read(other)


def tensor_pickle(kind: bytes, numel: bytes, size: bytes, stride: bytes, key: str = "0") -> bytes:
    """{'state_dict': {'model.a': tensor, 'aux_model.b': tensor}, ...} with a storage that says whatever is wanted."""
    key_and_place = b"X\x01\x00\x00\x00" + key.encode() + b"X\x03\x00\x00\x00cpu"
    storage = b"(X\x07\x00\x00\x00storage" + b"ctorch\n" + kind + b"\n" + key_and_place + numel + b"tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\x00" + size + stride + b"\x89ccollections\nOrderedDict\n)RtR"
    hparams = pickle.dumps(tiny.v2_hparams(), 2)[2:-1]
    return (
        b"\x80\x02}(X\x0a\x00\x00\x00state_dict}(X\x07\x00\x00\x00model.a" + tensor + b"X\x0b\x00\x00\x00aux_model.b" + tensor + b"u"
        b"X\x10\x00\x00\x00hyper_parameters" + hparams + b"u."
    )  # fmt: skip


def number(n: int) -> bytes:
    raw = n.to_bytes(9, "little", signed=True)
    return b"\x8a\x09" + raw


@pytest.mark.parametrize("kind", [b"FloatStorage", b"HalfStorage", b"DoubleStorage", b"BFloat16Storage", b"LongStorage", b"BoolStorage"])
@pytest.mark.parametrize("claim", ["storage", "size", "stride 0", "offset", "negative"])
def test_tensor_that_claims_a_terabyte(kind, claim, tmp_path):
    big = 1 << 38
    numel, size, stride = {
        "storage": (number(big), b"(K\x04t", b"(K\x01t"),
        "size": (b"K\x04", b"(" + number(big) + b"t", b"(K\x01t"),
        "stride 0": (b"K\x04", b"(" + number(big) + b"t", b"(K\x00t"),
        "offset": (b"K\x04", b"(K\x02t", b"(" + number(big) + b"t"),
        "negative": (number(-5), b"(" + number(-2) + b"t", b"(" + number(-1) + b"t"),
    }[claim]
    path = pkl_zip(tmp_path / "last.ckpt", tensor_pickle(kind, numel, size, stride), **{"0": b"\0" * 64})
    refused(path)


def test_tensors_that_repeat_their_storage(tmp_path):
    """Stride 0: four bytes on disk, a gigabyte once anything copies it."""
    wide = torch.zeros(1, dtype=torch.float16).expand(1 << 15, 1 << 15)
    source = tiny.write_v1(tmp_path / "v1", model=tiny.tensors("v1-small", "model") | {"lin2.lin.weight": wide})
    refused(source, "lin2.lin.weight", "more than it stores")
    shared = torch.zeros(1 << 20, dtype=torch.float16)
    source = tiny.write_v1(tmp_path / "v1", model={f"x{i}": shared for i in range(20_000)})  # 40 GiB once widened
    refused(source)


def test_small_file_for_a_giant_network(tmp_path):
    """The first layers decide the width, so a megabyte can ask for a network of any size; zeros must not stand in for it."""
    norms = ("f.0.weight", "f.1.weight", "f.1.bias", "f.1.running_mean", "f.4.0.bn1.weight")
    names = [f"{branch}.{name}" for branch in ("ds_net", "dn_resnet") for name in norms]
    wide = {name: torch.zeros(4096, 3, 7, 7) if name.endswith("f.0.weight") else torch.zeros(4096) for name in names}
    aux = tiny.tensors("v1-small", "aux") | wide
    source = tiny.write_v1(tmp_path / "v1", aux=aux, arch="resnet50")
    refused(source, "ds_net.f.4.0.conv1.weight", "misshapen")
    refused(tiny.write_v1(tmp_path / "v1", feature_dim="131072"), "lin2.lin.weight", "[131072, 131072]")
    state = tiny.v2_tensors() | {"model.encoder_x.f.patch_embed.proj.bias": torch.zeros(16384)}
    refused(tiny.write_v2(tmp_path / "last.ckpt", state=state), "encoder_x.f.blocks.0")


ODD = {
    "sparse_coo": lambda: torch.eye(5).to_sparse(),
    "sparse_csr": lambda: torch.eye(5).to_sparse_csr(),
    "quantised": lambda: torch.quantize_per_tensor(torch.eye(5), 0.1, 0, torch.qint8),
    "meta": lambda: torch.empty(5, device="meta"),
    "float8": lambda: torch.zeros(5).to(torch.float8_e4m3fn),
    "conjugate": lambda: torch.ones(5, dtype=torch.complex64).conj(),
    "nested": lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
    "uint16": lambda: torch.zeros(5, dtype=torch.uint16),
    "scalar": lambda: torch.tensor(1.0),
    "empty": lambda: torch.zeros(0),
    "five dimensions": lambda: torch.zeros(1, 1, 1, 1, 5),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.filterwarnings("ignore")
def test_tensors_of_odd_kinds(name, tmp_path):
    model = tiny.tensors("v1-small", "model") | {"lin4.bias": ODD[name]()}
    refused(tiny.write_v1(tmp_path / "v1", model=model))


def test_special_files_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.ckpt")
    refused(tmp_path / "pipe.ckpt", "not a regular file")
    refused(Path("/dev/zero"), "not a regular file")
    (tmp_path / "v1").mkdir()
    for name in ("ckpt_best.pth", "aux_ckpt_best.pth", "config.yml"):
        os.mkfifo(tmp_path / "v1" / name)
    refused(tmp_path / "v1", "lacks")
    os.mkfifo(tmp_path / "v1" / "last.ckpt")
    refused(tmp_path / "v1", "lacks")


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "x/" * 3000])
def test_impossible_source_names(name, tmp_path):
    with pytest.raises(CheckpointError):
        compile_checkpoint(name, tmp_path / "out.fusedx")


def test_file_name_that_torch_cannot_open(tmp_path):
    path = tmp_path / os.fsdecode(b"we\xffird.ckpt")
    path.write_bytes(tiny.write_v2(tmp_path / "last.ckpt").read_bytes())
    with pytest.raises(CheckpointError, match="UTF-8"):
        compile_checkpoint(path, tmp_path / "out.fusedx")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_files(tmp_path):
    source = tiny.write_v1(tmp_path / "v1")
    for name in ("config.yml", "ckpt_best.pth"):
        (source / name).chmod(0)
        refused(source, name)
        (source / name).chmod(0o644)
    source.chmod(0)
    refused(source)
    source.chmod(0o755)


@FUZZ
@given(data=st.data())
def test_mutated_zip(data, tmp_path_factory):
    """Any damage: a state dict, or CheckpointError."""
    seed = io.BytesIO()
    torch.save([{"a": torch.arange(5.0), "b": torch.ones(2, 3)}, {"lr": 0.1}, 3], seed)
    raw = bytearray(seed.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=6))
    path = tmp_path_factory.mktemp("fuzz") / "x.pth"
    path.write_bytes(raw)
    try:
        loaded = torch_file.load(path)
        if isinstance(loaded, list) and loaded:
            torch_file.state_dict(loaded[0], path)
    except CheckpointError:
        pass


@FUZZ
@given(edits=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 3), st.binary(max_size=5)), min_size=1, max_size=4))
@pytest.mark.filterwarnings("ignore")
def test_mutated_pickle(edits, tmp_path_factory):
    """Valid zip, damaged pickle: the same."""
    raw = bytearray(tensor_pickle(b"FloatStorage", b"K\x10", b"(K\x04t", b"(K\x01t"))
    for at, length, new in edits:
        at %= len(raw)
        raw[at : at + length] = new
    path = pkl_zip(tmp_path_factory.mktemp("fuzz") / "x.ckpt", bytes(raw), **{"0": b"\0" * 64})
    try:
        checkpoint.read(path)
    except FusedxError:
        pass


# YAML.

EXECUTES = f"touch {MARKER}"


@pytest.mark.parametrize(
    "text, message",
    [
        (f"data: !!python/object/apply:os.system ['{EXECUTES}']", "os.system"),
        (f"!!python/object/apply:os.system ['{EXECUTES}']", "os.system"),
        (f"data: !!python/object/new:os.system ['{EXECUTES}']", "os.system"),
        (f"data: !!python/object/apply:subprocess.Popen\n  args: ['{EXECUTES}']\n  kwds: {{shell: true}}", "subprocess.Popen"),
        ("data: !!python/name:os.system", "os.system"),
        ("data: !!python/module:os", "python/module"),
        ("data: !!python/object:os.PathLike {}", "os.PathLike"),
        ("data: !!python/object:argparse.NamespaceX {}", "argparse.NamespaceX"),
        ("data: !!python/object/new:argparse.Namespace {}", "argparse.Namespace"),
        ("data: !!python/tuple [1, 2]", "python/tuple"),
        ("data: !unknown 3", "!unknown"),
        ("data: !!python/object:argparse.Namespace [1]", "mapping"),
        ("data: !!python/object:argparse.Namespace 3", "mapping"),
        ("a: &a [*a]", "recursive"),
        ("a: &a {x: 1}\nb: {<<: *a}", "aliases"),
        ("a: &a0 [x,x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1},*a{i - 1},*a{i - 1}]\n" for i in range(1, 40)), "aliases"),
        ("data: {a: 1, a: 2}", "twice"),
        ("data: {}\ndata: {}", "twice"),
        ("data: !!python/object:argparse.Namespace {a: 1, a: 2}", "twice"),
        ("? [1, 2]\n: 3", "unhashable"),
        ("? {a: b}\n: 3", "unhashable"),
        ("[" * 30_000, ""),
        ("{a: " * 10_000, ""),
        ("- " * 30_000, ""),
        ("? " * 30_000, ""),
        ("x: " + "1:" * 30_000 + "1", None),
        ("x: " + "9" * 60_000, ""),
        ("x: !!int ''", ""),
        ("x: !!float abc", ""),
        ("x: 2001-99-99", ""),
        ("x: !!timestamp abc", ""),
        ("x: !!binary '*'", None),
        ("x: '\\", ""),
        ("%YAML 9.9\n---\na: 1", ""),
        ("a: 1\n---\nb: 2", ""),
        ("a: \x00", ""),
        ("\x07", ""),
        ("", "not a mapping"),
        ("[1, 2]", "not a mapping"),
        ("just text", "not a mapping"),
        ("3", "not a mapping"),
        ("x: 1\n" + "# padding\n" * 20_000, "KiB"),
    ],
)  # fmt: skip
def test_hostile_yaml(text, message, tmp_path):
    marker = MARKER
    path = tmp_path / "config.yml"
    path.write_text(text)
    try:
        config_yaml.load(path)
        assert message is None
    except CheckpointError as error:
        assert message in str(error) and len(str(error)) < 1000, str(error)
    assert not marker.exists()


@pytest.mark.parametrize("raw", [b"a: \xff\xfe", b"\xff\xfea\0:\0 \x001\0", b"a: \xc0\xaf", bytes(range(256))])
def test_yaml_that_is_not_utf8(raw, tmp_path):
    (tmp_path / "config.yml").write_bytes(raw)
    with pytest.raises(CheckpointError):
        config_yaml.load(tmp_path / "config.yml")


def test_yaml_huge_file_is_not_read(tmp_path):
    path = tmp_path / "config.yml"
    with path.open("wb") as f:
        f.truncate(1 << 40)  # sparse
    with pytest.raises(CheckpointError, match="KiB"):
        config_yaml.load(path)


@FUZZ
@given(edits=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 6), st.text(max_size=6)), min_size=1, max_size=5))
def test_mutated_yaml(edits, tmp_path_factory):
    text = tiny.v1_config()
    for at, length, new in edits:
        at %= len(text)
        text = text[:at] + new + text[at + length :]
    folder = tmp_path_factory.getbasetemp() / "yaml-fuzz"
    if not folder.exists():
        model = {"a": torch.zeros(1)}
        tiny.write_v1(folder, model=model, aux=model)
    (folder / "config.yml").write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        checkpoint.read(folder)
    except FusedxError:
        pass


def test_shared_lists_of_real_configurations_are_read(tmp_path):
    """Training code writes an alias where two settings share a list; that is harmless."""
    path = tmp_path / "config.yml"
    path.write_text("a: &id001 [0.001, 0.999]\nb: *id001\nc: &n 3\nd: *n\n")
    assert config_yaml.load(path) == {"a": [0.001, 0.999], "b": [0.001, 0.999], "c": 3, "d": 3}


def test_folders_made_for_a_compile_that_fails_are_removed(tmp_path, monkeypatch):
    source = tiny.write_v1(tmp_path / "checkpoint")
    monkeypatch.setattr(onnx_file, "write", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        compile_checkpoint(source, tmp_path / "new" / "deeper" / "m.fusedx")
    assert not (tmp_path / "new").exists()
