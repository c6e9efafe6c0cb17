"""Reading what the authors' code saves: every variant that exists, and a plain answer to every one that does not fit."""

from __future__ import annotations

import os
import sys
import types
from collections import OrderedDict

import numpy as np
import pytest
import torch

import fusedx
import tiny
from fusedx.compiler import checkpoint, compile_checkpoint
from fusedx.engine.errors import CheckpointError, ConfigError, FusedxError
from fusedx.engine.schedule import BETA_SCHEDULES


def compiled(source, tmp_path, **more):
    return compile_checkpoint(source, tmp_path / "out.fusedx", **more)


def refused(source, tmp_path, *texts, kind=CheckpointError, **more):
    """Compiling raises ``kind``, every text is in the message, and nothing is written."""
    with pytest.raises(kind) as caught:
        compiled(source, tmp_path, **more)
    for text in texts:
        assert text in str(caught.value), str(caught.value)
    assert not list(tmp_path.glob("*out.fusedx*"))
    return str(caught.value)


# Family and files.


def test_families_are_detected(tmp_path):
    v1, v2 = tiny.write_v1(tmp_path / "v1"), tiny.write_v2(tmp_path / "v2" / "last.ckpt")
    assert checkpoint.detect(v1) == "diffmic-v1"
    assert checkpoint.detect(v2) == "diffmic-v2"
    assert checkpoint.detect(v2.parent) == "diffmic-v2"


@pytest.mark.parametrize("family", ["v1", "v2"])
def test_compiles_and_predicts(family, tmp_path):
    source = tiny.write_v1(tmp_path / "v1") if family == "v1" else tiny.write_v2(tmp_path / "v2" / "last.ckpt").parent
    report = compiled(source, tmp_path)
    network = report.manifest.network
    assert (network.backbone_width, network.feature_dim, network.family) == (8, 16, f"diffmic-{family}")
    result = fusedx.load(report.path, encoder="torch", backend="python").classify(np.zeros((40, 30), np.uint8))
    assert result.probabilities.shape == (network.num_classes,) and np.isfinite(result.probabilities).all()


def test_wrong_family_is_refused(tmp_path):
    refused(tiny.write_v1(tmp_path / "v1"), tmp_path, "diffmic-v1 checkpoint, not diffmic-v2", family="diffmic-v2")
    refused(tiny.write_v2(tmp_path / "a.ckpt"), tmp_path, "diffmic-v2 checkpoint, not diffmic-v1", family="diffmic-v1")
    refused(tmp_path / "a.ckpt", tmp_path, "unknown family 'daug'", "diffmic-v1, diffmic-v2", kind=ConfigError, family="daug")


@pytest.mark.parametrize("name", ["ckpt_best.pth", "aux_ckpt_best.pth", "config.yml"])
def test_missing_v1_file_is_named(name, tmp_path):
    source = tiny.write_v1(tmp_path / "v1")
    (source / name).unlink()
    refused(source, tmp_path, f"lacks {name};")


def test_one_v1_file_points_to_its_folder(tmp_path):
    source = tiny.write_v1(tmp_path / "v1")
    refused(source / "ckpt_best.pth", tmp_path, "one file of a diffmic-v1 checkpoint", str(source))


def test_missing_empty_and_ambiguous_sources(tmp_path):
    refused(tmp_path / "nowhere", tmp_path, "does not exist")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", tmp_path, "ckpt_best.pth, aux_ckpt_best.pth, config.yml")
    for name in ("a.ckpt", "b.ckpt"):
        tiny.write_v2(tmp_path / "two" / name)
    refused(tmp_path / "two", tmp_path, "2 .ckpt files", "a.ckpt, b.ckpt")
    (tmp_path / "folder" / "x.ckpt").mkdir(parents=True)
    refused(tmp_path / "folder", tmp_path, "folder")


def test_v1_list_entries(tmp_path):
    model = tiny.tensors("v1-small", "model")
    average = {f"module.{k}": v for k, v in model.items()}
    optimizer = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(4)}}, "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.9)}]}
    for entries in ([model, optimizer, 0, 0], [model, optimizer, 7, 100, average], (model, optimizer)):
        source = tiny.write_v1(tmp_path / "v1", model_list=entries)
        assert checkpoint.read(source).network.num_classes == 5
    for bad, found in ({"state_dict": model}, "dict"), ([], "list"), (torch.zeros(3), "Tensor"), ([[1, 2]], "list"), ([{}], "dict"):
        tiny.write_v1(tmp_path / "v1", model_list=[])
        torch.save(bad, tmp_path / "v1" / "ckpt_best.pth")
        refused(tmp_path / "v1", tmp_path, "ckpt_best.pth", found)


