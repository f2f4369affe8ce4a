"""For every method that trains: two processes with half a batch each make the step of one process with the whole batch.

Each method trains for one step by the real loop, once with GroupNorm in the place of BatchNorm, and once with BatchNorm
over the images of both processes. Settings of which a step meets what the one before it has left take more of them, as
few as that needs: a difference in the last bits grows with each. The two processes start once, for all cases.
"""

import copy

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from miyagi.data.batch import DataInfo
from miyagi.data.loader import Raw
from miyagi.methods.base import build
from miyagi.nn.encoders import base as encoders
from miyagi.nn.sync_batch_norm import LOCAL
from miyagi.params import views
from miyagi.registry import METHODS
from miyagi.settings import Pretrain
from miyagi.train.distributed import ALONE, World
from miyagi.train.loop import Trainer
from tests.methods.test_methods import ENCODERS, SMALL, TRAINED
from tests.processes import together

EXCLUDED: dict[str, str] = {}
"""Case -> why its step cannot be the same in two processes; say it in the setting's description as well."""
IMAGES, WORLD = 16, 2
LINEAR = {"kind": "linear", "out": 32}
VARIANTS = {
    "cmc: banks, NCE": ("cmc", {"number": 16, "head": LINEAR}, 2),
    "npid: NCE": ("npid", {"number": 16}, 2),
    "exemplar: softmax": ("exemplar", {"head": LINEAR}, 1),
    "swav: full queue": ("swav", SMALL["swav"] | {"queue": IMAGES}, 2),
    "bownet: student": ("bownet", SMALL["bownet"], 3),
    "moco: queue of both views": ("moco", {"queue": 24, "symmetric": True, "recipe": "simclr_small"}, 2),
    "simclr: queue of both views": ("simclr", SMALL["simclr"] | {"queue": 24, "negatives": "queue"}, 2),
    "simclr: Donsker-Varadhan": ("simclr", SMALL["simclr"] | {"loss": "dv"}, 1),
    "deep_infomax: Donsker-Varadhan": ("deep_infomax", SMALL["deep_infomax"] | {"estimator": "dv"}, 1),
}
CASES = {name: (name, SMALL.get(name, {}), 1) for name in TRAINED} | VARIANTS
"""Case -> the method, its settings, and how many steps it takes."""
NAMES = [name for name in CASES if name not in EXCLUDED]
NORMS = ("group", "batch")


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


class Share:
    """Stands for a loader: one batch, or one process's part of it."""

    def __init__(self, rank=0, world=1, n=IMAGES):
        generator = torch.Generator().manual_seed(0)
        small = torch.rand(IMAGES, 3, 8, 8, generator=generator)
        images = (nn.functional.interpolate(small, size=32, mode="bicubic").clamp(0, 1) * 255).to(torch.uint8)
        # Batches need not be in the order of the file.
        index = torch.randperm(64, generator=generator)[:IMAGES]
        mine = torch.arange(n).chunk(world)[rank]
        self.raw = Raw(images[mine], index[mine] % 10, index[mine])
        self.images = len(mine)

    def __len__(self):
        return 1

    def __call__(self, epoch, *args, **kwargs):
        yield self.raw


def group_norm(module):
    """GroupNorm, which looks at one image alone, in the place of every BatchNorm below `module`."""
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm):
            trained = any(p.requires_grad for p in child.parameters())
            setattr(module, name, nn.GroupNorm(1, child.num_features, affine=child.affine).requires_grad_(trained))
        else:
            group_norm(child)


def method_of(case, norm):
    name, settings, _ = CASES[case]
    torch.manual_seed(0)
    half = ENCODERS.get(name, {"name": "conv4", "width": 8})
    pair = METHODS.settings(name).encoder_pair
    encoder = encoders.build({"name": "pair", "of": half} if pair else half, (0.5,) * 3, (0.3,) * 3)
    method = build(name, settings, encoder, DataInfo(64, 10, 32, (0.5,) * 3, (0.3,) * 3))
    if norm == "group":
        group_norm(method)
    return method


