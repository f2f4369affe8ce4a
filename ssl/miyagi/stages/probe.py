"""probe@E-S-P: the banks of one encoder -> the stamped rows of one protocol. Imports no torch."""

from typing import Any

import numpy as np
import yaml
from safetensors.numpy import save_file
from threadpoolctl import threadpool_limits

from miyagi.code import code_digest, declared
from miyagi.files import canonical, digest, replacing, write_json
from miyagi.metrics.bootstrap import interval
from miyagi.paths import Paths
from miyagi.protocols.base import Bank, Outcome
from miyagi.registry import PROTOCOLS
from miyagi.settings import Frozen

Row = dict[str, Any]


def run(name: str, seed: int, protocol: str, datasets: list[str], settings: Frozen, paths: Paths) -> dict[str, float]:
    """Evaluate every data set's bank and write `P.json` and the predictions behind it.

    Returns:
        The summary: "<dataset>.<split>.<layer>.<metric>" -> value.
    """
    module = PROTOCOLS.load(protocol)
    own = module.Settings.model_validate(settings.model_dump())
    method = yaml.safe_load(paths.experiment(name).read_text(encoding="utf-8"))["method"]
    code = code_digest(declared(paths.dag, "probe", {"protocol": protocol}))
    rows: list[Row] = []
    predictions: dict[str, np.ndarray] = {}
    for dataset in datasets:
        bank = Bank(paths.bank(name, seed, dataset))
        with threadpool_limits(bank.stamp["threads"]):
            outcomes: list[Outcome] = module.evaluate(bank, own, seed)
        for outcome in outcomes:
            low, high = interval(outcome.scores)
            rows.append(
                {
                    "experiment": name,
                    "method": method,
                    "protocol": protocol,
                    "settings": digest(own.model_dump(mode="json")),
                    "dataset": dataset,
                    "split": outcome.split,
                    "layer": outcome.layer,
                    "dimensions": bank.split(outcome.split, outcome.layer).x.shape[1],
                    "metric": outcome.metric,
                    "value": float(outcome.scores.mean()),
                    "low": low,
                    "high": high,
                    "interval": f"bootstrap over {outcome.unit}, 95 %",
                    "n": len(outcome.scores),
                    "seed": seed,
                    "selection": outcome.selection,
                    "chosen": outcome.chosen,
                    "data": bank.stamp["data"],
                    "code": code,
                    "higher_is_better": True,
                }
            )
            if outcome.predicted is not None:
                predictions[f"{dataset}.{outcome.split}.{outcome.layer}"] = outcome.predicted
                predictions[f"{dataset}.{outcome.split}.labels"] = bank.split(outcome.split, outcome.layer).y
    summary = {f"{row['dataset']}.{row['split']}.{row['layer']}.{row['metric']}": row["value"] for row in rows}
    with replacing(paths.predictions(name, seed, protocol)) as temporary:
        save_file(predictions, str(temporary), metadata={"miyagi": canonical({"protocol": protocol})})
    write_json(paths.rows(name, seed, protocol), {"summary": summary, "rows": rows})
    return summary