def test_module_prefix_and_ordered_dict_with_metadata(tmp_path):
    model = OrderedDict((f"module.{k}", v) for k, v in tiny.tensors("v1-small", "model").items())
    model._metadata = OrderedDict({"": {"version": 1}})  # as nn.Module.state_dict makes it
    source = tiny.write_v1(tmp_path / "v1", model=model)
    plain = tiny.write_v1(tmp_path / "plain")
    first, second = checkpoint.read(source).model, checkpoint.read(plain).model
    assert (first.get("lin4.bias", (5,)) == second.get("lin4.bias", (5,))).all()


def test_two_names_for_one_tensor_are_refused(tmp_path):
    model = tiny.tensors("v1-small", "model")
    model["module.lin4.bias"] = torch.ones(5)
    refused(tiny.write_v1(tmp_path / "v1", model=model), tmp_path, "lin4.bias", "twice")


@pytest.mark.parametrize("wrap", [lambda h: h, lambda h: {"hparams": h}, lambda h: {"config": {"hparams": h}}])
@pytest.mark.parametrize("kind", ["plain", "stand-in", "easydict"])
def test_hyper_parameters(wrap, kind, tmp_path, monkeypatch):
    if kind == "easydict":
        easy = pytest.importorskip("easydict").EasyDict
    elif kind == "stand-in":
        monkeypatch.delitem(sys.modules, "easydict", raising=False)
        easy = tiny.make_checkpoint.easydict_class()
        monkeypatch.setitem(sys.modules, "easydict", types.ModuleType("easydict"))
        sys.modules["easydict"].EasyDict = easy
    else:
        easy = dict
    source = tiny.write_v2(tmp_path / "last.ckpt", hparams=wrap(tiny.v2_hparams(easy)))
    read = checkpoint.read(source)
    assert read.network.num_classes == 4 and read.dataset == "PLACENTAL"


def test_whole_efficient_sam_is_accepted_and_the_rest_reported(tmp_path):
    state = {k.replace("encoder_x.f.", "encoder_x.f.image_encoder."): v for k, v in tiny.v2_tensors().items()}
    unused = ["image_encoder.neck.0.weight", "prompt_encoder.x", "mask_decoder.y.z", "neck.1.bias", "pixel_mean"]
    state |= {f"model.encoder_x.f.{name}": torch.zeros(2) for name in unused}
    state["loss.weight"] = torch.ones(1)
    report = compiled(tiny.write_v2(tmp_path / "last.ckpt", state=state), tmp_path)
    for name in unused:
        assert f"ignored model: encoder_x.f.{name}" in report.manifest.notes
    assert "ignored loss.weight" in report.manifest.notes
    assert "ignored aux_model: fusion_dnn.weight" in report.manifest.notes
    assert report.ignored == ["aux_model: fusion_dnn.weight"]


def test_trunk_under_both_names_is_refused(tmp_path):
    state = tiny.v2_tensors()
    state["model.encoder_x.f.image_encoder.pos_embed"] = torch.zeros(1, 197, 64)
    refused(tiny.write_v2(tmp_path / "last.ckpt", state=state), tmp_path, "encoder_x.f.pos_embed", "twice")


def test_v1_prior_encoder_is_read_non_strictly(tmp_path):
    aux = tiny.tensors("v1-small", "aux") | {"further.weight": torch.zeros(3)}
    report = compiled(tiny.write_v1(tmp_path / "v1", aux=aux), tmp_path)
    assert report.ignored == ["prior encoder: further.weight"]


# Configuration.


def test_include_guidance_false(tmp_path):
    model = tiny.tensors("v1-small", "model")
    model["lin1.lin.weight"] = model["lin1.lin.weight"][:, :5].contiguous()
    source = tiny.write_v1(tmp_path / "v1", model=model, include_guidance="false")
    report = compiled(source, tmp_path)
    assert not report.manifest.network.include_guidance
    tables = fusedx.load(report.path, encoder="reference")._compiled.denoiser()
    assert (tables.weight_p == 0).all() and (tables.weight_y == model["lin1.lin.weight"].numpy()).all()


