import itertools

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from miyagi.data.permutations import permutation_set
from miyagi.data.rng import Key, permutation


def literal(number, tiles):
    """The greedy choice as the paper writes it: distances of all candidates to all that is taken."""
    every = np.array(list(itertools.permutations(range(tiles))), dtype=np.int8)
    every = every[permutation(Key(0, 0), f"permutations of {tiles}", len(every))]
    taken, smallest = [every[0]], np.full(len(every), tiles + 1)
    while len(taken) < number:
        smallest = np.minimum(smallest, (every != taken[-1]).sum(1))
        taken.append(every[smallest.argmax()])
    return np.array(taken)


@pytest.mark.parametrize(("number", "tiles"), [(24, 4), (120, 5), (500, 6), (40, 9)])
def test_the_short_cut_makes_the_greedy_choice(number, tiles):
    assert np.array_equal(permutation_set(number, tiles), literal(number, tiles))


def test_distances():
    """At best 9 permutations differ everywhere, 72 in 8 places, 504 in 7 and 3024 in 6; greedy finds some of these."""
    chosen = permutation_set(1000)
    smallest = {k: round(9 * pdist(chosen[:k], "hamming").min()) for k in (8, 10, 80, 300, 1000)}
    assert smallest == {8: 9, 10: 8, 80: 7, 300: 6, 1000: 5}
    rng = np.random.default_rng(0)
    drawn = np.array([rng.permutation(9) for _ in range(1000)])
    assert round(9 * pdist(drawn, "hamming").min()) < 5
    # Every place sees every tile about equally often: a choice in dictionary order would not.
    counts = np.array([np.bincount(chosen[:100, place], minlength=9) for place in range(9)])
    assert counts.min() >= 5 and counts.max() <= 18


def test_ten_thousand():
    chosen = permutation_set(10_000)
    assert (chosen.shape, chosen.dtype) == ((10_000, 9), np.int64)
    assert np.array_equal(np.sort(chosen, 1), np.tile(np.arange(9), (10_000, 1)))
    assert len(np.unique(chosen, axis=0)) == 10_000
    assert np.array_equal(chosen[:100], permutation_set(100))  # a smaller set is the beginning of a larger one


@pytest.mark.parametrize("number", [0, 25])
def test_as_many_as_there_are(number):
    with pytest.raises(ValueError, match=f"4 tiles have 24 permutations, not {number}"):
        permutation_set(number, 4)
