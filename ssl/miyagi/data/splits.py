"""Who is trained on, who is chosen by, who is tested on: stratified, and a function of the split seed alone.

Every class has one random order of its images. The test share is taken from its start, validation comes next, and
training has the rest; a limit keeps the first few of what a split has. So a limit on one split never changes another,
and a smaller limit keeps a subset of a larger one's images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

import numpy as np

from miyagi.errors import UserError
from miyagi.settings import Split


@dataclass(frozen=True)
class Splits:
    """Positions of the images of each split, in random order, so that any prefix is a fair sample.

    Attributes:
        train: positions in the source's training images.
        val: likewise, or in its own validation images; disjoint from `train`.
        test: positions in the source's test images; where it has none, in its training images, disjoint from both.
        notes: the classes that validation or test go without.
    """

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    notes: list[str]


def split(
    key: str,
    settings: Split,
    classes: Sequence[str],
    train: np.ndarray,
    test: np.ndarray | None,
    val: np.ndarray | None = None,
) -> Splits:
    """Choose the images of the three splits.

    Args:
        key: the data set's key in `params.yaml`, for error messages.
        settings: fractions, limits and the seed.
        classes: the class names.
        train: labels of the source's training images.
        test: labels of its test images; None: the test split is cut from the training images.
        val: labels of its own validation images; None: the split is cut from the training images.

    Raises:
        UserError: a limit below the number of classes, or too few images to give every split one.
    """
    pools = _shuffled(train, len(classes), settings.split_seed, 0)
    if test is None:
        held, pools = _cut(pools, settings.test_fraction)
    else:
        held = _shuffled(test, len(classes), settings.split_seed, 1)
    if val is None:
        looked_at, pools = _cut(pools, settings.val_fraction)
    else:
        looked_at = _shuffled(val, len(classes), settings.split_seed, 3)
    chosen: dict[str, np.ndarray] = {}
    notes: list[str] = []
    for number, (name, parts, limit) in enumerate(
        [
            ("train", pools, settings.train_limit),
            ("val", looked_at, settings.val_limit),
            ("test", held, settings.test_limit),
        ]
    ):
        missing = [classes[label] for label, part in enumerate(parts) if not len(part)]
        if len(missing) == len(classes):
            raise UserError(
                f"datasets.{key}: {len(train)} images are too few to give the {name} split one; a class that is "
                f"to be in every split needs at least {2 if test is not None else 3}"
            )
        if missing:
            listed = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
            notes.append(f"{name} has no image of {len(missing)} of {len(classes)} classes: {listed}")
        kept = np.concatenate(_limited(parts, limit, f"datasets.{key}.{name}_limit"))
        chosen[name] = _generator(settings.split_seed, 2, number).permutation(kept)
    return Splits(chosen["train"], chosen["val"], chosen["test"], notes)


def allocate(total: int, counts: Sequence[int], low: Sequence[int], high: Sequence[int]) -> list[int]:
    """Share `total` out in proportion to `counts` by largest remainder, each share between `low` and `high`.

    Ties go to the class that comes first. `total` is moved into sum(low)..sum(high) where it lies outside.
    """
    total = min(max(total, sum(low)), sum(high))
    everything = max(sum(counts), 1)
    # Whole numbers throughout: a share is compared as share * everything, so no platform rounds differently.
    shares = [min(max(total * n // everything, lo), hi) for n, lo, hi in zip(counts, low, high, strict=True)]

    def owed(label: int) -> int:
        return total * counts[label] - shares[label] * everything

    short = total - sum(shares)
    step = 1 if short > 0 else -1
    heap = [(-step * owed(label), step * label) for label in range(len(counts))]
    heapify(heap)
    while short:
        label = step * heappop(heap)[1]
        if low[label] <= shares[label] + step <= high[label]:
            shares[label] += step
            short -= step
            heappush(heap, (-step * owed(label), step * label))
    return shares


def _cut(pools: list[np.ndarray], fraction: float) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The first `fraction` of each class, and the rest; a class with two images or more gives at least one."""
    counts = [len(pool) for pool in pools]
    spare = [max(count - 1, 0) for count in counts]  # what a class can give and still be trained on
    shares = allocate(round(fraction * sum(counts)), counts, [min(n, 1) for n in spare], spare)
    return (
        [pool[:share] for pool, share in zip(pools, shares, strict=True)],
        [pool[share:] for pool, share in zip(pools, shares, strict=True)],
    )


def _limited(parts: list[np.ndarray], limit: int | None, key: str) -> list[np.ndarray]:
    counts = [len(part) for part in parts]
    if limit is None or limit >= sum(counts):
        return parts
    present = [min(count, 1) for count in counts]
    if limit < sum(present):
        raise UserError(f"{key}: {limit} is fewer than the {sum(present)} classes; each needs at least one image")
    return [part[:share] for part, share in zip(parts, allocate(limit, counts, present, counts), strict=True)]


def _shuffled(labels: np.ndarray, classes: int, seed: int, stream: int) -> list[np.ndarray]:
    """Each class's positions in a random order of its own."""
    return [_generator(seed, stream, label).permutation(np.flatnonzero(labels == label)) for label in range(classes)]


def _generator(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))
