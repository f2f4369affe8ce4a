"""Order, content and lifetime of what the loader gives, on a beton of real digits in false colours.

A second beton holds pieces of a real photograph, each of its own shape, as JPEGs and raw.
"""

import itertools
import json
import subprocess
import sys
import threading

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from miyagi.data import threads
from miyagi.data.betons import Beton, read_images, write_beton
from miyagi.data.loader import Cut, Loader, _pool, shares
from miyagi.data.rng import Key, uniform
from miyagi.errors import UserError

TOTAL = 203
SHAPED = 61


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


@pytest.fixture(scope="module")
def shaped(tmp_path_factory):
    """61 images of 40 to 119 by 50 to 139 pixels, every tenth of 60 x 60."""
    whole, rng = load_sample_image("flower.jpg"), np.random.default_rng(0)
    shapes = [(60, 60) if i % 10 == 0 else rng.integers((40, 50), (120, 140)) for i in range(SHAPED)]
    images = [whole[3 * i : 3 * i + height, 5 * i : 5 * i + width] for i, (height, width) in enumerate(shapes)]
    path = tmp_path_factory.mktemp("shaped") / "train.beton"
    write_beton(path, images, np.arange(SHAPED) % 7, largest=3 * 140 * 140, jpeg_quality=90)
    return path


def cuts(epoch=0, sizes=(48, 24)):
    """Two random crops of every image, drawn for each by its index."""

    def boxes(view, heights, widths, index):
        drawn = uniform(Key(5, epoch), f"test{view}", index, 3)
        side = (torch.minimum(heights, widths) * (0.3 + 0.7 * drawn[:, 0])).long()
        top = ((heights - side + 1) * drawn[:, 1]).long()
        left = ((widths - side + 1) * drawn[:, 2]).long()
        return torch.stack([top, left, side, (side * 0.8).long()], 1)

    return [Cut(size, lambda *shape, view=view: boxes(view, *shape)) for view, size in enumerate(sizes)]


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


def test_a_subset_alone_under_its_own_indices(beton):
    subset = np.array([150, 3, 77, 202, 8])
    assert order(Loader(beton, 2, subset=subset)) == subset.tolist()
    loader = Loader(beton, 2, subset=subset, seed=7)
    orders = [order(loader, epoch) for epoch in range(4)]
    assert all(sorted(found) == sorted(subset) for found in orders)
    assert len({tuple(found) for found in orders}) > 1
    pixels, labels = read_images(beton)
    for batch in loader(1):
        assert np.array_equal(batch.label, labels[batch.index.numpy()])
        assert np.array_equal(batch.image.permute(0, 2, 3, 1), pixels[batch.index.numpy()])
    assert [len(batch.index) for batch in Loader(beton, 2, subset=subset, seed=7, drop_last=True)(0)] == [2, 2]
    assert order(Loader(beton, 2, subset=subset, limit=3)) == [150, 3, 77]


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
    before, started, live = process.memory_info().rss, process.num_threads(), threading.active_count()
    for epoch in range(20):
        order(seeded, epoch)
    # The images of twenty epochs are 12.5 MB: what kept them would show.
    assert process.memory_info().rss - before < 8e6
    assert process.num_threads() <= started
    assert threading.active_count() == live


def test_centre_squares_of_images_of_other_shapes(shaped):
    """What an evaluation sees: Pillow's crop and resize of what the file holds."""
    beton = Beton(shaped)
    batches = list(Loader(shaped, 16, size=32)())
    assert [len(batch.index) for batch in batches] == [16, 16, 16, 13]
    assert torch.cat([batch.index for batch in batches]).tolist() == list(range(SHAPED))
    assert torch.cat([batch.label for batch in batches]).tolist() == beton.labels.tolist()
    found = torch.cat([batch.image for batch in batches])
    assert (found.shape, found.dtype) == ((SHAPED, 3, 32, 32), torch.uint8)
    assert not any(batch.views for batch in batches)
    for i in range(SHAPED):
        height, width = beton[i].shape[:2]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        part = Image.fromarray(beton[i][top : top + side, left : left + side])
        expected = np.asarray(part.resize((32, 32), Image.Resampling.BILINEAR)).astype(int)
        assert np.abs(found[i].numpy().transpose(1, 2, 0) - expected).max() <= 1


def test_size_of_images_of_other_shapes_must_be_said(shaped):
    with pytest.raises(ValueError, match="differ in size; say how large"):
        Loader(shaped, 16)


