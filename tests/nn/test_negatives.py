import os
import sys
from pathlib import Path
from subprocess import PIPE, Popen

import pytest
import torch
from torch.nn.functional import normalize

from miyagi.data.rng import Key
from miyagi.errors import UserError
from miyagi.nn.negatives import FromBank, FromQueue, InBatch, build
from miyagi.settings import ContrastiveSettings

KEY = Key(0, 0)
INDEX = torch.tensor([5, 2, 9, 30])


def part(kind, n=40, width=3, **settings):
    torch.manual_seed(0)
    return build(ContrastiveSettings(negatives=kind, **settings), n, width)


@pytest.fixture
def keys():
    torch.manual_seed(1)
    return normalize(torch.randn(8, 3), dim=1)


def test_by_name():
    assert [type(part(kind, queue=8)) for kind in ("batch", "bank", "queue")] == [InBatch, FromBank, FromQueue]
    assert part("bank", bank_momentum=0.25).bank.momentum == 0.25
    assert len(part("queue", queue=8).queue.keys) == 8


def test_all_others_of_the_batch(keys):
    """Two views of four images: for each of eight queries the six views of other images, with gradient."""
    found, keep = part("batch")(KEY, INDEX, keys)
    assert found is keys
    image = torch.arange(8) % 4
    assert torch.equal(keep, image[:, None] != image)
    found, keep = part("batch")(KEY, INDEX, keys[:4])  # keys of one view alone, as MoCo's
    assert torch.equal(keep, ~torch.eye(4, dtype=torch.bool))


@pytest.mark.parametrize("number", [1, 3, 6, 100])
def test_so_many_of_the_batch(keys, number):
    _, keep = part("batch", number=number)(KEY, INDEX, keys)
    _, others = part("batch")(KEY, INDEX, keys)
    assert (keep.sum(1) == min(number, 6)).all()
    assert not (keep & ~others).any()


def test_which_of_the_batch_depends_on_seed_epoch_and_images_alone(keys):
    one = part("batch", number=2)
    _, keep = one(KEY, INDEX, keys)
    assert torch.equal(keep, one(KEY, INDEX, keys)[1])
    assert not torch.equal(keep, one(Key(0, 1), INDEX, keys)[1])
    assert not torch.equal(keep, one(Key(1, 0), INDEX, keys)[1])
    # Another order of the images draws the same pairs of images.
    order = torch.tensor([3, 0, 2, 1])
    both = torch.cat([order, order + 4])
    assert torch.equal(one(KEY, INDEX[order], keys[both])[1], keep[both][:, both])


def test_draws_are_uniform():
    """One of 62 others, for 64 queries in 200 epochs: each place is drawn about equally often."""
    index, keys, one = torch.arange(32), torch.zeros(64, 1), part("batch", number=1)
    drawn = sum(one(Key(0, epoch), index, keys)[1].long() for epoch in range(200))
    assert (drawn.sum(1) == 200).all()
    share = drawn.sum(0).double() / 200  # 1 a place is expected, with a standard deviation of 0.07
    assert share.min() > 0.7 and share.max() < 1.3


def test_the_bank_gives_every_image_but_the_batchs_own(keys):
    bank = part("bank")
    found, keep = bank(KEY, INDEX, keys)
    assert keep is None and len(found) == 36
    rows = {tuple(row) for row in found.tolist()}
    others = [i for i in range(40) if i not in INDEX.tolist()]
    assert rows == {tuple(row) for row in bank.bank.features[others].tolist()}


@pytest.mark.parametrize("number", [1, 5, 36, 100])
def test_so_many_of_the_bank(keys, number):
    bank = part("bank", number=number)
    found, _ = bank(KEY, INDEX, keys)
    assert len(found) == len({tuple(row) for row in found.tolist()}) == min(number, 36)
    assert torch.equal(found, bank(KEY, INDEX.flip(0), keys)[0])
    if number < 36:
        assert not torch.equal(found, bank(Key(0, 1), INDEX, keys)[0])
        assert not torch.equal(found, bank(KEY, torch.tensor([7, 8, 9, 11]), keys)[0])


