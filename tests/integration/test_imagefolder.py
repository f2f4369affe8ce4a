"""A user's own folder through the whole thread, by editing params.yaml only."""

import json

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

pytestmark = pytest.mark.integration
CLASSES = ["null", "ein <script>alert(1)</script> & Co", "zwei Äpfel"]


@pytest.fixture
def folder(tmp_path):
    """Real digits 0 to 2 as files of many kinds, class names that are text like any other, one damaged file."""
    digits, root = load_digits(), tmp_path / "my pictures"
    kinds = [
        ("png", "L"),
        ("jpg", "RGB"),
        ("png", "P"),
        ("png", "1"),
        ("png", "RGBA"),
        ("jpg", "CMYK"),
        ("png", "I;16"),
    ]
    for i in np.flatnonzero(digits.target < 3):
        ending, mode = kinds[i % len(kinds)]
        split = "test" if i % 4 == 0 else "train"
        place = root / split / CLASSES[digits.target[i]].replace("/", "∕")
        place.mkdir(parents=True, exist_ok=True)
        pixels = digits.images[i] / 16
        image = (Image.fromarray((pixels * 65535).astype(np.uint16)) if mode == "I;16"
                 else Image.fromarray((pixels * 255).astype(np.uint8)).convert(mode))  # fmt: skip
        image.resize((40, 36)).save(place / f"bild {i}.{ending}")
    (root / "train" / CLASSES[0] / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnot an image")
    return root


@pytest.mark.slow
def test_the_thread_and_a_changed_image(project, folder):
    def change(params):
        params["dataset"] = "mine"
        params["datasets"] = {"mine": {"source": "imagefolder", "path": str(folder), "size": 32}}
        params["experiments"] = {name: params["experiments"][name] for name in ("random", "simclr")}

    project.edit(change)
    executed = project.repro()
    # A sweep would look at the images, so every experiment is resolved again when they change.
    everything = {"prepare@mine", "sweep@random", "sweep@simclr", "finetune@simclr-0-lowlabel", "report", *(f"{s}@{e}-0{t}" for e in ("random", "simclr") for s, t in
                  (("pretrain", ""), ("embed", "-mine"), ("probe", "-knn"), ("probe", "-linear")))}  # fmt: skip
    assert executed == everything
    manifest = json.loads((project.root / "data/betons/mine/manifest.json").read_text())
    assert sorted(manifest["classes"]) == sorted(name.replace("/", "∕") for name in CLASSES)
    assert [entry["file"] for entry in manifest["skipped"]] == ["train/null/broken.png"]
    page = (project.root / "reports/report.html").read_text()
    assert "<script>alert(1)" not in page
    assert "broken.png" in page

    image = sorted((folder / "train" / "null").glob("*.png"))[1]
    Image.fromarray(np.full((36, 40), 128, np.uint8)).save(image)
    assert project.repro() == everything
    assert project.repro() == set()
