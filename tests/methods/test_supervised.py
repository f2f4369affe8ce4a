import math

import torch

from miyagi.data.batch import Batch
from miyagi.data.rng import Key
from miyagi.methods.supervised import Settings, Supervised


def batch(digits, labels):
    images = digits[0][:6] / 255
    return Batch([images], torch.arange(6), labels, Key(0, 0))


def test_the_loss_by_hand(encoder, info, digits):
    """A classifier that says nothing costs log(10), one that is sure of the right class nothing."""
    method = Supervised(Settings(), encoder, info)
    (layer,) = method.head
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    logged = method(batch(digits, torch.full((6,), 3)), 0.0)
    assert math.isclose(float(logged["loss"].detach()), math.log(10), rel_tol=1e-6)
    layer.bias.data[3] = 50
    logged = method(batch(digits, torch.full((6,), 3)), 0.0)
    assert float(logged["loss"].detach()) < 1e-6
    assert float(logged["accuracy"]) == 1


def test_it_reads_the_labels(encoder, info, digits):
    method = Supervised(Settings(), encoder, info)
    first, second = (method(batch(digits, torch.full((6,), label)), 0.0)["loss"] for label in (0, 1))
    assert float(first.detach()) != float(second.detach())
