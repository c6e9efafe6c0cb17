"""What a compiled model says about itself: manifest.json as frozen dataclasses, validated once, unknown keys refused."""

from __future__ import annotations

import difflib
import json
import math
import types
import typing
from collections.abc import Iterable
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from typing import Any, NoReturn

import numpy as np

from fusedx.engine.errors import ConfigError, ModelFormatError
from fusedx.engine.limits import MAX_DRAWS, MAX_SEED, SAMPLER_KINDS
from fusedx.engine.precision_evidence import PrecisionEvidence
from fusedx.engine.schedule import Schedule, ddim_coefficients, posterior_coefficients
from fusedx.engine.temperature import Temperature
from fusedx.kernels.conditional_layer.packed import FORMATS

FORMAT = "fusedx-compiled-model"
FORMAT_VERSION = 1

IMAGE_SIZE = 224
GRID = 7
REGIONS = 6
MAP_POINTS = 6
FAMILIES = ("diffmic-v1", "diffmic-v2")
BACKBONES = ("resnet18", "resnet50")
#: Of the denoiser's weights, and of the encoder's arithmetic.
PRECISIONS = FORMATS
ENCODER_PRECISIONS = ("fp32", "int8")
TASKS = ("multiclass", "multilabel")
MAX_CLASSES = 1000
_MAX_NESTING = 32