def test_noise_prior(tmp_path):
    source = tiny.write_v1(tmp_path / "v1", noise_prior="true")
    assert compiled(source, tmp_path).manifest.network.noise_prior


@pytest.mark.parametrize("key", ["include_guidance", "noise_prior", "apply_aux_cls"])
@pytest.mark.parametrize("value", ["'false'", "0", "[]", "no way"])
def test_switches_must_be_true_or_false(key, value, tmp_path):
    """``bool('false')`` is True: a guess here would silently change the network."""
    refused(tiny.write_v1(tmp_path / "v1", **{key: value}), tmp_path, key, "true or false")


@pytest.mark.parametrize("name", BETA_SCHEDULES)
def test_every_beta_schedule_compiles_or_says_why(name, tmp_path):
    source = tiny.write_v1(tmp_path / "v1", beta_schedule=name)
    report = compiled(source, tmp_path)
    assert report.manifest.schedule.beta_schedule == name
    fusedx.load(report.path, encoder="reference", backend="python")  # its coefficients exist


def test_singular_schedule_is_refused_when_compiling(tmp_path):
    """jsd ends at beta = 1, so the whole table cannot be sampled; loading would fail later."""
    source = tiny.write_v1(tmp_path / "v1", beta_schedule="jsd", test_timesteps="1000")
    refused(source, tmp_path, "singular", "fewer steps", kind=ConfigError)


@pytest.mark.parametrize(
    "changes, texts",
    [
        ({"beta_schedule": "quadratic"}, ["unknown beta_schedule 'quadratic'", "linear"]),
        ({"beta_schedule": "7"}, ["beta_schedule should be text"]),
        ({"arch": "densenet121"}, ["arch is 'densenet121'", "resnet18, resnet50"]),
        ({"arch": "vit"}, ["arch is 'vit'"]),
        ({"apply_aux_cls": "false"}, ["apply_aux_cls is false"]),
        ({"num_classes": "five"}, ["num_classes should be a number"]),
        ({"num_classes": "true"}, ["num_classes should be a number"]),
        ({"num_classes": ".inf"}, ["num_classes"]),
        ({"num_classes": ".nan"}, ["num_classes"]),
        ({"num_classes": "5.5"}, ["num_classes"]),
        ({"num_classes": "1"}, ["num_classes"]),
        ({"num_classes": "-3"}, ["num_classes"]),
        ({"num_classes": "0x" + "f" * 9000}, ["num_classes"]),
        ({"num_classes": None}, ["num_classes should be a number, found None"]),
        ({"beta_start": "0x" + "f" * 500}, ["beta_start"]),
        ({"beta_start": "0"}, ["beta_start"]),
        ({"beta_end": "1.5"}, ["beta_end"]),
        ({"beta_end": ".nan"}, ["beta_end"]),
        ({"timesteps": "1"}, ["train_timesteps"]),
        ({"timesteps": "100000000"}, ["train_timesteps"]),
        ({"test_timesteps": "0"}, ["steps must be"]),
        ({"test_timesteps": "1001"}, ["steps must be"]),
        ({"feature_dim": "0"}, ["feature_dim"]),
        ({"feature_dim": "131072"}, ["lin2.lin.weight"]),
        ({"feature_dim": "32"}, ["lin2.lin.weight is [16, 16], expected [32, 32]"]),
    ],
)  # fmt: skip
def test_v1_configuration_is_checked(changes, texts, tmp_path):
    source = tiny.write_v1(tmp_path / "v1", **changes)
    refused(source, tmp_path, *texts, kind=FusedxError)


@pytest.mark.parametrize(
    "changes, texts",
    [
        ({"num_k": 4}, ["num_k is 4", "6 regions"]),
        ({"num_k": float("inf")}, ["num_k"]),
        ({"arch": "resnet101"}, ["arch is 'resnet101'"]),
        ({"beta_schedule": "cosine"}, ["beta_schedule 'cosine'", "linear"]),
        ({"beta_schedule": torch.zeros(3)}, ["beta_schedule should be text"]),
        ({"num_classes": torch.zeros(2)}, ["num_classes should be a number"]),
        ({"num_classes": 10**400}, ["num_classes"]),
        ({"num_classes": 1 << 2000}, ["num_classes"]),
        ({"beta_start": 1 << 2000}, ["beta_start"]),
        ({"timesteps": [1000]}, ["timesteps should be a number"]),
    ],
)  # fmt: skip
def test_v2_configuration_is_checked(changes, texts, tmp_path):
    source = tiny.write_v2(tmp_path / "last.ckpt", hparams=tiny.v2_hparams(**changes))
    refused(source, tmp_path, *texts, kind=FusedxError)


