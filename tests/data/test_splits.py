"""Counts worked out by hand, and what must not change when something else does."""

from typing import Any

import numpy as np
import pytest

from miyagi.data.splits import allocate, split
from miyagi.errors import UserError
from miyagi.settings import Dataset

NAMES = ["a", "b", "c"]
TRAIN = np.repeat([0, 1, 2], [50, 30, 20])
TEST = np.repeat([0, 1, 2], [10, 6, 4])


def settings(**changes: Any) -> Dataset:
    return Dataset(source="digits", path="x", **changes)


def counts(labels: np.ndarray, chosen: np.ndarray) -> list[int]:
    return np.bincount(labels[chosen], minlength=3).tolist()


def test_counts_by_hand() -> None:
    # 10 % of 50 + 30 + 20 images is 10: 5, 3, 2. The limits: 9 of 45:27:18 is 4.5, 2.7, 1.8; the whole parts are
    # 4, 2, 1, and the two images left over go to the remainders .8 and .7. 5 of 10:6:4 is 2.5, 1.5, 1 -> 3, 1, 1.
    done = split("d", settings(train_limit=9, test_limit=5), NAMES, TRAIN, TEST)
    assert counts(TRAIN, done.train) == [4, 3, 2]
    assert counts(TRAIN, done.val) == [5, 3, 2]
    assert counts(TEST, done.test) == [3, 1, 1]
    assert done.notes == []


def test_test_split_is_cut_off_first() -> None:
    # 20 % of 100 is 20: 10, 6, 4; 10 % of the 80 left is 8: 4, 2.4, 1.6 -> 4, 2, 2.
    done = split("d", settings(), NAMES, TRAIN, None)
    assert counts(TRAIN, done.test) == [10, 6, 4]
    assert counts(TRAIN, done.val) == [4, 2, 2]
    together = np.concatenate([done.train, done.val, done.test])
    assert sorted(together.tolist()) == list(range(100))  # disjoint, and nothing is lost


def test_rare_classes_keep_one_image_each() -> None:
    # 10 of 97 : 2 : 1 would be 10, 0, 0 by rounding.
    labels = np.repeat([0, 1, 2], [970, 20, 10])
    done = split("d", settings(train_limit=10, val_limit=3), NAMES, labels, TEST)
    assert counts(labels, done.train) == [8, 1, 1]
    assert counts(labels, done.val) == [1, 1, 1]


def test_a_single_image_is_trained_on_and_the_manifest_says_so() -> None:
    labels = np.array([0] * 20 + [1] * 20 + [2])
    done = split("d", settings(), NAMES, labels, None)
    assert counts(labels, done.train)[2] == 1
    assert counts(labels, done.val)[2] == counts(labels, done.test)[2] == 0
    assert done.notes == ["val has no image of 1 of 3 classes: c", "test has no image of 1 of 3 classes: c"]


def test_same_seed_same_split_and_another_seed_another() -> None:
    one, two = (split("d", settings(split_seed=3), NAMES, TRAIN, TEST) for _ in range(2))
    other = split("d", settings(split_seed=4), NAMES, TRAIN, TEST)
    for name in ("train", "val", "test"):
        assert np.array_equal(getattr(one, name), getattr(two, name))
        assert not np.array_equal(getattr(one, name), getattr(other, name))
    assert set(one.val) != set(other.val)


def test_a_limit_changes_its_own_split_only_and_nests() -> None:
    full = split("d", settings(), NAMES, TRAIN, None)
    some = split("d", settings(train_limit=40), NAMES, TRAIN, None)
    few = split("d", settings(train_limit=10, val_limit=4), NAMES, TRAIN, None)
    assert np.array_equal(full.val, some.val)
    assert np.array_equal(full.test, some.test)
    assert np.array_equal(full.test, few.test)
    assert set(few.train) < set(some.train) < set(full.train)
    assert set(few.val) < set(full.val)


def test_any_prefix_is_mixed() -> None:
    done = split("d", settings(), NAMES, TRAIN, TEST)
    for labels, chosen in ((TRAIN, done.train[:20]), (TEST, done.test[:10])):
        assert len(set(labels[chosen])) > 1


@pytest.mark.parametrize("name", ["train", "val", "test"])
def test_limit_below_the_number_of_classes(name: str) -> None:
    with pytest.raises(UserError, match=rf"^datasets\.mine\.{name}_limit: 2 is fewer than the 3 classes"):
        split("mine", settings(**{f"{name}_limit": 2}), NAMES, TRAIN, TEST)


def test_limit_above_what_there_is_takes_everything() -> None:
    done = split("d", settings(train_limit=1000, test_limit=1000), NAMES, TRAIN, TEST)
    assert (len(done.train), len(done.test)) == (90, 20)


@pytest.mark.parametrize(("each", "test"), [(1, TEST), (1, None), (2, None)])
def test_too_few_images(each: int, test: np.ndarray | None) -> None:
    with pytest.raises(UserError, match=r"^datasets\.mine: .* too few to give the val split one"):
        split("mine", settings(), NAMES, np.repeat([0, 1, 2], each), test)


def test_three_images_a_class_are_enough() -> None:
    labels = np.repeat([0, 1, 2], 3)
    done = split("d", settings(), NAMES, labels, None)
    assert counts(labels, done.train) == counts(labels, done.val) == counts(labels, done.test) == [1, 1, 1]


def test_ties_go_to_the_first_class_and_bounds_hold() -> None:
    assert allocate(2, [1, 1, 1], [0, 0, 0], [1, 1, 1]) == [1, 1, 0]
    assert allocate(10, [100, 1, 1], [0, 0, 0], [5, 9, 9]) == [5, 3, 2]
    assert allocate(1, [9, 9, 9], [1, 1, 1], [9, 9, 9]) == [1, 1, 1]
    assert allocate(4, [98, 1, 1], [0, 1, 1], [98, 1, 1]) == [2, 1, 1]


def test_many_classes_are_quick() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 300, size=10_000).tolist()
    shares = allocate(sum(sizes) // 7, sizes, [1] * 10_000, sizes)
    assert sum(shares) == sum(sizes) // 7
    assert all(abs(share - size / 7) < 1 or share == 1 for share, size in zip(shares, sizes, strict=True))


def test_validation_images_of_its_own_take_none_from_training() -> None:
    val = np.repeat([0, 2], [7, 4])
    done = split("d", settings(val_limit=5), NAMES, TRAIN, TEST, val)
    assert counts(TRAIN, done.train) == [50, 30, 20]
    assert counts(val, done.val) == [3, 0, 2]  # 5 of 7:4 is 3.2 and 1.8
    assert done.notes == ["val has no image of 1 of 3 classes: b"]
    without = split("d", settings(), NAMES, TRAIN, TEST)
    assert np.array_equal(done.test, without.test)