@dataclass(frozen=True, slots=True)
class Network:
    """Shape of the networks.  Published values: backbone_width 64, feature_dim 6144, ViT 384 wide and 12 deep."""

    family: str
    num_classes: int
    feature_dim: int
    prior_arch: str
    feature_arch: str
    backbone_width: int
    include_guidance: bool = True
    noise_prior: bool = False
    vit_width: int = 0
    vit_depth: int = 0

    def __post_init__(self) -> None:
        _one_of("family", self.family, FAMILIES)
        _one_of("prior_arch", self.prior_arch, BACKBONES)
        _one_of("feature_arch", self.feature_arch, BACKBONES)
        _within("num_classes", self.num_classes, 2, MAX_CLASSES)
        _within("feature_dim", self.feature_dim, 1, 1 << 17)
        _within("backbone_width", self.backbone_width, 1, 4096)
        if self.family == "diffmic-v2":
            _within("vit_width", self.vit_width, 64, 1 << 14)
            _within("vit_depth", self.vit_depth, 1, 200)
            if self.vit_width % 64:
                raise ConfigError(f"vit_width must be a multiple of 64 (the head width), got {self.vit_width}")
            if self.noise_prior or not self.include_guidance:
                raise ConfigError("diffmic-v2 has neither noise_prior nor include_guidance: false")


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How decoded pixels become the network's input; engine/preprocess.py does exactly this, so other values are refused.

    ``exif_orientation`` is the one choice: ignore (as published) or apply.
    """

    color: str = "RGB, 8 bits, alpha dropped"
    crop: str = "center square, corner at round((width - side) / 2), round((height - side) / 2), half to even"
    size: int = IMAGE_SIZE
    resize: str = "bilinear, antialiased, on 8-bit values, horizontal pass first, as Pillow"
    scale: str = "value / 255, then (value - mean) / std, float32"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    exif_orientation: str = "ignore"

    def __post_init__(self) -> None:
        _one_of("exif_orientation", self.exif_orientation, ("ignore", "apply"))
        for f in fields(self):
            if f.name != "exif_orientation" and getattr(self, f.name) != f.default:
                raise ConfigError(f"preprocessing.{f.name} is {_short(getattr(self, f.name))}; this fusedx computes {f.default!r} only")


@dataclass(frozen=True, slots=True)
class FileEntry:
    """Size and SHA-256 of one file."""

    sha256: str
    bytes: int

    def __post_init__(self) -> None:
        if len(self.sha256) != 64 or set(self.sha256) - set("0123456789abcdef"):
            raise ConfigError(f"not a SHA-256 in hexadecimal: {self.sha256[:80]!r}")
        _within("bytes", self.bytes, 0, 1 << 50)


@dataclass(frozen=True, slots=True)
class SelfTest:
    """What the model answered for the procedural image (``fusedx.self_test.image``) when it was compiled.

    tolerance: by how much another machine's probabilities may differ from these, each.
    """

    seed: int
    draws: int
    probabilities: tuple[float, ...]
    tolerance: float

    def __post_init__(self) -> None:
        _within("self_test.seed", self.seed, 0, MAX_SEED)
        _within("self_test.draws", self.draws, 1, MAX_DRAWS)
        if not all(0.0 <= p <= 1.0 for p in self.probabilities):
            raise ConfigError(f"self_test.probabilities must be from 0 to 1, got {_short(list(self.probabilities))}")
        if not 0.0 < self.tolerance <= 1.0:
            raise ConfigError(f"self_test.tolerance must be above 0 and at most 1, got {_short(self.tolerance)}")


@dataclass(frozen=True, slots=True)
class Manifest:
    """manifest.json.  ``probabilities`` and ``metrics`` are statements for people; everything else is acted upon."""

    network: Network
    task: str
    classes: tuple[str, ...]
    class_source: str
    schedule: Schedule
    preprocessing: Preprocessing
    probabilities: str
    precision: str
    default_draws: int
    default_seed: int
    source: dict[str, FileEntry]
    files: dict[str, FileEntry]
    versions: dict[str, str]
    notes: tuple[str, ...] = ()
    metrics: dict[str, Any] = field(default_factory=dict)
    encoder_precision: str = "fp32"
    self_test: SelfTest | None = None
    default_sampler: str = "auto"
    temperature: Temperature | None = None
    precision_evidence: PrecisionEvidence | None = None
    format: str = FORMAT
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        _one_of("task", self.task, TASKS)
        _one_of("precision", self.precision, PRECISIONS)
        _one_of("encoder_precision", self.encoder_precision, ENCODER_PRECISIONS)
        _within("default_draws", self.default_draws, 1, MAX_DRAWS)
        _within("default_seed", self.default_seed, 0, MAX_SEED)
        _one_of("default_sampler", self.default_sampler, SAMPLER_KINDS)
        if len(self.classes) != self.network.num_classes:
            raise ConfigError(f"{len(self.classes)} class names for {self.network.num_classes} classes")
        if len(set(self.classes)) != len(self.classes) or not all(c.strip() and c.isprintable() for c in self.classes):
            raise ConfigError(f"class names must be distinct, printable and not empty: {str(list(self.classes))[:500]}")
        if self.self_test is not None and len(self.self_test.probabilities) != self.network.num_classes:
            raise ConfigError(f"self_test has {len(self.self_test.probabilities)} probabilities for {self.network.num_classes} classes")
        if self.temperature is not None and self.task != "multiclass":
            raise ConfigError("a temperature is for models with one label a picture, and the scores of a multi-label one pass no softmax")
        if self.precision_evidence is not None:
            self.precision_evidence.check(self.precision, self.encoder_precision)
        check_chain(self.network, self.schedule)

    @property
    def family(self) -> str:
        """diffmic-v1 or diffmic-v2."""
        return self.network.family

    def to_json(self) -> str:
        """Text of manifest.json; equal manifests give equal bytes.  ConfigError where ``metrics`` is not plain JSON."""
        data = asdict(self)
        family = data["network"].pop("family")
        head = {"format": data.pop("format"), "format_version": data.pop("format_version"), "family": family}
        try:
            return json.dumps(head | data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        except (ValueError, TypeError) as error:
            raise ConfigError(f"metrics cannot be written as JSON: {error}") from None

    @staticmethod
    def from_json(text: str) -> Manifest:
        """Parse and validate; ModelFormatError says which key is wrong, and a newer format is refused first."""
        try:
            data = parse_json(text)
        except ValueError as error:
            raise ModelFormatError(f"manifest.json is not JSON: {error}") from None
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ModelFormatError(f"manifest.json does not describe a fusedx model (its \"format\" is not {FORMAT!r})")
        version = data.get("format_version")
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise ModelFormatError(f"manifest.json has no valid format_version: {_short(version)}")
        if version > FORMAT_VERSION:
            raise ModelFormatError(
                f"the model has format {_short(version)} and this fusedx reads up to {FORMAT_VERSION}: "
                "upgrade fusedx, or compile the checkpoint again with this version"
            )
        family = data.pop("family", None)
        if isinstance(data.get("network"), dict):
            if "family" in data["network"]:
                raise ModelFormatError("manifest.json: manifest.network has an unknown key 'family'; it belongs to the top level")
            data["network"] = {"family": family} | data["network"]
        try:
            return from_dict(Manifest, data, "manifest")
        except ConfigError as error:
            raise ModelFormatError(f"manifest.json: {error}") from None


def check_chain(network: Network, schedule: Schedule) -> None:
    """ConfigError where the network's sampler cannot run this schedule."""
    with np.errstate(all="ignore"):
        if network.family == "diffmic-v1":
            posterior_coefficients(schedule)
            return
        if schedule.beta_schedule != "linear":
            raise ConfigError(f"beta_schedule {schedule.beta_schedule!r}: DiffMIC-v2's sampler is specified for linear alone")
        if not (ddim_coefficients(schedule).sqrt_alpha_bar > 0).all():
            raise ConfigError("the schedule's alpha_bar reaches 0, and DDIM divides by it; use smaller betas or fewer timesteps")


