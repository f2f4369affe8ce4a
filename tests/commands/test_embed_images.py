import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from miyagi.commands import embed_images
from miyagi.commands.encoders import trained as load
from miyagi.errors import UserError
from miyagi.params import read


@pytest.fixture
def folder(tmp_path, digits):
    """Four digits at names whose order by folder is not their order by path, and a broken file."""
    for i, name in enumerate(("b/2.png", "a.png", "b-c/1.png", "b/1.png")):
        (tmp_path / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(digits[0][i].permute(1, 2, 0).numpy()).save(tmp_path / "mine" / name)
    (tmp_path / "mine" / "b" / "broken.png").write_bytes(b"no image")
    (tmp_path / "mine" / "notes.txt").write_text("no image either")
    return tmp_path / "mine"


def test_rows_are_the_encoders_features_in_the_order_of_the_paths(trained, folder, digits, tmp_path, capsys):
    params = read(trained.params)
    out, listed = embed_images.run(params, trained, str(folder), "simclr", None, tmp_path / "f.safetensors")
    described = json.loads(listed.read_text())
    assert described["paths"] == ["a.png", "b-c/1.png", "b/1.png", "b/2.png"]
    found = load_file(out)["features"]
    own = load(params, trained, "simclr", 0)
    with torch.no_grad():
        wanted = own.encoder(digits[0][[1, 2, 3, 0]].float() / 255).numpy()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert [entry["file"] for entry in described["skipped"]] == ["b/broken.png"]
    said = capsys.readouterr().err
    assert "left out: b/broken.png" in said and "1 image(s) could not be read" in said


def test_mistakes(trained, project, folder, tmp_path, copied):
    params = read(trained.params)
    with pytest.raises(UserError, match="there is no folder"):
        embed_images.run(params, trained, str(tmp_path / "nowhere"), "simclr", None, None)
    with pytest.raises(UserError, match="did you mean 'simclr'"):
        embed_images.run(params, trained, str(folder), "simclear", None, None)
    with pytest.raises(UserError, match=r"end in \.safetensors"):
        embed_images.run(params, trained, str(folder), "simclr", None, tmp_path / "f.npy")
    with pytest.raises(UserError, match="run: dvc repro pretrain@simclr-0"):
        embed_images.run(params, project, str(folder), "simclr", None, None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no image that can be read"):
        embed_images.run(params, trained, str(tmp_path / "empty"), "simclr", None, None)
