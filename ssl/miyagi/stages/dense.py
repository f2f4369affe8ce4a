"""dense@E-S-P: an encoder and annotated pictures -> the stamped rows of one protocol that trains it on them."""

from miyagi.paths import Paths
from miyagi.protocols.evaluation import evaluate
from miyagi.settings import DenseSettings


def run(
    name: str, seed: int, protocol: str, datasets: list[str], settings: DenseSettings, paths: Paths
) -> dict[str, float]:
    """Evaluate one encoder on the data sets that `Params.scenes` names; see protocols/evaluation.py."""
    return evaluate("dense", name, seed, protocol, datasets, settings, paths)
