"""finetune@E-S-P: an encoder and betons -> the stamped rows of one protocol that trains or attacks the encoder."""

from miyagi.paths import Paths
from miyagi.protocols.evaluation import evaluate
from miyagi.settings import FinetuneSettings


def run(
    name: str, seed: int, protocol: str, datasets: list[str], settings: FinetuneSettings, paths: Paths
) -> dict[str, float]:
    """Evaluate one encoder on the data sets that `Params.targets` names; see protocols/evaluation.py."""
    return evaluate("finetune", name, seed, protocol, datasets, settings, paths)
