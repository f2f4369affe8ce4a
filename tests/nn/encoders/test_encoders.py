import copy

import pytest
import torch
import torchvision

from miyagi.nn.encoders.base import build, pool_to
from miyagi.registry import ENCODERS

MEAN, STD = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)


def make(name, **settings):
    torch.manual_seed(0)
    return build({"name": name, **settings}, MEAN, STD).eval()


@pytest.mark.parametrize("name", ENCODERS.entries)
def test_shapes_and_taps(name):
    encoder = make(name)
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        out, taps, maps = encoder(x), encoder.taps(x, 300), encoder.maps(x)
    assert out.shape == (2, encoder.dim)
    assert list(taps) == [*encoder.layers, "encoder"]
    torch.testing.assert_close(taps["encoder"], out)
    for layer in encoder.layers:
        assert taps[layer].shape[1] <= max(300, maps[layer].shape[1])
    assert encoder.maps(x, [encoder.layers[1]]).keys() == {encoder.layers[1]}


def test_conv4_is_the_few_shot_papers():
    encoder = make("conv4")
    # 3x3 weights of four layers, and scale and shift of each BatchNorm.
    assert sum(p.numel() for p in encoder.parameters()) == 9 * 64 * (3 + 3 * 64) + 4 * 2 * 64
    assert encoder.dim == 256
    with torch.no_grad():
        assert encoder(torch.rand(1, 3, 96, 96)).shape == (1, 256)


def test_conv4_pools_before_relu_and_changes_nothing_by_it():
    encoder = make("conv4", width=8, fused=False).train()
    papers = copy.deepcopy(encoder)
    for name, block in papers.blocks.items():
        convolution, norm, pool, relu = block
        papers.blocks[name] = torch.nn.Sequential(convolution, norm, relu, pool)
    x = torch.rand(4, 3, 32, 32)
    ours, theirs = encoder(x), papers(x)
    assert torch.equal(ours, theirs)
    for loss in (ours.square().sum(), theirs.square().sum()):
        loss.backward()
    for (name, a), b in zip(encoder.named_parameters(), papers.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-5, msg=name)


def test_normalisation_is_the_encoders_own():
    encoder, seen = make("conv4"), []
    encoder.blocks["conv1"].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    encoder(torch.full((1, 3, 32, 32), 0.5))
    want = [(0.5 - m) / s for m, s in zip(MEAN, STD, strict=True)]
    torch.testing.assert_close(seen[0][0, :, 0, 0], torch.tensor(want))


def test_a_channel_without_variation_is_no_division_by_zero():
    encoder = build({"name": "conv4"}, (0.0,) * 3, (0.0,) * 3).eval()
    assert torch.isfinite(encoder(torch.rand(2, 3, 32, 32))).all()


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_resnet_equals_torchvision(name):
    encoder = make(name, stem="imagenet")
    theirs = getattr(torchvision.models, name)().eval()
    theirs.load_state_dict(
        {
            **{f"{part}.{key}": value for part, index in (("conv1", 0), ("bn1", 1))
               for key, value in encoder.blocks["stem"][index].state_dict().items()},
            **{f"{layer}.{key}": value for layer in ("layer1", "layer2", "layer3", "layer4")
               for key, value in encoder.blocks[layer].state_dict().items()},
        },
        strict=False,
    )  # fmt: skip
    theirs.fc = torch.nn.Identity()
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(encoder(x), theirs(encoder.normalize(x)), rtol=1e-4, atol=1e-4)


def test_the_small_stem_keeps_the_resolution():
    maps = make("resnet18", stem="small").maps(torch.rand(1, 3, 32, 32))
    assert [tuple(m.shape[1:]) for m in maps.values()] == [
        (64, 32, 32),
        (64, 32, 32),
        (128, 16, 16),
        (256, 8, 8),
        (512, 4, 4),
    ]


def test_images_below_min_size():
    with pytest.raises(ValueError, match="at least 16 pixels, got 9"):
        make("conv4")(torch.rand(1, 3, 9, 9))


def test_pool_to_by_hand():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert pool_to(x, 4).tolist() == [[2.5, 4.5, 10.5, 12.5]]
    assert pool_to(x, 8).shape == (1, 4)  # the largest square grid within 8 is 2 x 2
    assert pool_to(x, 100).shape == (1, 16)