def test_the_bank_moves_to_the_mean_of_the_views(keys):
    bank = part("bank", bank_momentum=0.0)
    before = bank.bank.features.clone()
    bank.update(INDEX, keys)
    torch.testing.assert_close(bank.bank.features[INDEX], normalize(keys[:4] + keys[4:], dim=1))
    others = [i for i in range(40) if i not in INDEX.tolist()]
    assert torch.equal(bank.bank.features[others], before[others])


def test_a_batch_of_all_images_leaves_no_bank(keys):
    with pytest.raises(UserError, match=r"holds all 4 images; lower pretrain\.batch_size"):
        part("bank", n=4)(KEY, torch.arange(4), keys)


def test_the_queue(keys):
    queue = part("queue", queue=10)
    before = queue.queue.keys.clone()
    found, keep = queue(KEY, INDEX, keys)
    assert keep is None and torch.equal(found, before)
    queue.update(INDEX, keys)
    assert torch.equal(queue(KEY, INDEX, keys)[0], torch.cat([keys, before[8:]]))
    some = part("queue", queue=10, number=3)
    found, _ = some(KEY, INDEX, keys)
    assert len(found) == 3 and {tuple(r) for r in found.tolist()} < {tuple(r) for r in some.queue.keys.tolist()}
    assert not torch.equal(found, some(Key(0, 1), INDEX, keys)[0])


@pytest.mark.parametrize("kind", ["batch", "bank", "queue"])
def test_what_is_held_is_state(keys, kind):
    one, other = part(kind, queue=10), part(kind, queue=10)
    one.update(INDEX, keys)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(KEY, INDEX, keys)[0], other(KEY, INDEX, keys)[0])


PROCESS = """
import sys, torch, torch.distributed as dist
from torch.nn.functional import normalize
from miyagi.data.rng import Key
from miyagi.losses.info_nce import info_nce
from miyagi.nn.negatives import build
from miyagi.settings import ContrastiveSettings

rank, size, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
torch.set_num_threads(1)
torch.manual_seed(0)
raw, index = torch.randn(2, 8, 3), torch.tensor([5, 2, 9, 30, 11, 12, 0, 3])
mine = slice(rank * 8 // size, (rank + 1) * 8 // size)
if size > 1:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
found = {}
for name in ("batch", "bank", "queue"):
    for number in (None, 3):
        torch.manual_seed(1)
        part = build(ContrastiveSettings(negatives=name, number=number, queue=20), 40, 3)
        own = raw[:, mine].flatten(0, 1).clone().requires_grad_()
        keys = normalize(own, dim=1)
        negatives, keep = part(Key(0, 0), index[mine], keys)
        loss = info_nce(keys, keys.roll(len(keys) // 2, 0), negatives, 0.2, keep=keep)[0]
        loss.backward()
        part.update(index[mine], keys)
        found[f"{name}.{number}"] = {
            "loss": loss.detach(), "gradient": own.grad.view(2, -1, 3), "state": dict(part.state_dict())
        }
torch.save(found, f"{folder}/{size}.{rank}.pt")
"""


def test_two_processes_are_one(tmp_path):
    """The same losses, gradients and draws, and bit for bit the same bank and queue in both processes."""
    root = str(Path(__file__).parents[2] / "ssl")
    env = {**os.environ, "PYTHONPATH": root, "GLOO_SOCKET_IFNAME": "lo"}
    running = [
        Popen([sys.executable, "-c", PROCESS, str(rank), str(size), str(tmp_path)], env=env, stderr=PIPE, text=True)
        for rank, size in ((0, 1), (0, 2), (1, 2))
    ]
    for process in running:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    one, first, second = (torch.load(tmp_path / f"{name}.pt") for name in ("1.0", "2.0", "2.1"))
    for name, whole in one.items():
        halves = first[name], second[name]
        torch.testing.assert_close((halves[0]["loss"] + halves[1]["loss"]) / 2, whole["loss"])
        torch.testing.assert_close(torch.cat([half["gradient"] for half in halves], 1) / 2, whole["gradient"])
        states = [half["state"] for half in halves]
        assert states[0].keys() == states[1].keys() == whole["state"].keys()
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
        torch.testing.assert_close(states[0], whole["state"])  # a queue's keys in the same order, too