def parse_json(text: str) -> Any:
    """JSON as RFC 8259 means it: no NaN or Infinity, no key twice, no lone surrogates, and not nested beyond reason.  ValueError."""

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not a JSON number")

    def number(digits: str) -> float:
        value = float(digits)
        if not math.isfinite(value):
            raise ValueError(f"{digits[:40]} is too large")
        return value

    def unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key, value in pairs:
            if key in mapping:
                raise ValueError(f"the key {_short(key)} is given twice")
            mapping[key] = value
        return mapping

    try:
        data = json.loads(text, parse_constant=refuse, parse_float=number, object_pairs_hook=unique)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    level = [data]
    for _ in range(_MAX_NESTING):
        level = [v for parent in level for v in _children(parent)]
        if not level:
            return data
    raise ValueError("it is nested too deeply")


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, str):
        value.encode()  # refuses lone surrogates: UnicodeEncodeError is a ValueError
    return [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ()


def _short(value: object) -> str:
    """repr for a message: bounded, and never so many digits that Python refuses."""
    if isinstance(value, int) and value.bit_length() > 200:
        return "an integer of many digits"
    text = repr(value)
    return text if len(text) <= 100 else text[:100] + "..."


def from_dict(kind: Any, value: Any, where: str) -> Any:
    """Build a value of type ``kind`` from parsed JSON; ConfigError names the place, the type wanted and the nearest key."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (typing.Union, types.UnionType):  # X | None, the only one there is
        return None if value is None else from_dict(arguments[0], value, where)
    if is_dataclass(kind):
        return _dataclass_from(kind, value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise ConfigError(f"{where} must be a list, got {type(value).__name__}")
        if arguments[-1] is not Ellipsis and len(value) != len(arguments):
            raise ConfigError(f"{where} must have {len(arguments)} entries, got {len(value)}")
        return tuple(from_dict(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{where} must be an object, got {type(value).__name__}")
        return {k: from_dict(arguments[1], v, f"{where}.{k}") for k, v in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool) and value.bit_length() < 1000:
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(f"{where} must be {kind.__name__}, got {type(value).__name__}")
    return value


def _dataclass_from(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ConfigError(f"{where} must be an object, got {type(value).__name__}")
    hints = typing.get_type_hints(kind)
    known = {f.name: f for f in fields(kind)}
    for key in value:
        if key not in known:
            near = difflib.get_close_matches(key[:80], known, n=1)
            raise ConfigError(f"{where} has an unknown key {_short(key)}" + (f"; did you mean {near[0]!r}?" if near else ""))
    missing = [n for n, f in known.items() if n not in value and f.default is MISSING and f.default_factory is MISSING]
    if missing:
        raise ConfigError(f"{where} lacks {', '.join(missing)}")
    return kind(**{k: from_dict(hints[k], v, f"{where}.{k}") for k, v in value.items()})


def _one_of(name: str, value: object, allowed: typing.Collection[object]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name} must be one of {', '.join(map(str, allowed))}; got {_short(value)}")


def _within(name: str, value: int, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ConfigError(f"{name} must be an integer from {low} to {high}, got {_short(value)}")

