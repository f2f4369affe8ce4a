"""A step of what the shipped studies train, on real digits: nobody waits minutes to learn that an encoder is too small."""

from pathlib import Path

import pytest
import torch
import yaml

from miyagi import params
from miyagi.methods.base import build
from miyagi.nn.encoders import base as encoders
from miyagi.paths import Paths
from miyagi.studies import expand, settings

ROOT = Path(__file__).parents[2]


def tried(study):
    """The ends of each grid, and what is none."""
    found, grids = expand.experiments(study.params["experiments"])
    inner = {name for grid in grids.values() for name in list(grid.values)[1:-1]}
    return [name for name in found if name not in inner]


@pytest.mark.parametrize("name", settings.names(Paths(ROOT)))
def test_a_step(name, info, make_batch, tmp_path):
    study = settings.read(name, Paths(ROOT))
    values = expand.expand(study, params.load(ROOT / "params.yaml"))[next(iter(study.arms))]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    read = params.read(tmp_path / "params.yaml")
    for key in tried(study):
        torch.manual_seed(0)
        experiment = read.experiment(key)
        encoder = encoders.build(experiment.encoder, info.mean, info.std)
        encoders.check_size(encoder, experiment.encoder["name"], info.size, key)
        if experiment.pretrain is not None:
            method = build(experiment.method, experiment.settings, encoder, info)
            loss = method(make_batch(method, experiment.views, n=16), 0.0)["loss"]
            assert torch.isfinite(loss) and loss > -1.01, key  # a cosine can be -1
            loss.backward()
        layers = {study.measure.layer, *(term.layer for c in study.comparisons.values() for term in expand.terms(c))}
        known = {"encoder", "head", None, *encoder.layers}
        assert layers <= known, key
