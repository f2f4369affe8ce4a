"""A project of studies, and the files that its stages would have written: right and wrong answers given by hand."""

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from miyagi.files import write_json
from miyagi.paths import Paths
from miyagi.studies import run
from tests.studies.test_expand import study

N = 200
LABELS = np.arange(N, dtype=np.int64) % 10


class Project:
    """studies/*.yaml under `root`, and runs of theirs."""

    def __init__(self, root):
        self.paths = Paths(root)
        (root / "studies").mkdir()
        (root / "docs").mkdir()

    def add(self, name="it", **changes):
        """Write a study; its file stands in its worktrees too, as if it had run."""
        text = yaml.safe_dump(study(**changes).model_dump(mode="json", exclude_none=True), sort_keys=False)
        made = study(**changes)
        (self.paths.root / "studies" / f"{name}.yaml").write_text(text)
        for arm in made.arms:
            tree = run.place(name, arm, self.paths)
            (tree.root / "studies").mkdir(parents=True)
            (tree.root / "studies" / f"{name}.yaml").write_text(text)
            tree.params.write_text("{}")
        return made

    def measure(self, experiment, seed, right, val=None, name="it", arm="main", protocol="knn", **row):
        """Write P.json and its predictions: `right`[i] says whether test image i is told right; val: likewise."""
        tree = run.place(name, arm, self.paths)
        rows, kept = [], {}
        for split, hits in (("test", right), ("val", right if val is None else val)):
            hits = np.asarray(hits)
            base = {"experiment": experiment, "method": "simclr", "protocol": protocol, "settings": "s", "seed": seed}
            base |= {"dataset": "digits", "split": split, "layer": "encoder", "metric": "top1", "condition": {}}
            base |= {"draw": None, "value": 100.0 * hits.mean(), "n": len(hits), "data": "d", "higher_is_better": True}
            rows.append(base | row)
            kept[f"digits.{split}.encoder"] = np.where(hits, LABELS[: len(hits)], (LABELS[: len(hits)] + 1) % 10)
            kept[f"digits.{split}.labels"] = LABELS[: len(hits)]
        write_json(tree.rows(experiment, seed, protocol), {"summary": {}, "rows": rows})
        save_file(kept, str(tree.predictions(experiment, seed, protocol)))


@pytest.fixture
def written(tmp_path):
    return Project(tmp_path)
