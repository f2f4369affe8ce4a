"""A task on the small project: digits, Conv-4 of width 8, simclr and the random floor."""

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
