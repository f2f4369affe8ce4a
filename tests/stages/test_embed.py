"""The bank against a direct computation with the same weights."""

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file

from miyagi.data.betons import read_images
from miyagi.data.manifest import data_digest, data_info, read_manifest
from miyagi.errors import UserError
from miyagi.nn import heads
from miyagi.nn.encoders.base import build
from miyagi.paths import SPLITS
from miyagi.protocols.base import Bank
from miyagi.settings import Dataset, Embed, Head
from miyagi.stages import embed, prepare
from miyagi.train.weights import load_module

SETTINGS = Embed(tap_dimensions=64, batch_size=96)
LAYERS = {"conv1": 32, "conv2": 32, "conv3": 32, "conv4": 32, "encoder": 32, "head": 128}
"""8 channels, pooled to 2 x 2: the largest grid that makes at most 64 dimensions; the head's output has 128."""


def loaded(paths, name):
    info = data_info(read_manifest(paths.manifest("digits")))
    encoder = build({"name": "conv4", "width": 8, "grid": 2}, info.mean, info.std)
    head = heads.build(Head(kind="none") if name == "random" else Head(), encoder.dim)
    load_module(encoder, paths.run(name, 0) / "encoder.safetensors")
    load_module(head, paths.run(name, 0) / "head.safetensors")
    return encoder.eval(), head.eval()


@pytest.mark.parametrize("name", ["random", "simclr"])
def test_the_bank_is_what_the_encoder_gives(trained, name):
    encoder, head = loaded(trained, name)
    bank = load_file(trained.bank(name, 0, "digits"))
    for split, n in zip(SPLITS, (256, 64, 200), strict=True):
        images, labels = read_images(trained.beton("digits", split))
        x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        with torch.no_grad():
            expected = encoder.taps(x, 64)
            direct = encoder(x)
            expected["head"] = head(direct)
        assert torch.allclose(expected["encoder"], direct, atol=1e-6)
        assert expected.keys() == LAYERS.keys()
        for layer, values in expected.items():
            found = bank[f"{split}.{layer}"]
            width = LAYERS[layer] if name == "simclr" or layer != "head" else 32
            assert (found.shape, found.dtype) == ((n, width), np.float32)
            assert np.allclose(found, values, atol=1e-4, rtol=1e-4), layer
            assert found.std() > 1e-3
        assert np.array_equal(bank[f"{split}.labels"], labels)
    assert len(bank) == 3 * (len(LAYERS) + 1)


def test_the_stamp(trained):
    manifest = read_manifest(trained.manifest("digits"))
    stamp = Bank(trained.bank("simclr", 0, "digits")).stamp
    assert stamp == {"dataset": "digits", "data": data_digest(manifest), "threads": 2}
    with safe_open(str(trained.bank("simclr", 0, "digits")), framework="numpy") as opened:
        assert list(opened.metadata()) == ["miyagi"]


def test_twice_the_same_bytes(trained, copied):
    paths = copied(trained)
    paths.bank("simclr", 0, "digits").unlink()
    assert embed.run("simclr", 0, "digits", SETTINGS, paths) == {"dimensions.encoder": 32, "dimensions.head": 128}
    assert paths.bank("simclr", 0, "digits").read_bytes() == trained.bank("simclr", 0, "digits").read_bytes()


def test_another_data_set_keeps_the_encoder_s_own_normalisation(trained, copied):
    """The images of `mine` are those of `digits` at another size; their mean and deviation must not come in."""
    paths = copied(trained)
    prepare.run("mine", Dataset(source="digits", path="x", size=48, train_limit=50, val_limit=20, test_limit=20), paths)
    embed.run("simclr", 0, "mine", SETTINGS, paths)
    encoder, _ = loaded(paths, "simclr")
    images, _ = read_images(paths.beton("mine", "val"))
    with torch.no_grad():
        expected = encoder(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)
    assert np.allclose(load_file(paths.bank("simclr", 0, "mine"))["val.encoder"], expected, atol=1e-4, rtol=1e-4)
    assert Bank(paths.bank("simclr", 0, "mine")).stamp["dataset"] == "mine"


def test_images_too_small_for_the_encoder(trained, copied):
    paths = copied(trained)
    prepare.run("tiny", Dataset(source="digits", path="x", size=8, train_limit=50, val_limit=20, test_limit=20), paths)
    with pytest.raises(UserError, match=r"^datasets\.tiny\.size: 8 pixels, but conv4 takes at least 16$"):
        embed.run("simclr", 0, "tiny", SETTINGS, paths)
    assert not paths.bank("simclr", 0, "tiny").exists()
