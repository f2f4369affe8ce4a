"""A task on the small project: digits, Conv-4 of width 8, simclr and the random floor."""

from functools import partial

import pytest
import torch


@pytest.fixture
def make_task(trained):
    """make_task(name="simclr", dataset="digits", paths=trained): the task as the stage makes it."""
    from miyagi.protocols.task import Task
    from miyagi.settings import Experiment
    from miyagi.train.setup import set_up
    from miyagi.train.weights import about

    def make(name="simclr", dataset="digits", paths=trained, kind=Task):
        weights = paths.run(name, 0) / "encoder.safetensors"
        experiment = Experiment.model_validate(about(weights)["experiment"], strict=False)
        return kind(experiment, weights, dataset, set_up(experiment.runtime), paths)

    yield make
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def write_bank(write_bank):
    """As everywhere; pretraining had images of none of the classes, unless `seen` says of which."""
    return partial(write_bank, seen=[])


@pytest.fixture
def relabelled(copied, trained):
    """relabelled({"test": labels}): the small project with the labels of a split replaced; its pixels stay."""
    from miyagi.data.betons import read_images, write_beton

    def change(labels, name="relabelled", images=None):
        paths = copied(trained, name)
        for split, values in labels.items():
            pixels, _ = read_images(paths.beton("digits", split))
            write_beton(paths.beton("digits", split), (images or {}).get(split, pixels), values)
        return paths

    return change


@pytest.fixture
def reannotated(copied, annotated):
    """reannotated("scenes", "val", change): the annotated project where a scene at a position is `change(position, it)`."""
    from dataclasses import replace

    from miyagi.data.annotations import Annotations, write_annotations
    from miyagi.data.decode import Beton
    from miyagi.data.scene import Scene

    def make(dataset, split, change, name="reannotated"):
        paths = copied(annotated, name)
        file = paths.annotations(dataset, split)
        known, pictures = Annotations(file), Beton(paths.beton(dataset, split))
        scenes = []
        for i in range(len(known)):
            objects = known.objects(i) if "boxes" in known.kinds else ()
            mask, normals = (known.map(kind, i) if kind in known.kinds else None for kind in ("masks", "normals"))
            scenes.append(change(i, replace(Scene(pictures[i], *objects), mask=mask, normals=normals)))
        write_annotations(file, scenes, known.kinds)
        return paths

    return make
