"""Order, content and lifetime of what the loader gives, on a beton of real digits in false colours."""

import itertools
import threading

import numpy as np
import psutil
import pytest
import torch

from miyagi.data.betons import read_images, write_beton
from miyagi.data.loader import Loader

TOTAL = 203


@pytest.fixture(scope="module")
def beton(digits, tmp_path_factory):
    """203 images whose channels differ, so that no swap of axes goes unseen."""
    images, labels = digits
    grey = images[:TOTAL, 0].numpy()
    path = tmp_path_factory.mktemp("loader") / "train.beton"
    write_beton(path, np.stack([grey, 255 - grey, grey // 2], axis=-1), labels[:TOTAL].numpy())
    return path


@pytest.fixture(scope="module")
def seeded(beton):
    return Loader(beton, 32, seed=7)


def order(loader, epoch=0):
    return torch.cat([batch.index for batch in loader(epoch)]).tolist()


def test_every_image_exactly_once_in_an_order_of_its_own(seeded):
    orders = [order(seeded, epoch) for epoch in range(3)]
    assert all(sorted(found) == list(range(TOTAL)) for found in orders)
    assert len({tuple(found) for found in [*orders, range(TOTAL)]}) == 4


def test_the_order_depends_on_seed_and_epoch_alone(seeded, beton):
    went_through = [order(seeded, epoch) for epoch in range(6)]
    fresh = Loader(beton, 50, seed=7)  # neither the batch size nor the past counts
    assert order(fresh, 5) == went_through[5]
    assert order(fresh, 2) == went_through[2]
    neighbour = [order(Loader(beton, 32, seed=8), epoch) for epoch in range(2)]
    assert not [found for found in neighbour if found in went_through]


def test_without_a_seed_the_order_is_the_file_s(beton):
    loader = Loader(beton, 64)
    assert order(loader, 0) == order(loader, 3) == list(range(TOTAL))


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({"batch_size": 64}, [64, 64, 64, 11]),
        ({"batch_size": 64, "drop_last": True}, [64, 64, 64]),
        ({"batch_size": 203, "drop_last": True}, [203]),
        ({"batch_size": 500}, [203]),
        ({"batch_size": 500, "drop_last": True}, [203]),  # smaller than a batch: the only one stays
        ({"batch_size": 64, "limit": 100}, [64, 36]),
        ({"batch_size": 64, "limit": 100, "drop_last": True}, [64]),
        ({"batch_size": 64, "limit": 1000}, [64, 64, 64, 11]),
        ({"batch_size": 1, "limit": 3}, [1, 1, 1]),
    ],
)
def test_batches(beton, options, sizes):
    loader = Loader(beton, **options, seed=7)
    for epoch in range(2):
        assert [len(batch.index) for batch in loader(epoch)] == sizes
    assert len(loader) == len(sizes)
    assert loader.images == sum(sizes)


def test_limit_and_drop_last_take_the_first_of_the_order(seeded, beton):
    whole = order(seeded, 4)
    assert order(Loader(beton, 32, seed=7, limit=40), 4) == whole[:40]
    assert order(Loader(beton, 32, seed=7, drop_last=True), 4) == whole[:192]


def test_pixels_and_labels_are_the_file_s(seeded, beton):
    images, labels = read_images(beton)
    for batch in seeded(1):
        assert (batch.image.dtype, batch.label.dtype, batch.index.dtype) == (torch.uint8, torch.int64, torch.int64)
        assert batch.image.shape == (len(batch.index), 3, 32, 32)
        assert np.array_equal(batch.image.numpy().transpose(0, 2, 3, 1), images[batch.index])
        assert np.array_equal(batch.label, labels[batch.index])


def test_tensors_outlive_the_iterator(seeded):
    """FFCV decodes into the same few buffers again and again."""
    kept, copies = [], []
    for batch in seeded(0):
        kept.append(batch)
        copies.append((batch.image.clone(), batch.label.clone(), batch.index.clone()))
    order(seeded, 1)
    for batch, copy in zip(kept, copies, strict=True):
        assert all(map(torch.equal, (batch.image, batch.label, batch.index), copy))


def test_an_abandoned_epoch_leaves_no_trace(seeded, beton):
    expected = order(Loader(beton, 32, seed=7), 2)
    for stop in (1, 3):
        assert len(list(itertools.islice(seeded(0), stop))) == stop
        assert order(seeded, 2) == expected


def test_memory_and_threads_stay(seeded):
    order(seeded)
    process = psutil.Process()
    before, threads, live = process.memory_info().rss, process.num_threads(), threading.active_count()
    for epoch in range(20):
        order(seeded, epoch)
    # The images of twenty epochs are 12.5 MB: what kept them would show.
    assert process.memory_info().rss - before < 8e6
    assert process.num_threads() <= threads + 1  # a reader thread may still be on its way out
    assert threading.active_count() <= live + 1