def test_another_size_than_the_stored_squares(beton):
    """Equal squares go through the decoder as well, where they should come in another size."""
    images, _ = read_images(beton)
    (batch,) = Loader(beton, 500, size=20)()
    for i in (0, 77, 202):
        expected = np.asarray(Image.fromarray(images[i]).resize((20, 20), Image.Resampling.BILINEAR)).astype(int)
        assert np.abs(batch.image[i].numpy().transpose(1, 2, 0) - expected).max() <= 1


def seen(loaders, epoch=0):
    """Image -> its label and the pixels of its two views, from all loaders together."""
    found = {}
    for loader in loaders:
        for batch in loader(epoch, cuts(epoch)):
            assert [tuple(view.shape[1:]) for view in batch.views] == [(3, 48, 48), (3, 24, 24)]
            for i, index in enumerate(batch.index.tolist()):
                assert index not in found
                found[index] = (int(batch.label[i]), *(view[i].numpy().tobytes() for view in batch.views))
    return found


def test_views_are_the_boxes_that_were_asked_for(shaped):
    beton = Beton(shaped)
    index = torch.arange(SHAPED)
    boxes = [cut.boxes(*map(torch.from_numpy, beton.shapes(slice(None))), index).tolist() for cut in cuts()]
    for batch in Loader(shaped, 16, seed=3, size=48)(0, cuts()):
        for view, chosen in zip(batch.views, boxes, strict=True):
            size = view.shape[2]
            for pixels, i in zip(view.numpy(), batch.index.tolist(), strict=True):
                top, left, height, width = chosen[i]
                part = Image.fromarray(beton[i][top : top + height, left : left + width])
                expected = np.asarray(part.resize((size, size), Image.Resampling.BILINEAR)).astype(int)
                assert np.abs(pixels.transpose(1, 2, 0) - expected).max() <= 1


def test_the_same_views_whatever_the_batch_the_workers_the_shares_and_the_past(shaped):
    plain = Loader(shaped, 16, seed=3, size=48)
    first, second = seen([plain], 0), seen([plain], 1)
    assert len(first) == SHAPED
    assert all(first[i][1:] != second[i][1:] for i in first)
    assert all(first[i][0] == second[i][0] for i in first)
    for others in (
        [Loader(shaped, 7, seed=3, size=48, workers=3)],
        [Loader(shaped, 500, seed=4, size=48, workers=2)],
        [Loader(shaped, 5, seed=3, size=48, rank=rank, world=2) for rank in range(2)],
    ):
        found = seen(others, 1)
        assert set(found) <= set(second)
        assert len(found) >= SHAPED - 1  # two processes leave out a single last one
        assert all(found[i] == second[i] for i in found)


def test_one_decode_an_image_for_all_views(shaped, monkeypatch):
    decoded = []
    read = Beton.__getitem__
    monkeypatch.setattr(Beton, "__getitem__", lambda self, i: decoded.append(i) or read(self, i))
    seen([Loader(shaped, 16, seed=3, size=48, workers=2)])
    assert sorted(decoded) == list(range(SHAPED))


def test_decoding_runs_one_batch_ahead_and_no_further(shaped, monkeypatch):
    decoded = []
    read = Beton.__getitem__
    monkeypatch.setattr(Beton, "__getitem__", lambda self, i: decoded.append(i) or read(self, i))
    for epoch in range(2):
        _pool(1).submit(int).result()  # the thread has ended the image that an abandoned epoch left it at
        decoded.clear()
        batches = Loader(shaped, 8, size=48)(epoch, cuts())
        next(batches)
        batches.close()  # an abandoned epoch ends, whatever is on its way
        assert 8 <= len(decoded) <= 16


def test_a_damaged_image_ends_the_epoch(shaped, tmp_path):
    (tmp_path / "x.beton").write_bytes(shaped.read_bytes())
    place = Beton(shaped)._places[33]
    whole = np.memmap(tmp_path / "x.beton", np.uint8, "r+")
    whole[int(place["start"]) : int(place["start"]) + 500] = 0
    whole.flush()
    batches = Loader(tmp_path / "x.beton", 8, size=48, workers=2)(0, cuts())
    with pytest.raises(UserError, match="image 33 is damaged"):
        list(batches)


