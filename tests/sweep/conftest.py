import pytest
import yaml

from miyagi import params
from miyagi.sweep.space import Space
from tests.conftest import SMALL

SPACE = {
    "temperature": {"low": 0.05, "high": 1.0, "log": True},
    "head.kind": {"choices": ["linear", "mlp"]},
    "head.width": {"low": 16, "high": 512, "log": True, "when": {"head.kind": "mlp"}},
    "augment.blur": {"choices": [None, {"p": 0.5}]},
}
OBJECTIVE = {"epochs": 2, "train_limit": 128}


def small(**sweep):
    """params.yaml of the small project in which simclr is tuned."""
    sweep = {"trials": 4, "space": SPACE, "objective": OBJECTIVE} | sweep
    experiments = SMALL["experiments"] | {"simclr": SMALL["experiments"]["simclr"] | {"sweep": sweep}}
    return SMALL | {"experiments": experiments}


@pytest.fixture
def tuned(tmp_path):
    """tuned(**sweep): params in which simclr has that sweep."""

    def read(**sweep):
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(small(**sweep)))
        return params.read(tmp_path / "params.yaml")

    return read


@pytest.fixture
def space(tuned):
    """space(**sweep): the checked space of simclr's sweep."""

    def checked(**sweep):
        read = tuned(**sweep)
        return Space("simclr", read, read.sweep("simclr"))

    return checked
