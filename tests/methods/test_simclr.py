import pytest
import torch

from miyagi.losses.info_nce import nt_xent
from miyagi.methods.simclr import Settings, SimCLR
from miyagi.recipes import RECIPES
from miyagi.settings import Pretrain
from miyagi.train.loop import optimizer

RECIPE = RECIPES["simclr_small"].views


@pytest.fixture(autouse=True)
def _one_thread(_two_threads):
    torch.set_num_threads(1)  # small tensors: two threads would wait for each other most of the time


def test_both_views_share_one_forward_pass(encoder, info, make_batch):
    method = SimCLR(Settings(), encoder, info)
    calls = []
    encoder.register_forward_hook(lambda module, inputs, output: calls.append(len(output)))
    batch = make_batch(method, RECIPE, n=32)
    loss = method(batch, 0.0)["loss"]
    assert calls == [64]
    z = torch.nn.functional.normalize(method.head(encoder(torch.cat(batch.views))), dim=1)
    torch.testing.assert_close(loss, nt_xent(z[:32], z[32:], 0.5)[0])


def test_shuffled_positives_are_worse(encoder, info, make_batch):
    def train(shuffle):
        torch.manual_seed(0)
        method = SimCLR(Settings(), encoder.__class__(type_settings(), (0.5,) * 3, (0.3,) * 3), info)
        optimiser = optimizer(method, Pretrain(lr=3e-3))
        for i in range(20):
            batch = make_batch(method, RECIPE, i)
            if shuffle:
                batch.views[1] = batch.views[1].roll(1, 0)
            loss = method(batch, 0.0)["loss"]
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        return float(loss.detach())

    from miyagi.nn.encoders.conv4 import Settings as type_settings

    assert train(shuffle=False) < train(shuffle=True) - 0.1