def test_v2_top_level_is_checked(tmp_path):
    path = tmp_path / "last.ckpt"
    for saved, text in (
        ({"state_dict": tiny.v2_tensors()}, "hyper_parameters"),
        ({"hyper_parameters": tiny.v2_hparams()}, "state_dict"),
        ([1, 2], "not a DiffMIC-v2"),
        ({"state_dict": {}, "hyper_parameters": tiny.v2_hparams()}, "state dict"),
        ({"state_dict": [1], "hyper_parameters": tiny.v2_hparams()}, "state dict"),
        ({"state_dict": tiny.v2_tensors(), "hyper_parameters": {}}, "section 'data'"),
        ({"state_dict": tiny.v2_tensors(), "hyper_parameters": None}, "section 'data'"),
        ({"state_dict": {"model.x": torch.zeros(1)}, "hyper_parameters": tiny.v2_hparams()}, "aux_model."),
        ({"state_dict": {"model.x": 3}, "hyper_parameters": tiny.v2_hparams()}, "model.x"),
        ({"state_dict": {7: torch.zeros(1)}, "hyper_parameters": tiny.v2_hparams()}, "under a int"),
    ):
        torch.save(saved, path)
        refused(path, tmp_path, "last.ckpt", text)


def test_steps(tmp_path):
    v1, v2 = tiny.write_v1(tmp_path / "v1"), tiny.write_v2(tmp_path / "last.ckpt")
    assert checkpoint.read(v1).schedule.steps == 20 and not checkpoint.read(v1, steps=20).notes
    assert checkpoint.read(v1, steps=7).schedule.steps == 7
    assert checkpoint.read(v1, steps=7).notes == ["7 steps instead of the checkpoint's 20 (--steps)"]
    assert checkpoint.read(v2).schedule.steps == 10 and "10 DDIM steps, as published" in checkpoint.read(v2).notes[-1]
    assert checkpoint.read(v2, steps=25).schedule.steps == 25
    for source in (v1, v2):
        for steps in (0, -1, 1001):
            refused(source, tmp_path, "steps must be an integer from 1 to 1000", kind=ConfigError, steps=steps)


# Tensors.


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_widths_are_accepted(dtype, tmp_path):
    def cast(tensors):
        return {k: v.to(dtype) if v.is_floating_point() else v for k, v in tensors.items()}

    v1 = tiny.write_v1(tmp_path / "v1", model=cast(tiny.tensors("v1-small", "model")), aux=cast(tiny.tensors("v1-small", "aux")))
    v2 = tiny.write_v2(tmp_path / "last.ckpt", state=cast(tiny.v2_tensors()))
    for i, source in enumerate((v1, v2)):
        compile_checkpoint(source, tmp_path / f"{i}.fusedx")


def test_double_weights_keep_their_digits(tmp_path):
    """What is folded in float64 is read in float64."""
    model = {k: v.double() if v.is_floating_point() else v for k, v in tiny.tensors("v1-small", "model").items()}
    model["lin4.bias"] = torch.full((5,), 1 / 3, dtype=torch.float64)
    read = checkpoint.read(tiny.write_v1(tmp_path / "v1", model=model))
    assert (read.model.get("lin4.bias", (5,)) == 1 / 3).all()


def test_parameters_strides_and_ties_are_accepted(tmp_path):
    model = tiny.tensors("v1-small", "model")
    model["lin2.lin.weight"] = torch.nn.Parameter(model["lin2.lin.weight"].t())  # not contiguous, requires grad
    model["norm.bias"] = torch.ones(16, dtype=torch.complex64).conj().imag  # a view that negates
    model["lin3.lin.bias"] = model["lin2.lin.bias"]  # one storage under two names
    model["encoder_x.f.4.0.conv1.weight"] = model["encoder_x.f.4.0.conv1.weight"].to(memory_format=torch.channels_last)
    compiled(tiny.write_v1(tmp_path / "v1", model=model), tmp_path)


