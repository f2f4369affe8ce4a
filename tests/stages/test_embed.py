"""The bank against a direct computation with the same weights."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file

from miyagi import params
from miyagi.data.betons import read_images, write_beton
from miyagi.data.manifest import data_digest, data_info, read_manifest
from miyagi.errors import UserError
from miyagi.nn import heads
from miyagi.nn.encoders.base import build
from miyagi.paths import SPLITS
from miyagi.protocols.base import Bank
from miyagi.settings import Dataset, Embed, Head
from miyagi.stages import embed, prepare, pretrain, sweep
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
    assert stamp == {
        "dataset": "digits", "data": data_digest(manifest), "threads": 2, "pretrained_on": "digits",
        "seen": list(range(10)),
        "channels": [[f"conv{i}", 8] for i in range(1, 5)],
    }  # fmt: skip
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
    stamp = Bank(paths.bank("simclr", 0, "mine")).stamp
    assert (stamp["dataset"], stamp["pretrained_on"]) == ("mine", "digits")
    assert stamp["seen"] == list(range(10))  # under another key they are the same digits


def test_classes_were_seen_where_pretraining_had_images_of_their_names():
    pretraining = {"classes": ["cat", "dog", "owl"], "counts": {"train": {"per_class": [5, 1, 0]}}}  # disjoint: owl
    assert embed.seen(["ant", "dog", "cat", "owl"], pretraining) == [1, 2]
    assert embed.seen(["ant"], pretraining) == []


def test_transformed_copies(trained, copied):
    """Of the first images of each split, before and after the head; grey pictures have no grey copies."""
    paths = copied(trained)
    settings = Embed(
        tap_dimensions=64, batch_size=16, transforms=["rotation", "gray", "noise", "sobel"], transform_images=40
    )
    embed.run("simclr", 0, "digits", settings, paths)
    bank = Bank(paths.bank("simclr", 0, "digits"))
    assert bank.transforms == {
        "noise": ["noise1"], "rotation": ["rotation1", "rotation2", "rotation3"], "sobel": ["sobel1"],
    }  # fmt: skip
    assert bank.layers == sorted(LAYERS)
    encoder, head = loaded(paths, "simclr")
    images, _ = read_images(paths.beton("digits", "val"), range(40))
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        for turns in (1, 2, 3):
            expected = encoder(x.rot90(turns, (2, 3)))
            found = {layer: bank.features(f"val~rotation{turns}", layer) for layer in ("encoder", "head")}
            assert np.allclose(found["encoder"], expected, atol=1e-4, rtol=1e-4)
            assert np.allclose(found["head"], head(expected), atol=1e-4, rtol=1e-4)
    # The batch that an image is in changes none of its draws.
    before = bank.features("train~noise1", "encoder").copy()
    embed.run("simclr", 0, "digits", settings.model_copy(update={"batch_size": 96}), paths)
    assert np.allclose(before, Bank(paths.bank("simclr", 0, "digits")).features("train~noise1", "encoder"), atol=1e-4)


def test_a_pair_of_encoders_from_the_entry_to_the_bank(project, copied, coloured):
    """What split-brain training keeps is built again from its description, and gives [f_1(L), f_2(ab)]."""
    paths, (images, labels) = copied(project), coloured
    start = 0
    for split, n in zip(SPLITS, (256, 64, 200), strict=True):
        rows = slice(start, start := start + n)
        write_beton(paths.beton("digits", split), images[rows].permute(0, 2, 3, 1).numpy(), labels[rows].numpy())
    manifest = read_manifest(paths.manifest("digits"))
    paths.manifest("digits").write_text(json.dumps(manifest | {"color": True}))
    read = params.read(paths.params)
    entry = {"method": "split_brain", "bins": 20.0, "light_bins": 20, "width": 8}
    sweep.run("split", read.model_copy(update={"experiments": {"split": entry}}), paths)
    last = pretrain.run("split", 0, paths)
    assert {"accuracy", "accuracy_ab", "accuracy_l", "knn"} <= last.keys()
    embed.run("split", 0, "digits", SETTINGS, paths)
    bank = load_file(paths.bank("split", 0, "digits"))
    info = replace(data_info(manifest), color=True)
    encoder = build({"name": "pair", "of": {"name": "conv4", "width": 4}}, info.mean, info.std).eval()
    load_module(encoder, paths.run("split", 0) / "encoder.safetensors")
    light, ab = encoder.split(images[320:520] / 255)
    with torch.no_grad():
        expected = torch.cat([encoder.first(light), encoder.second(ab)], 1)
    assert bank["test.encoder"].shape == (200, 2 * 4 * 4)
    assert np.allclose(bank["test.encoder"], expected, atol=1e-4, rtol=1e-4)
    assert np.array_equal(bank["test.head"], bank["test.encoder"])  # there is nothing on the pooled features


def test_images_too_small_for_the_encoder(trained, copied):
    paths = copied(trained)
    prepare.run("tiny", Dataset(source="digits", path="x", size=8, train_limit=50, val_limit=20, test_limit=20), paths)
    with pytest.raises(UserError, match=r"^datasets\.tiny\.size: 8 pixels, but conv4 takes at least 16$"):
        embed.run("simclr", 0, "tiny", SETTINGS, paths)
    assert not paths.bank("simclr", 0, "tiny").exists()


def test_several_labels_an_image_reach_the_bank(trained, copied):
    """Real digits with the labels even, large and their own name, through prepare and embed."""
    paths = copied(trained)
    images, labels = read_images(paths.beton("digits", "train"), range(60))
    folder = paths.root / "several"
    folder.mkdir()
    rows = ["file,labels,split"]
    for i, (image, y) in enumerate(zip(images, labels, strict=True)):
        Image.fromarray(image).save(folder / f"{i}.png")
        names = [str(y), *(["even"] if y % 2 == 0 else []), *(["large"] if y > 4 else [])]
        rows.append(f"{i}.png,{';'.join(names)},{('train', 'train', 'val', 'test')[i % 4]}")
    (folder / "labels.csv").write_text("\n".join(rows))
    prepare.run("mine", Dataset(source="multilabel", path="several", size=32), paths)
    embed.run("simclr", 0, "mine", SETTINGS, paths)
    manifest, bank = read_manifest(paths.manifest("mine")), Bank(paths.bank("simclr", 0, "mine"))
    classes = manifest["classes"]
    assert classes[-2:] == ["even", "large"]
    for split in SPLITS:
        hot = bank.labels(split)
        assert (hot.shape, hot.dtype) == ((len(bank.features(split, "encoder")), len(classes)), np.uint8)
        y = [int(classes[row[:-2].argmax()]) for row in hot]
        assert hot[:, -2].tolist() == [value % 2 == 0 for value in y]
        assert hot[:, -1].tolist() == [value > 4 for value in y]
        assert manifest["counts"][split]["per_class"] == hot.sum(0).tolist()
        pictures, stored = read_images(paths.beton("mine", split))
        assert stored.tolist() == [classes.index(str(value)) for value in y]  # the rarest label is the digit itself
        for picture, value in zip(pictures, y, strict=True):
            assert value in labels[[np.array_equal(picture, image) for image in images]]
    other = {**manifest, "several_labels": {**manifest["several_labels"], "val": []}}
    assert data_digest(other) != data_digest(manifest) == bank.stamp["data"]
