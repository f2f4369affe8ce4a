import importlib.util

import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file, save_file

from miyagi.commands import export
from miyagi.commands.encoders import trained as load
from miyagi.errors import UserError
from miyagi.nn.encoders.base import build
from miyagi.params import read
from miyagi.protocols.knn import Settings
from miyagi.stages import probe
from miyagi.train.weights import save_module


@pytest.mark.parametrize("make", [torchvision.models.resnet18, lambda: timm.create_model("resnet18")])
def test_a_resnets_keys_are_those_of_torchvision_and_timm(make):
    torch.manual_seed(0)
    encoder = build({"name": "resnet18", "stem": "imagenet"}, (0.4,) * 3, (0.2,) * 3).eval()
    network = make()
    missing, unexpected = network.load_state_dict(export.state_dict(encoder), strict=False)
    assert set(missing) == {"fc.weight", "fc.bias"} and unexpected == []
    network.fc = torch.nn.Identity()
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()((x - 0.4) / 0.2), encoder(x), rtol=1e-4, atol=1e-5)


def test_a_resnet_for_small_images_fits_as_the_card_says():
    encoder = build({"name": "resnet18", "stem": "small"}, (0.4,) * 3, (0.2,) * 3).eval()
    network = torchvision.models.resnet18()
    network.conv1, network.maxpool = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False), torch.nn.Identity()
    missing, unexpected = network.load_state_dict(export.state_dict(encoder), strict=False)
    assert set(missing) == {"fc.weight", "fc.bias"} and unexpected == []


@pytest.fixture(scope="module")
def params(trained):
    return read(trained.params)


def test_state_dict_and_its_card(trained, params, copied, tmp_path):
    paths = copied(trained)
    probe.run("simclr", 0, "knn", ["digits"], Settings(k=[20]), paths)
    file, card = export.run(params, paths, "simclr", None, "state_dict", tmp_path / "out")
    own = load(params, trained, "simclr", 0)
    kept, weights = load_file(file), own.encoder.state_dict()
    assert kept.keys() == weights.keys() and all(torch.equal(kept[key], weights[key]) for key in kept)
    text = card.read_text()
    assert own.digest in text and "temperature: 0.2" in text
    assert "bootstrap over images, 95 %" in text and "| knn | `" in text
    assert text == export.run(params, paths, "simclr", 0, "state_dict", tmp_path / "again")[1].read_text()


def test_the_cards_snippet_runs(trained, params, tmp_path, monkeypatch):
    _, card = export.run(params, trained, "simclr", 0, "state_dict", tmp_path)
    assert "no protocol has run on this encoder yet" in card.read_text()
    snippet = card.read_text().split("```python\n")[1].split("```")[0]
    x = torch.rand(2, 3, 32, 32)
    monkeypatch.chdir(tmp_path)
    space = {"images": x}
    exec(snippet, space)
    torch.testing.assert_close(space["z"], load(params, trained, "simclr", 0).encoder(x))


def test_the_snippet_for_torchvision_runs_too(project, params, copied, tmp_path, monkeypatch):
    paths = copied(project)
    encoder = {"name": "resnet18", "stem": "small"}
    experiment = params.experiment("simclr").model_copy(update={"encoder": encoder})
    own = build(encoder, (0.4,) * 3, (0.2,) * 3).eval()
    about = {"experiment": experiment.model_dump(mode="json"), "classes": 10, "size": 32}
    save_module(own, paths.run("simclr", 0) / "encoder.safetensors", about)
    _, card = export.run(params, paths, "simclr", 0, "state_dict", tmp_path)
    monkeypatch.chdir(tmp_path)
    space = {"images": torch.rand(2, 3, 32, 32)}
    exec(card.read_text().split("```python\n")[1].split("```")[0], space)
    torch.testing.assert_close(space["z"], own(space["images"]), rtol=1e-4, atol=1e-5)


def test_torchscript_gives_the_same_features_for_any_batch(trained, params, tmp_path):
    file, card = export.run(params, trained, "simclr", 0, "torchscript", tmp_path)
    x = torch.rand(5, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.load(file)(x), load(params, trained, "simclr", 0).encoder(x))
    assert 'torch.jit.load("encoder.pt")' in card.read_text()


def test_onnx_gives_the_same_features_for_any_batch(trained, params, tmp_path):
    import onnxruntime

    file, _ = export.run(params, trained, "simclr", 0, "onnx", tmp_path)
    x = torch.rand(5, 3, 32, 32)
    (found,) = onnxruntime.InferenceSession(str(file)).run(None, {"image": x.numpy()})
    with torch.no_grad():
        wanted = load(params, trained, "simclr", 0).encoder(x)
    torch.testing.assert_close(torch.from_numpy(found), wanted, rtol=1e-4, atol=1e-4)


def test_without_torchs_exporter_onnx_says_what_to_install(trained, params, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name.startswith("onnx") else find(name))
    with pytest.raises(UserError, match=r"pip install onnx onnxscript$"):
        export.run(params, trained, "simclr", 0, "onnx", tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_encoder_of_ours_is_refused(trained, params, copied, tmp_path):
    paths = copied(trained)
    save_file({"x": torch.zeros(1)}, paths.run("simclr", 0) / "encoder.safetensors")
    with pytest.raises(UserError, match="cannot load"):
        export.run(params, paths, "simclr", 0, "state_dict", tmp_path)