def test_wrong_class_count_lists_tensors_with_both_shapes(tmp_path):
    def seven(tensors):
        out = {}
        for name, t in tensors.items():
            if name.startswith(("lin4", "left_postprocess", "classifier_linear")):
                t = torch.cat([t, t[:2]])
            out[name] = torch.cat([t, t[:, :4]], 1) if name == "lin1.lin.weight" else t
        return out

    source = tiny.write_v1(tmp_path / "v1", model=seven(tiny.tensors("v1-small", "model")), aux=seven(tiny.tensors("v1-small", "aux")))
    text = refused(
        source, tmp_path,
        "does not fit the network in 5 places",
        "prior encoder: left_postprocess_net.gn_conv_last.weight is [7, 256, 1, 1], expected [5, 256, 1, 1]",
        "prior encoder: classifier_linear.weight is [7, 256], expected [5, 256]",
        "model: lin1.lin.weight is [16, 14], expected [16, 10]",
        "model: lin4.weight is [7, 16], expected [5, 16]",
        "model: lin4.bias is [7], expected [5]",
    )  # fmt: skip
    assert text.count("misshapen") == 5
    compile_checkpoint(tiny.write_v1(source, model=seven(tiny.tensors("v1-small", "model")),
                                     aux=seven(tiny.tensors("v1-small", "aux")), num_classes="7"), tmp_path / "seven.fusedx")  # fmt: skip


def test_missing_and_extra_tensors_are_listed(tmp_path):
    model = tiny.tensors("v1-small", "model")
    del model["lin2.lin.weight"], model["norm.running_var"]
    model["lin9.weight"] = torch.zeros(2, 3)
    aux = tiny.tensors("v1-small", "aux")
    del aux["mil_attn_U.weight"]
    refused(
        tiny.write_v1(tmp_path / "v1", model=model, aux=aux), tmp_path,
        "in 4 places", "missing   model: lin2.lin.weight [16, 16]", "missing   model: norm.running_var [16]",
        "missing   prior encoder: mil_attn_U.weight [128, 256]", "extra     model: lin9.weight [2, 3]",
    )  # fmt: skip


def test_wholly_foreign_state_dicts_are_refused_briefly(tmp_path):
    text = refused(tiny.write_v1(tmp_path / "v1", model={"a": torch.zeros(1)}, aux={"b": torch.zeros(1)}), tmp_path, "more")
    assert len(text.splitlines()) < 60


@pytest.mark.parametrize("value, word", [(float("nan"), "NaN"), (float("inf"), "infinite"), (-float("inf"), "infinite")])
@pytest.mark.parametrize("name", ["lin3.embed.weight", "encoder_x.f.7.1.bn2.running_var", "norm.running_mean"])
def test_not_finite_weights_are_named(value, word, name, tmp_path):
    model = tiny.tensors("v1-small", "model")
    model[name].view(-1)[3] = value
    refused(tiny.write_v1(tmp_path / "v1", model=model), tmp_path, f"not finite model: {name} has 1 NaN or infinite", word)


def test_double_that_overflows_float32_is_named(tmp_path):
    model = tiny.tensors("v1-small", "model")
    model["lin4.bias"] = torch.full((5,), 1e300, dtype=torch.float64)
    refused(tiny.write_v1(tmp_path / "v1", model=model), tmp_path, "overflow", "bias4")


@pytest.mark.parametrize("name, text", [("unetnorm2", "scale2"), ("norm", "encoder_x.g"), ("encoder_x.f.4.0.bn1", "encoder_x.f.4.0.conv1")])
def test_weights_that_overflow_when_folded_are_refused(name, text, tmp_path, recwarn):
    """Finite tensors whose product with the norm's scale is not: the compiled model would answer NaN."""
    model = tiny.tensors("v1-small", "model")
    model[f"{name}.weight"] = torch.full_like(model[f"{name}.weight"], 3e38)
    model[f"{name}.running_var"] = torch.zeros_like(model[f"{name}.running_var"])
    refused(tiny.write_v1(tmp_path / "v1", model=model), tmp_path, "overflow", text)
    assert not [w for w in recwarn if issubclass(w.category, RuntimeWarning)]


def test_negative_variance_is_named_with_its_part(tmp_path):
    aux = tiny.tensors("v1-small", "aux")
    aux["dn_resnet.f.1.running_var"][2] = -1e-3
    refused(tiny.write_v1(tmp_path / "v1", aux=aux), tmp_path, "prior encoder: dn_resnet.f.1.running_var has negative")


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64, torch.int8])
def test_weights_of_another_kind_are_named(dtype, tmp_path):
    model = tiny.tensors("v1-small", "model")
    model["lin4.bias"] = torch.ones(5).to(dtype)
    refused(tiny.write_v1(tmp_path / "v1", model=model), tmp_path, "lin4.bias has dtype", "floating point")


