"""docs/data.md: its entries are entries."""

import re
from pathlib import Path

import pytest
import yaml

from miyagi.params import read

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```yaml ?(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("section", "text"), BLOCKS)
def test_an_entry_of_the_page_is_taken_by_params_yaml(tmp_path, section, text):
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    entries = yaml.safe_load(text)
    if section == "dense":
        params["dense"] = {"datasets": entries, "experiments": [], "protocols": []}
    else:
        params["datasets"] |= entries
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    found = read(tmp_path / "params.yaml")
    assert set(entries) <= {*found.datasets, *found.dense.datasets}


def test_every_source_that_takes_a_folder_is_named():
    from miyagi.registry import SOURCES

    named = set(re.findall(r"`(\w+)`", PAGE))
    built_in = {"digits", "scenes"}  # made of what is installed
    assert set(SOURCES.entries) - built_in <= named
