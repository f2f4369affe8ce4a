import numpy as np
import torch
from scipy.stats import kstest, norm

from miyagi.data.rng import Key, bits, fold, normal, permutation, uniform, uniforms

MASK = (1 << 64) - 1


def reference(state: int) -> int:
    """SplitMix64's finaliser in plain integers."""
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
    return state ^ (state >> 31)


def test_bits_are_splitmix64():
    key, index = Key(3, 5), torch.tensor([0, 1, 2**40])
    got = bits(key, "view/crop", index, 3)
    for row, i in enumerate(index.tolist()):
        base = reference((i + fold(3, 5, "view/crop")) & MASK)
        for step in range(3):
            assert int(got[row, step]) & MASK == reference((base + (step + 1) * 0x9E3779B97F4A7C15) & MASK)


def test_first_known_value_of_splitmix64():
    # The first output of SplitMix64 seeded with 0 (Vigna's reference code): mix(0 + gamma).
    assert fold(0) == 0xE220A8397B1DCDAF


def test_a_draw_depends_on_its_name_alone():
    whole = uniform(Key(0, 1), "a", torch.arange(100), 4)
    part = uniform(Key(0, 1), "a", torch.tensor([70, 3]), 4)
    assert torch.equal(part, whole[[70, 3]])
    for other in (
        uniform(Key(1, 1), "a", torch.arange(100), 4),
        uniform(Key(0, 2), "a", torch.arange(100), 4),
        uniform(Key(0, 1), "b", torch.arange(100), 4),
    ):
        assert (other == whole).float().mean() < 0.01


def test_draws_are_uniform_and_unrelated():
    draws = uniform(Key(0, 0), "x", torch.arange(50_000), 2).double().numpy()
    assert draws.min() >= 0
    assert draws.max() < 1
    for column in draws.T:
        counts, _ = np.histogram(column, 20, (0, 1))
        chi2 = ((counts - 2500) ** 2 / 2500).sum()
        assert chi2 < 43.8  # 99.9 % point of chi-square with 19 degrees of freedom
    assert abs(np.corrcoef(draws.T)[0, 1]) < 0.02
    assert abs(np.corrcoef(draws[:-1, 0], draws[1:, 0])[0, 1]) < 0.02


def test_permutations():
    first = permutation(Key(0, 0), "order", 1000)
    assert sorted(first) == list(range(1000))
    assert np.array_equal(first, permutation(Key(0, 0), "order", 1000))
    # FFCV's own order is the same for (seed 0, epoch 1) and (seed 1, epoch 0).
    assert (permutation(Key(0, 1), "order", 1000) == permutation(Key(1, 0), "order", 1000)).mean() < 0.02


def test_normal_is_scipy_s_quantile_of_the_same_uniform_draw():
    index = torch.arange(4000)
    drawn = normal(Key(1, 2), "x", index, 5)
    assert drawn.dtype == torch.float32 and torch.isfinite(drawn).all()
    expected = norm.ppf(uniform(Key(1, 2), "x", index, 5).numpy().astype("float64") + 2.0**-25)
    assert np.allclose(drawn, expected, atol=1e-5)
    assert kstest(drawn.flatten().numpy(), "norm").pvalue > 0.01


def test_several_streams_at_once():
    key, index = Key(3, 5), torch.tensor([0, 7, 2**40])
    found = uniforms(key, {"view/crop": 40, "view/flip": 1, "view/jitter": 9}, index)
    assert list(found) == ["view/crop", "view/flip", "view/jitter"]
    for stream, draws in found.items():
        assert torch.equal(draws, uniform(key, stream, index, draws.shape[1]))
    assert uniforms(key, {}, index) == {}