# Class names.


def test_published_class_names(tmp_path):
    source = tiny.write_v1(tmp_path / "v1")
    assert compiled(source, tmp_path).manifest.classes[4] == "Proliferative DR"
    given = compile_checkpoint(source, tmp_path / "b.fusedx", classes="aptos").manifest
    assert given.class_source == "aptos, as published"
    other = compile_checkpoint(tiny.write_v1(tmp_path / "c", dataset="CHAOYANG"), tmp_path / "c.fusedx").manifest
    assert other.classes == tuple(f"class {i}" for i in range(5)) and "numbered" in other.class_source
    refused(source, tmp_path / "x", "isic2018 has 7 names, the checkpoint has 5", kind=ConfigError, classes="isic2018")
    refused(source, tmp_path / "x", "pmg has 4 names", kind=ConfigError, classes="pmg")


def test_class_file(tmp_path):
    source, names = tiny.write_v1(tmp_path / "v1"), tmp_path / "names.txt"
    names.write_bytes("\ufeffa\r\n\r\n  b b \r\n\u00e9\n\n d\ne".encode())
    manifest = compiled(source, tmp_path, classes=str(names)).manifest
    assert manifest.classes == ("a", "b b", "\u00e9", "d", "e") and manifest.class_source == "file names.txt"
    odd = tmp_path / os.fsdecode(b"n\xff.txt")
    odd.write_bytes(names.read_bytes())
    assert compile_checkpoint(source, tmp_path / "odd.fusedx", classes=str(odd)).manifest.class_source == "file n\\udcff.txt"


@pytest.mark.parametrize(
    "content, texts",
    [
        (b"a\nb\nc\nd\na\n", ["distinct"]),
        (b"a\nb\nc\n", ["has 3 names", "5 classes"]),
        (b"", ["has 0 names"]),
        (b"\n \n\t\n", ["has 0 names"]),
        (b"\xff\xfe\x00\x80" * 9, ["UTF-8"]),
        (b"a\0\nb\nc\nd\ne\n", ["printable"]),
        (b"\x1b[31mred\nb\nc\nd\ne\n", ["printable"]),
        (b"x" * (2 << 20), ["large"]),
        (None, ["neither a file nor one of aptos, isic2018, pmg"]),
        ("folder", ["neither a file"]),
    ],
)
def test_bad_class_files(content, texts, tmp_path):
    path = tmp_path / "names.txt"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    refused(tiny.write_v1(tmp_path / "v1"), tmp_path, *texts, kind=ConfigError, classes=str(path))


def test_absurd_class_arguments(tmp_path):
    source = tiny.write_v1(tmp_path / "v1")
    for choice in ("", "a" * 5000, "a\0b", "/dev/zero", "APTOS"):
        refused(source, tmp_path, kind=ConfigError, classes=choice)


@pytest.mark.parametrize("setting", [{"task": "regression"}, {"exif_orientation": "rotate"}, {"metrics": {"x": float("nan")}}])
def test_settings_are_checked_before_anything_is_written(setting, tmp_path):
    refused(tiny.write_v1(tmp_path / "v1"), tmp_path, next(iter(setting)), kind=ConfigError, **setting)


def test_every_read_file_is_recorded(tmp_path):
    report = compiled(tiny.write_v1(tmp_path / "v1"), tmp_path)
    assert sorted(report.manifest.source) == ["aux_ckpt_best.pth", "ckpt_best.pth", "config.yml"]


def test_dataset_of_a_strange_type_is_ignored(tmp_path):
    source = tiny.write_v2(tmp_path / "last.ckpt", hparams=tiny.v2_hparams(dataset=7))
    assert compiled(source, tmp_path).manifest.classes[0] == "class 0"


def test_one_misshapen_first_convolution_is_named_alone(tmp_path):
    """The width is what most of the first layers say, or one cut tensor would put the blame on six hundred others."""
    aux = tiny.tensors("v1-small", "aux")
    aux["ds_net.f.0.weight"] = aux["ds_net.f.0.weight"][:3]
    with pytest.raises(CheckpointError, match=r"in 1 places:\n.*ds_net\.f\.0\.weight is \[3, 3, 7, 7\], expected \[8, 3, 7, 7\]"):
        compile_checkpoint(tiny.write_v1(tmp_path / "checkpoint", aux=aux), tmp_path / "m.fusedx")
