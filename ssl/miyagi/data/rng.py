"""Counter-based randomness: every draw is a hash of what it is for, so nothing depends on what was drawn before.

A draw is named by (seed, epoch, stream, sample index, position). The same name gives the same number whatever the
batch size, the order, the number of processes, the device or a resume; integer arithmetic is exact everywhere.
The mixer is the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
"""

import math
import zlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

_GAMMA, _M1, _M2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_MASK = (1 << 64) - 1


class Key(NamedTuple):
    """What every draw of one pass over the data shares."""

    seed: int
    epoch: int


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _mix(value: int) -> int:
    value = ((value ^ (value >> 30)) * _M1) & _MASK
    value = ((value ^ (value >> 27)) * _M2) & _MASK
    return value ^ (value >> 31)


def fold(*words: int | str) -> int:
    """One 64-bit word from a name: numbers as they are, strings by their CRC-32."""
    state = 0
    for word in words:
        number = zlib.crc32(word.encode()) if isinstance(word, str) else word
        state = _mix((state + _GAMMA + number) & _MASK)
    return state


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical shift to the right; torch's own shift of int64 keeps the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix_tensor(x: Tensor) -> Tensor:
    x = (x ^ _shift(x, 30)) * _signed(_M1)
    x = (x ^ _shift(x, 27)) * _signed(_M2)
    return x ^ _shift(x, 31)


def bits(key: Key, stream: str, index: Tensor, n: int) -> Tensor:
    """N x n random 64-bit words (as int64) for the samples `index` (N, int64) of one stream."""
    base = _mix_tensor(index + _signed(fold(key.seed, key.epoch, stream)))
    steps = torch.arange(1, n + 1, device=index.device) * _signed(_GAMMA)
    return _mix_tensor(base[:, None] + steps)


def uniform(key: Key, stream: str, index: Tensor, n: int = 1) -> Tensor:
    """N x n float32 draws in [0, 1) for the samples `index` (N, int64), with 24 random bits each.

    Args:
        key: seed and epoch.
        stream: what the draws are for, e.g. "view0/flip"; streams with different names share nothing.
        index: the samples' indices in their split.
        n: draws a sample.
    """
    return _shift(bits(key, stream, index, n), 40).to(torch.float32) * 2.0**-24


def uniforms(key: Key, counts: Mapping[str, int], index: Tensor) -> dict[str, Tensor]:
    """`uniform(key, stream, index, n)` for each stream of `counts` (stream -> n), in one pass over all of them."""
    if not counts:
        return {}
    sizes = list(counts.values())
    names = torch.tensor([_signed(fold(*key, stream)) for stream in counts], device=index.device)
    owner = torch.tensor([stream for stream, n in enumerate(sizes) for _ in range(n)], device=index.device)
    steps = torch.tensor([step for n in sizes for step in range(1, n + 1)], device=index.device) * _signed(_GAMMA)
    base = _mix_tensor(index[:, None] + names).index_select(1, owner)
    draws = _shift(_mix_tensor(base.add_(steps)), 40).to(torch.float32).mul_(2.0**-24)
    return dict(zip(counts, draws.split(sizes, 1), strict=True))


def normal(key: Key, stream: str, index: Tensor, n: int = 1) -> Tensor:
    """N x n float32 draws from the standard normal distribution, by the inverse of its distribution function.

    The arguments are those of `uniform`. 24 bits a draw reach 5.4 standard deviations.
    """
    # In float64: the middles of 2^24 equal parts, which are never 0 and never 1.
    inside = uniform(key, stream, index, n).to(torch.float64) + 2.0**-25
    return (math.sqrt(2) * torch.erfinv(2 * inside - 1)).to(torch.float32)


def permutation(key: Key, stream: str, n: int) -> np.ndarray:
    """A permutation of range(n) (int64): sorts the numbers by their hash, so neighbouring seeds share nothing."""
    state = np.arange(n, dtype=np.uint64) + np.uint64(fold(key.seed, key.epoch, stream))
    with np.errstate(over="ignore"):
        state = (state ^ (state >> np.uint64(30))) * np.uint64(_M1)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(_M2)
    return np.argsort(state ^ (state >> np.uint64(31)), kind="stable")
