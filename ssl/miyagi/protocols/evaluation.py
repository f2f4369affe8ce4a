"""What the stages that evaluate an encoder on betons share: one protocol on several data sets, and its stamped rows."""

import sys

from threadpoolctl import threadpool_limits

from miyagi.data.manifest import data_digest
from miyagi.errors import UserError
from miyagi.paths import Paths
from miyagi.protocols.base import DoesNotApply
from miyagi.protocols.rows import Rows
from miyagi.protocols.task import Task
from miyagi.registry import PROTOCOLS
from miyagi.settings import Experiment, Frozen
from miyagi.train.setup import set_up
from miyagi.train.weights import about


def evaluate(
    stage: str, name: str, seed: int, protocol: str, datasets: list[str], settings: Frozen, paths: Paths
) -> dict[str, float]:
    """Evaluate one encoder on `datasets` and write `P.json` and what is behind it.

    Args:
        stage: "finetune" or "dense", the family of the protocol.
        name: the experiment.
        seed: its seed.
        protocol: the protocol's key.
        datasets: keys of the data sets to evaluate on.
        settings: the protocol's.
        paths: the project's files.

    Returns:
        The summary; see protocols/rows.py.

    Raises:
        UserError: an input is missing or broken, or the protocol applies to none of the data sets.
    """
    module = PROTOCOLS.load(protocol)
    own = module.Settings.model_validate(settings.model_dump())
    weights = paths.run(name, seed) / "encoder.safetensors"
    experiment = Experiment.model_validate(about(weights)["experiment"], strict=False)
    device = set_up(experiment.runtime)
    rows = Rows(stage, name, seed, protocol, own, paths)
    reasons = []
    for dataset in datasets:
        task = Task(experiment, weights, dataset, device, paths)
        try:
            task.check()
            with threadpool_limits(experiment.runtime.threads):
                outcomes = module.evaluate(task, own, seed)
        except DoesNotApply as reason:
            reasons.append(f"{protocol} does not apply to {task.key}: {reason}")
            print(f"miyagi: note: {reasons[-1]}", file=sys.stderr)
            continue
        rows.add(dataset, data_digest(task.manifest), outcomes, task.width, task.labels)
    if len(reasons) == len(datasets):
        raise UserError(f"{stage}.protocols: {reasons[0]}; take {protocol} off the list, or name other data sets")
    return rows.write()
