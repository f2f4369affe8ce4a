import torch

from miyagi.losses.info_nce import nt_xent
from miyagi.methods.simclr import Settings, SimCLR
from miyagi.recipes import RECIPES
from miyagi.settings import Head, Pretrain
from miyagi.train.loop import optimizer

RECIPE = RECIPES["simclr_small"].views


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


def test_what_the_deck_warns_about_is_reachable(encoder, info, make_batch):
    """No l2 with a temperature of 50, and no head at all."""
    for settings in (Settings(l2_normalize=False, temperature=50), Settings(head=Head(kind="none"))):
        method = SimCLR(settings, encoder, info)
        assert torch.isfinite(method(make_batch(method, RECIPE), 0.0)["loss"])
