"""probe@E-S-P: the banks of one encoder -> the stamped rows of one protocol. Imports no torch."""

import sys

from threadpoolctl import threadpool_limits

from miyagi.errors import UserError
from miyagi.paths import Paths
from miyagi.protocols.base import Bank, DoesNotApply
from miyagi.protocols.rows import Rows
from miyagi.registry import PROTOCOLS
from miyagi.settings import Frozen


def run(name: str, seed: int, protocol: str, datasets: list[str], settings: Frozen, paths: Paths) -> dict[str, float]:
    """Evaluate every data set's bank and write `P.json` and the predictions behind it.

    Returns:
        The summary; see protocols/rows.py.

    Raises:
        UserError: the protocol applies to none of the data sets, or its settings ask for what a bank does not hold.
    """
    module = PROTOCOLS.load(protocol)
    own = module.Settings.model_validate(settings.model_dump())
    rows = Rows("probe", name, seed, protocol, own, paths)
    banks = {dataset: Bank(paths.bank(name, seed, dataset)) for dataset in datasets}
    reasons = []
    for dataset, bank in banks.items():
        bank.others = {other: banks[other] for other in datasets if other != dataset}
        try:
            with threadpool_limits(bank.stamp["threads"]):
                outcomes = module.evaluate(bank, own, seed)
        except DoesNotApply as reason:
            reasons.append(f"{protocol} does not apply to datasets.{dataset}: {reason}")
            print(f"miyagi: note: {reasons[-1]}", file=sys.stderr)
            continue
        rows.add(dataset, bank.stamp["data"], outcomes, bank.width, bank.labels)
    if len(reasons) == len(banks):
        raise UserError(f"probe.protocols: {reasons[0]}; take {protocol} off the list, or add a data set it applies to")
    return rows.write()
