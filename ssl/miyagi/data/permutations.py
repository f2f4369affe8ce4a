"""A set of permutations that differ as much as they can: the classes of a jigsaw puzzle.

Noroozi and Favaro (ECCV 2016, algorithm 1): one after the other, take the permutation whose smallest Hamming distance
(places that differ) to those already taken is largest. Taken literally that is a distance to all 9! = 362,880
candidates for each of up to 10,000 permutations. Here the distance d is counted down from the number of tiles, and each
permutation taken strikes out those nearer than d, which are the same few thousand changes to any permutation: the same
choice, in a second instead of a minute.
"""

from functools import cache
from itertools import chain, permutations
from math import factorial

import numpy as np

from miyagi.data.rng import Key, permutation


@cache
def permutation_set(number: int, tiles: int = 9) -> np.ndarray:
    """`number` x `tiles` int64, in the order of choice, so a smaller set is the beginning of a larger one.

    Equals are taken in the order of a hash (data/rng.py): in dictionary order the first tile would hardly move.

    Raises:
        ValueError: there are not so many permutations.
    """
    total = factorial(tiles)
    if not 1 <= number <= total:
        raise ValueError(f"{tiles} tiles have {total} permutations, not {number}")
    flat = chain.from_iterable(permutations(range(tiles)))
    every = np.fromiter(flat, np.int64, total * tiles).reshape(total, tiles)
    moved = (every != np.arange(tiles)).sum(1)
    place = tiles ** np.arange(tiles - 1)  # a permutation's own number: its digits but the last
    order = permutation(Key(0, 0), f"permutations of {tiles}", total)
    keys = every[order, :-1] @ place
    taken: list[np.ndarray] = []
    for distance in range(tiles, 1, -1):
        near = every[moved < distance, :-1]  # p[near] are the permutations nearer than `distance` to p, and p itself
        struck = np.zeros(tiles ** (tiles - 1), dtype=bool)
        for chosen in taken:
            struck[chosen[near] @ place] = True
        for candidate in np.flatnonzero(~struck[keys]):
            if not struck[keys[candidate]]:
                taken.append(every[order[candidate]])
                struck[taken[-1][near] @ place] = True
                if len(taken) == number:
                    return np.stack(taken)
    raise AssertionError("unreachable: at distance 2 nothing but what is taken is struck out")
