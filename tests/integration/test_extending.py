"""docs/extending.md, word for word: its files, its registry lines, its entries, one `dvc repro`."""

import json
import re

import numpy as np
import pytest
import yaml
from sklearn.datasets import load_digits

from tests.integration.project import ROOT, checkout, shrink

pytestmark = [pytest.mark.slow, pytest.mark.integration]
PAGE = (ROOT / "docs" / "extending.md").read_text()
FILES = re.findall(r"^`(ssl/\S+\.py)`: [^\n]*\n```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
LINES = re.findall(r"^```python registry (\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
ENTRIES = [yaml.safe_load(text) for text in re.findall(r"^```yaml params\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)]


def deep(base, changes):
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict) and key != "datasets":
            deep(base[key], value)
        else:
            base[key] = value


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A small project with everything that the page adds, after `dvc repro`."""
    project = checkout(tmp_path_factory.mktemp("extended"))
    for name, text in FILES:
        (project.root / name).write_text(text)
    registry = project.root / "ssl" / "miyagi" / "registry.py"
    for family, line in LINES:
        text = registry.read_text()
        start = text.index("{\n", text.index(f"\n{family} = Family(")) + 2
        registry.write_text(f"{text[:start]}        {line.strip()}\n{text[start:]}")
    (project.root / "data" / "arrays").mkdir(parents=True)
    images, labels = load_digits(return_X_y=True)
    np.save(project.root / "data" / "arrays" / "images.npy", np.rint(images.reshape(-1, 8, 8) * 15.9).astype(np.uint8))
    np.save(project.root / "data" / "arrays" / "labels.npy", labels)

    def change(params):
        shrink(params)
        params["experiments"] = {"random": {"method": "random"}}
        params["finetune"] = {"experiments": [], "protocols": []}
        for entry in ENTRIES:
            deep(params, entry)
        params["datasets"]["mine"] |= {"train_limit": 256, "val_limit": 64}

    project.edit(change)
    project.run("dvc", "repro")
    return project


def test_each_example_is_short():
    assert [name.split("/")[-2] for name, _ in FILES] == ["methods", "sources", "protocols"]
    assert all(text.count("\n") < 40 for _, text in FILES)


def test_the_examples_run(extended):
    kept = json.loads((extended.root / "runs" / "mirror" / "0" / "prototypes.json").read_text())
    value = kept["summary"]["mine.test.encoder.top1"]
    assert 20 < value <= 100  # ten classes: chance is 10
    assert "accuracy" in (extended.root / "runs" / "mirror" / "0" / "history.csv").read_text().splitlines()[0]
    page = (extended.root / "reports" / "report.html").read_text()
    assert "prototypes on mine" in page


def test_the_lists_tell_of_them(extended):
    for kind, name in (("methods", "mirror"), ("sources", "arrays"), ("protocols", "prototypes")):
        assert name in {row["name"] for row in json.loads(extended.run("miyagi", "list", kind, "--json").stdout)}


def test_they_keep_to_our_own_rules(extended):
    files = [name for name, _ in FILES]
    extended.run("ruff", "check", *files)
    extended.run("mypy", *files)
