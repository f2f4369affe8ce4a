"""No protocol's choice, and nothing that it fits, sees the test split: every registered probe is put to the proof."""

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from miyagi.errors import UserError
from miyagi.protocols.base import Bank, DoesNotApply, Fitted, best_on_val, classify
from miyagi.registry import PROTOCOLS

PROBES = [name for name, entry in PROTOCOLS.entries.items() if entry.family == "probe"]
SETTINGS = {
    "knn": {"k": [1, 20, 100]},
    "linear": {"c": [1e-4, 0.1], "solvers": ["lbfgs", "sgd"], "sgd": {"lr": [0.001, 1.0], "epochs": 5}},
    "svm": {"c": [0.01, 1.0]},
    "layers": {"c": [1e-4, 0.1]},
    "fewshot": {"splits": ["val", "test"], "queries": 5, "episodes": 50},
    "invariance": {"epochs": 3},
    "ood": {"k": 5},
}
"""What gives a protocol something to choose, and shows its validation rows; a protocol not named here runs as it is."""


def planted(arrays):
    """A leak in the test split alone: one feature of each layer is the image's label, and nothing else counts beside it."""
    found = dict(arrays)
    for key, value in arrays.items():
        if key.startswith("test") and not key.endswith(".labels"):
            found[key] = value.copy()
            found[key][:, 0] = 1000 * (1 + arrays["test.labels"][: len(value)])
    return found


@pytest.fixture(scope="module")
def arrays(pixels):
    """Digits with a layer more, a head, and transformed copies."""
    found = dict(pixels)
    for split in ("train", "val", "test"):
        found[f"{split}.head"] = pixels[f"{split}.encoder"][:, ::4]
        for layer in ("encoder", "head"):
            found[f"{split}~gray1.{layer}"] = 1 - found[f"{split}.{layer}"][:100] ** 2
    return found


def run(evaluate, settings, write_bank, arrays, name, other):
    bank = Bank(write_bank(arrays, name))
    bank.others = {"other": Bank(write_bank(other, "other"))}
    with threadpool_limits(1):
        return evaluate(bank, settings, 0)


def decided(outcomes):
    """All that was chosen, on either split, and what the fitted models make of the validation images."""
    kept = []
    for o in outcomes:
        choice = (o.layer, o.split, o.metric, str(o.condition), o.selection, str(o.chosen))
        seen = (o.scores.tolist(), None if o.predicted is None else o.predicted.tolist()) if o.split == "val" else ()
        kept.append((choice, seen))
    return kept


@pytest.mark.parametrize("name", PROBES)
def test_a_leak_in_the_test_split_changes_no_choice_and_no_model(write_bank, arrays, name):
    module = PROTOCOLS.load(name)
    settings = module.Settings.model_validate(SETTINGS.get(name, {}))
    other = {key: 1 - value if "labels" not in key else value for key, value in arrays.items()}
    honest = run(module.evaluate, settings, write_bank, arrays, "honest", other)
    leaky = run(module.evaluate, settings, write_bank, planted(arrays), "leaky", other)
    assert {o.split for o in honest} == {"val", "test"}
    assert decided(honest) == decided(leaky)
    tests = [[o.scores.tolist() for o in outcomes if o.split == "test"] for outcomes in (honest, leaky)]
    assert tests[0] != tests[1]  # the leak is there to be seen


@pytest.mark.parametrize("name", PROBES)
def test_a_rerun_gives_the_same_bits(write_bank, arrays, name):
    module = PROTOCOLS.load(name)
    settings = module.Settings.model_validate(SETTINGS.get(name, {}))
    first, second = (run(module.evaluate, settings, write_bank, arrays, "twice", arrays) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert (a.chosen, a.selection, a.span) == (b.chosen, b.selection, b.span)
        assert np.array_equal(a.scores, b.scores) and np.array_equal(a.predicted, b.predicted)


def test_the_proof_finds_a_protocol_that_peeks(write_bank, arrays):
    """A choice by test accuracy, and a scale taken over the test split, are both caught."""

    def chooses(bank, settings, seed):
        test = bank.split("test", "encoder")

        def fit(train, val):
            column, rule = best_on_val(range(5), lambda c: float(np.corrcoef(test.x[:, c], test.y)[0, 1]))
            return Fitted(lambda x: x[:, column].astype(np.int64), {"column": column}, rule)

        return classify(bank, ["encoder"], fit)

    def scales(bank, settings, seed):
        mean = bank.features("test", "encoder").mean(0)
        return classify(
            bank, ["encoder"], lambda train, val: Fitted(lambda x: np.abs(x - mean).argmax(1) % 10, {}, "fixed")
        )

    for peeks in (chooses, scales):
        outcomes = [
            run(peeks, None, write_bank, bank, name, arrays)
            for bank, name in ((arrays, "honest"), (planted(arrays), "leaky"))
        ]
        assert decided(outcomes[0]) != decided(outcomes[1])


@pytest.mark.parametrize("name", [name for name in PROBES if "layers" in PROTOCOLS.settings(name).model_fields])
def test_a_layer_that_is_not_there_is_one_line(write_bank, arrays, name):
    module = PROTOCOLS.load(name)
    settings = module.Settings.model_validate(SETTINGS.get(name, {}) | {"layers": ["encoder", "conv9"]})
    with pytest.raises(UserError, match=r"^[^\n]*has no layer 'conv9'; did you mean 'conv1'\?$"):
        run(module.evaluate, settings, write_bank, arrays, "bank", arrays)


@pytest.mark.parametrize("name", PROBES)
def test_a_class_with_one_image_is_evaluated_or_one_line(write_bank, arrays, name):
    rare = dict(arrays)
    for split in ("train", "val", "test"):
        labels = arrays[f"{split}.labels"].copy()
        labels[labels == 3] = 4
        labels[0] = 3
        rare[f"{split}.labels"] = labels
    module = PROTOCOLS.load(name)
    settings = module.Settings.model_validate(SETTINGS.get(name, {}))
    if name in ("svm", "fewshot"):  # one image can be on one side of a split only
        with pytest.raises(DoesNotApply, match=rf"^evaluate\.{name}[^\n]*$"):
            run(module.evaluate, settings, write_bank, rare, "rare", arrays)
    else:
        outcomes = run(module.evaluate, settings, write_bank, rare, "rare", arrays)
        assert outcomes and all(np.isfinite(o.scores).all() for o in outcomes)
