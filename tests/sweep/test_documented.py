"""docs/sweeps.md: its sweep is one that params.yaml takes, and its defaults are the shipped moco."""

import re
from pathlib import Path

import yaml

from miyagi.params import read
from miyagi.sweep.space import Space

ROOT = Path(__file__).parents[2]


def test_the_pages_sweep_can_be_resolved(tmp_path):
    page = (ROOT / "docs" / "sweeps.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["experiments"] |= yaml.safe_load(text)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    found = read(tmp_path / "params.yaml")
    sweep = found.sweep("moco_tuned")
    assert sweep is not None
    space = Space("moco_tuned", found, sweep)
    assert space.places == 12
    assert space.final(space.defaults).settings == found.experiment("moco").settings  # what the page compares with
