"""sweep@E: an experiment's entry -> `runs/E/experiment.yaml`, the total description of what will be trained."""

import yaml

from miyagi.files import write_text
from miyagi.params import Params
from miyagi.paths import Paths
from miyagi.settings import Experiment

HEADER = "# Written by `miyagi sweep`: every value that decides the training. Edit params.yaml instead.\n"


def run(name: str, params: Params, paths: Paths) -> Experiment:
    """Resolve the experiment and write it down, keys sorted, no value left to a default."""
    experiment = params.experiment(name)
    text = yaml.safe_dump(experiment.model_dump(mode="json"), sort_keys=True, allow_unicode=True)
    write_text(paths.experiment(name), HEADER + text)
    return experiment
