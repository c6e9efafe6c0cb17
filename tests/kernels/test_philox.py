"""Philox against the published vectors; logarithm, cosine and normal numbers against higher precision; C++ bit for bit."""

import numpy as np
import pytest

from fusedx.kernels import native_module, philox
from fusedx.kernels.philox import reference

native = pytest.mark.skipif(native_module.native is None, reason=f"fusedx._native is not built: {native_module.reason}")

KNOWN = [  # Random123's kat_vectors: counter, key, words
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> np.ndarray:
    return np.array([int(w, 16) for w in text.split()], np.uint32)


def draw(n: int, seed: int = 7) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2**32, 2, np.uint32), rng.integers(0, 2**32, (n, 4), np.uint32)


def ulps(got: np.ndarray, exact: list) -> float:
    """Largest distance from mpmath values, in units in the last place of the exact value."""
    return max(float(abs(float(e - float(g)))) / np.spacing(abs(float(e))) for g, e in zip(got, exact, strict=True))


@pytest.mark.parametrize("counter, key, expected", KNOWN)
def test_known_answers(counter, key, expected):
    assert np.array_equal(reference.philox4x32(words(counter), words(key)), words(expected))


@native
@pytest.mark.parametrize("counter, key, expected", KNOWN)
def test_known_answers_native(counter, key, expected):
    assert np.array_equal(native_module.native.philox4x32(words(key), words(counter)[None])[0], words(expected))


def test_logarithm_within_two_ulp():
    mpmath = pytest.importorskip("mpmath")
    rng = np.random.default_rng(1)
    x = np.concatenate([
        [1.0, 0.5, 1 - 2.0**-53, 2.0**-53, np.sqrt(0.5), np.nextafter(np.sqrt(0.5), 0), 0.75],
        rng.random(2000) + 2.0**-53,
        1 - rng.random(500) * 2.0 ** -rng.integers(1, 52, 500),
        np.ldexp(rng.random(500) + 0.5, -rng.integers(1, 50, 500)),
    ])
    x = np.clip(x, 2.0**-53, 1.0)
    exact = [mpmath.log(mpmath.mpf(float(v))) for v in x]
    assert reference.ln(np.array([1.0]))[0] == 0.0
    keep = x != 1.0
    assert ulps(reference.ln(x)[keep], [e for e, k in zip(exact, keep, strict=True) if k]) <= 2


def test_cosine_within_two_ulp_away_from_its_zeros():
    mpmath = pytest.importorskip("mpmath")
    mpmath.mp.dps = 40
    rng = np.random.default_rng(2)
    u = np.concatenate([np.arange(64) / 64, rng.random(2000), [1 - 2.0**-53, 2.0**-53, 0.25 + 2.0**-53, 0.75 - 2.0**-53]])
    exact = [mpmath.cospi(2 * mpmath.mpf(float(v))) for v in u]
    zero = np.array([e == 0 for e in exact])
    assert np.all(reference.cos_turns(u)[zero] == 0)
    assert ulps(reference.cos_turns(u)[~zero], [e for e, z in zip(exact, zero, strict=True) if not z]) <= 2.5


def test_uniform_is_the_top_53_bits():
    w = words("ffffffff ffffffff 0 0")
    assert reference.uniform(w) == 1 - 2.0**-53
    assert reference.uniform(words("0 7ff 0 0")) == 0
    assert reference.uniform(words("80000000 0 0 0")) == 0.5


def test_normal_extremes_are_finite():
    w = np.stack([words("ffffffff ffffffff 0 0"), words("0 0 0 0"), words("0 0 80000000 0")])
    assert np.all(np.isfinite(reference.normal(w)))
    assert reference.normal(w)[0] == pytest.approx(np.sqrt(2 * 53 * np.log(2)), rel=1e-15)


def test_normal_has_the_moments_of_a_normal():
    x = philox.normal(*draw(200_000))
    assert abs(x.mean()) < 0.01 and abs(x.var() - 1) < 0.02 and abs((x**3).mean()) < 0.04 and abs((x**4).mean() - 3) < 0.1


@native
@pytest.mark.parametrize("n", [0, 1, 3, 100_003])
def test_native_has_the_bits_of_the_reference(n):
    key, counters = draw(n)
    if n > 3:  # corners that random words never meet
        counters[:4] = [[0] * 4, [2**32 - 1] * 4, [0, 0, 2**31, 0], [1, 0, 0, 0]]
    expected = reference.philox4x32(counters, key)
    assert np.array_equal(native_module.native.philox4x32(key, counters), expected)
    assert np.array_equal(philox.uniform(key, counters).view(np.uint64), reference.uniform(expected).view(np.uint64))
    assert np.array_equal(philox.normal(key, counters).view(np.uint64), reference.normal(expected).view(np.uint64))


def test_without_native_the_public_functions_give_the_same_bits(monkeypatch):
    key, counters = draw(1000)
    expected = philox.normal(key, counters), philox.uniform(key, counters)
    monkeypatch.setattr(philox, "native", None)
    assert np.array_equal(philox.normal(key, counters), expected[0])
    assert np.array_equal(philox.uniform(key, counters), expected[1])


def test_order_and_strides_do_not_matter():
    key, counters = draw(64)
    assert np.array_equal(philox.normal(key, counters[::-2]), philox.normal(key, counters)[::-2])


@pytest.mark.parametrize("key, counters, name", [
    (np.zeros(2, np.int64), np.zeros((1, 4), np.uint32), "key"),
    (np.zeros(3, np.uint32), np.zeros((1, 4), np.uint32), "key"),
    (np.zeros(2, np.uint32), np.zeros(4, np.uint32), "counters"),
    (np.zeros(2, np.uint32), [[0, 0, 0, 0]], "counters"),
])
def test_refusals_name_the_argument(key, counters, name):
    with pytest.raises(ValueError, match=f"^{name}: expected uint32"):
        philox.normal(key, counters)