def step(case, norm, world):
    """The last step that a case takes in the real loop: the epoch's row, gradients, what the method holds afterwards."""
    method, (name, own, steps) = method_of(case, norm), CASES[case]
    settings = Pretrain(epochs=steps, optimizer="sgd", lr=0.1, warmup_epochs=0.0, batch_size=IMAGES)
    recipes = views(METHODS.settings(name)(**own).recipe, {}, "test")
    trainer = Trainer(method, Share(world.rank, world.size), recipes, settings, size=32, seed=0, world=world)
    gradients = {}
    after_backward = method.after_backward

    def look(progress):
        gradients.update({key: p.grad.clone() for key, p in method.named_parameters() if p.grad is not None})
        after_backward(progress)

    method.after_backward = look
    for epoch in range(steps):
        gradients.clear()
        row = trainer._train_epoch(epoch)
    # Statistics of parts of a batch are averaged over processes, but follow one another in one.
    local = {id(b) for layer in method.modules() if hasattr(layer, LOCAL) for b in layer.buffers(recurse=False)}
    state = {key: value.clone() for key, value in method.state_dict(keep_vars=True).items() if id(value) not in local}
    whole = {key: value.clone() for key, value in method.state_dict().items()}
    return {"row": row, "gradients": gradients, "state": state, "whole": whole}


def work(rank, names):
    torch.use_deterministic_algorithms(True)
    return {(name, norm): step(name, norm, World(rank, WORLD)) for name in names for norm in NORMS}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return together(tmp_path_factory.mktemp("ddp"), WORLD, work, NAMES)


@pytest.fixture(params=NORMS)
def norm(request):
    return request.param


def near(got, want, name):
    """Equal to 1e-4 of the tensor's own size; a sum of two parts rounds otherwise than a sum of one."""
    assert got.shape == want.shape and got.dtype == want.dtype, name
    if not want.is_floating_point():
        assert torch.equal(got, want), name
        return
    error, size = (got - want).norm(), want.norm()
    assert error <= 1e-4 * size + 1e-6, f"{name}: {error:.3g} of {size:.3g}"


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_make_the_step_of_one(shared, name, norm):
    want = step(name, norm, ALONE)
    first, second = (found[name, norm] for found in shared)
    assert first["row"] == second["row"]
    assert first["row"].keys() == want["row"].keys()
    for key, value in want["row"].items():
        assert first["row"][key] == pytest.approx(value, rel=1e-4, abs=1e-6), key
    assert want["gradients"] and first["gradients"].keys() == want["gradients"].keys()
    assert any(gradient.abs().max() > 1e-4 for gradient in want["gradients"].values())
    for key, gradient in want["gradients"].items():
        near(first["gradients"][key], gradient, key)
    for key, value in want["state"].items():
        near(first["state"][key], value, key)


@pytest.mark.parametrize("name", NAMES)
def test_both_processes_hold_the_same(shared, name, norm):
    """Weights, moving averages, queues, banks and statistics, bit for bit: nothing is ever sent again."""
    first, second = (found[name, norm] for found in shared)
    for part in ("gradients", "whole"):
        assert first[part].keys() == second[part].keys()
        different = [key for key, value in first[part].items() if not torch.equal(value, second[part][key])]
        assert different == []


def test_the_variants_get_where_they_should():
    assert step("bownet: student", "group", ALONE)["whole"]["student"] == 1
    assert step("swav: full queue", "group", ALONE)["whole"]["queued"] == 2 * IMAGES


@pytest.mark.parametrize("name", TRAINED)
def test_no_part_of_an_accumulated_batch_is_lost(name):
    """What a method keeps of a step (queue, bank, centre) depends on each of the batches that the step is made of."""

    def buffers(*seeds):
        method = method_of(name, "group")
        recipes = views(METHODS.settings(name)(**CASES[name][1]).recipe, {}, "test")
        settings = Pretrain(epochs=1, lr=1e-9, warmup_epochs=0.0, batch_size=IMAGES)
        trainer = Trainer(method, Share(n=4), recipes, settings, size=32, seed=0)
        method.train()
        trainer.before_epoch(0)
        (batch,) = trainer.batches(0)
        for seed in seeds:
            part = copy.deepcopy(batch)
            for view in part.views:
                view.copy_(torch.rand(view.shape, generator=torch.Generator().manual_seed(seed)))
            method(part, 0.5)["loss"].backward()
        method.after_backward(0.5)
        method.after_step(0.5)
        return {key: value.clone() for key, value in method.named_buffers()}

    def changed(first, second):
        return {key for key, value in first.items() if not torch.equal(value, second[key])}

    kept = changed(buffers(1), buffers(2))
    if not kept:
        return
    first, second = changed(buffers(1, 3), buffers(2, 3)), changed(buffers(3, 1), buffers(3, 2))
    assert first >= kept
    assert second >= kept


def test_exclusions_have_reasons():
    for name, reason in EXCLUDED.items():
        assert name in CASES
        assert len(reason.split()) > 4
