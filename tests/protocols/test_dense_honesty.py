"""No dense protocol's choice sees what is known of the test pictures, and every one chooses by what is known of val's."""

from dataclasses import replace

import numpy as np
import pytest

from miyagi.protocols import dense
from miyagi.registry import PROTOCOLS
from miyagi.settings import Descent, Grid

DENSE = [name for name, entry in PROTOCOLS.entries.items() if entry.family == "dense"]
SMALL = {"detection": {"width": 16, "representation": 32}}
"""Settings that make a protocol quick."""


def mask(model, source, row):
    (y,) = (y for i, y in dense.predicted(model, source) if i == row)
    return {"mask": y.argmax(0).numpy().astype(np.uint8)}


def objects(model, source, row):
    found = {key: value.detach().numpy()[:3] for key, value in model([source.image(row)])[0].items()}
    return {
        "boxes": found["boxes"].astype(np.float32), "labels": found["labels"] - 1,
        "difficult": np.zeros(len(found["boxes"]), bool),
    }  # fmt: skip


def normals(model, source, row):
    (y,) = (y for i, y in dense.predicted(model, source) if i == row)
    y = y.numpy()
    return {"normals": np.rint(127.5 * (y / np.linalg.norm(y, axis=0) + 1)).astype(np.uint8).transpose(1, 2, 0)}


ANSWERS = {"segmentation": ("scenes", mask), "detection": ("scenes", objects), "surface_normals": ("spheres", normals)}
"""A data set that a protocol applies to, and what its model answers for a picture, as annotations."""


@pytest.fixture
def run(make_task, annotated, monkeypatch):
    """run(name, paths): the outcomes by split, and every model that was trained."""

    def evaluate(name, paths=annotated):
        module, trained, own = PROTOCOLS.load(name), [], dense.Training._train
        settings = module.Settings(
            finetune=Grid(lr=[1e-5, 1e-3], steps=[8]),
            optimization=Descent(batch_size=8, looks=1),
            **SMALL.get(name, {}),
        )
        with monkeypatch.context() as patch:
            patch.setattr(dense.Training, "_train", lambda *a: trained.append(own(*a)) or trained[-1])
            outcomes = module.evaluate(make_task("simclr", ANSWERS[name][0], paths), settings, 0)
        return {split: [o for o in outcomes if o.split == split] for split in ("val", "test")}, trained

    return evaluate


def same(a, b):
    return all(
        (x.metric, x.chosen, x.selection) == (y.metric, y.chosen, y.selection)
        and x.span == y.span
        and np.array_equal(x.scores, y.scores, equal_nan=True)
        for x, y in zip(a, b, strict=True)
    )


@pytest.mark.parametrize("name", DENSE)
def test_annotations_choose_on_val_and_only_there(run, reannotated, make_task, annotated, name):
    dataset, answer = ANSWERS[name]
    honest, trained = run(name)
    ((winner,), (loser,)) = (
        [each for each in trained if (each.chosen == honest["val"][0].chosen) == won] for won in (True, False)
    )

    def told(split, model, source):
        """The project where what is known of a split is what a model says."""
        return reannotated(dataset, split, lambda i, scene: replace(scene, **answer(model, source, i)), split)

    task = make_task("simclr", dataset, annotated)
    changed, _ = run(name, told("test", winner.model, dense.pictures(task, "test")))
    assert same(honest["val"], changed["val"])
    assert [o.chosen for o in honest["test"]] == [o.chosen for o in changed["test"]]
    assert not same(honest["test"], changed["test"])  # the change is there to be seen
    changed, _ = run(name, told("val", loser.model, dense.pictures(task, "val")))
    assert changed["test"][0].chosen == loser.chosen  # who lost wins where the truth is what it says