@pytest.mark.parametrize(
    ("images", "batch", "world", "drop_last", "expected"),
    [
        (20, 4, 2, False, [[4, 4, 2], [4, 4, 2]]),
        (20, 4, 2, True, [[4, 4], [4, 4]]),
        (23, 4, 2, False, [[4, 4, 4], [4, 4, 3]]),
        (17, 4, 2, False, [[4, 4], [4, 4]]),  # the last one cannot be shared
        (24, 4, 3, True, [[4, 4]] * 3),
        (5, 4, 2, True, [[3], [2]]),  # smaller than a batch: the only one stays
        (7, 100, 3, False, [[3], [2], [2]]),
        (9, 4, 1, False, [[4, 4, 1]]),
    ],
)
def test_shares(images, batch, world, drop_last, expected):
    found = [shares(images, batch, drop_last, rank, world) for rank in range(world)]
    assert [[stop - start for start, stop in each] for each in found] == expected
    (alone,) = [shares(images, batch * world, drop_last, 0, 1)]
    for step, stretches in enumerate(zip(*found, strict=True)):
        covered = [i for start, stop in stretches for i in range(start, stop)]
        assert covered == list(range(*alone[step]))  # in order, none twice
    assert len(alone) - len(found[0]) == (
        images % (batch * world) < world and images % (batch * world) > 0 and not drop_last
    )


@pytest.mark.parametrize("world", [2, 3])
def test_processes_together_see_the_batches_of_one(beton, world):
    alone = Loader(beton, 12 * world, seed=7)
    together = [Loader(beton, 12, seed=7, rank=rank, world=world) for rank in range(world)]
    assert len({len(loader) for loader in together}) == 1
    for epoch in range(2):
        for batch, *parts in zip(alone(epoch), *(loader(epoch) for loader in together), strict=True):
            assert torch.equal(torch.cat([part.index for part in parts]), batch.index)
            assert torch.equal(torch.cat([part.image for part in parts]), batch.image)
            assert torch.equal(torch.cat([part.label for part in parts]), batch.label)


def test_more_processes_than_images(beton):
    with pytest.raises(UserError, match="3 images cannot be shared by 4 processes"):
        Loader(beton, 8, limit=3, rank=1, world=4)


MEASURE = """
import json, sys, time
from pathlib import Path
import psutil, torch
start = time.perf_counter()
from miyagi.data.loader import Cut, Loader
folder, shaped = Path(sys.argv[1]), Path(sys.argv[2])
batch = next(Loader(folder / "2000.beton", 256, seed=0)())
first = [time.perf_counter() - start, len(batch.index), "numba" in sys.modules, "ffcv" in sys.modules]

def whole(h, w, i):
    return torch.stack([0 * h, 0 * w, h, w], 1)

def anonymous():
    (line,) = (line for line in open("/proc/self/status") if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024

def peak(file, batch, epochs):
    rss, most, start = [], 0, anonymous()
    loader = Loader(file, batch, seed=0, workers=2, size=48)
    for epoch in range(epochs):
        for raw in loader(epoch, [Cut(48, whole)] * 2):
            most = max(most, anonymous() - start)
        del raw
        rss.append(psutil.Process().memory_info().rss)
    return rss[-1] - rss[1], most

flat = [peak(file, 64, 20)[0] for file in (folder / "2000.beton", shaped)]
grows = [peak(folder / f"{n}.beton", batch, 2)[1] for n, batch in ((2000, 64), (16000, 64), (16000, 2000))]
print(json.dumps([first, flat, grows]))
"""


@pytest.fixture(scope="module")
def measured(shaped, tmp_path_factory):
    """A fresh process's figures, on 2,000 and 16,000 squares of 48 pixels (14 and 111 MB) and on `shaped`."""
    folder = tmp_path_factory.mktemp("many")
    for n in (2000, 16000):
        write_beton(folder / f"{n}.beton", np.broadcast_to(np.uint8(7), (n, 48, 48, 3)), np.zeros(n, int))
    command = [sys.executable, "-c", MEASURE, str(folder), str(shaped)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_first_batch_of_a_fresh_process(measured):
    """Nothing is compiled: a batch is there as soon as it is asked for."""
    seconds, *found = measured[0]
    assert seconds < 5
    assert found == [256, False, False]


def test_memory_is_flat_over_twenty_epochs(measured):
    squares, others = measured[1]
    # Eighteen epochs that kept a tenth of what they gave (14 MB; 0.8 MB) would show.
    assert squares < 18 * 0.1 * 14e6
    assert others < 18 * 0.1 * 0.8e6 + 1e6


def test_memory_grows_with_the_batch_and_not_with_the_data(measured):
    few, much, wide = measured[2]
    assert much - few < 4e6  # of 97 MB more data; eight bytes an image for the order
    assert wide - much > 10e6  # a batch of 2,000 is 14 MB


def test_a_long_wait_is_told_once_a_process(beton, monkeypatch, capsys):
    monkeypatch.setattr(threads, "WORTH_TELLING", 0.0)
    monkeypatch.setattr(Loader, "_started", False)
    for _ in range(2):
        order(Loader(beton, 32))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("miyagi: the first batch of train.beton took 0.")
