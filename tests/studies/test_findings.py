"""What people read: lines, the table of docs/findings.md, the report's file, the matrix of augmentations."""

import json

import numpy as np
import pytest
from PIL import Image

from miyagi.errors import UserError
from miyagi.report.studies import read
from miyagi.studies import findings, listing, picture, run
from tests.studies.test_expand import study
from tests.studies.test_verdict import GRID, NAMES

N = 200


def first(count):
    return np.arange(N) < count


def test_the_lines_of_a_verdict(written):
    written.add(limits="Colours.")
    written.add("other", finding=2)
    for seed in (0, 1):
        written.measure("tau_0_5", seed, first(170))
        written.measure("random", seed, first(120))
    with pytest.raises(UserError, match="tau_0_5-0-knn cannot be read .*; run: miyagi study run other"):
        findings.told("other", written.paths)  # begun, and killed
    head, claim, part, limits = findings.told("it", written.paths)
    assert head.startswith("it: confirmed (p < 0.0001 after Holm over 2 studies, n 200, 2 seeds)")
    assert claim == "claim: A beats B. [nobody]"
    assert part.startswith("  it: tau_0_5 - random: +25.00 [+18.")
    assert ", claimed at least 1, could have shown " in part
    assert limits == "not tested: Colours."


def test_what_has_not_run(written):
    written.add()
    run.place("it", "main", written.paths).params.unlink()
    with pytest.raises(UserError, match="it has not run; run: miyagi study run it"):
        findings.told("it", written.paths)
    with pytest.raises(UserError, match="no study has run"):
        findings.write(written.paths)


def test_a_claim_that_was_changed_afterwards_is_not_judged(written):
    written.add()
    file = written.paths.root / "studies" / "it.yaml"
    file.write_text(file.read_text().replace("minimum: 1.0", "minimum: 0.1"))
    with pytest.raises(UserError, match="studies/it.yaml has changed since it ran"):
        findings.told("it", written.paths)


def test_the_table_and_the_text_around_it(written):
    written.add(claim="A | B")
    written.add("later", finding=2)
    run.place("later", "main", written.paths).params.unlink()
    for seed in (0, 1):
        written.measure("tau_0_5", seed, first(120))
        written.measure("random", seed, first(170))
    file = written.paths.root / "docs" / "findings.md"
    file.write_text(f"# Mine\nbefore\n{findings.BEGIN}\nold\n{findings.END}\nafter\n")
    for _ in range(2):
        assert findings.write(written.paths) == [file, written.paths.verdicts]
        lines = file.read_text().splitlines()
        assert lines[:3] == ["# Mine", "before", findings.BEGIN]
        assert lines[-2:] == [findings.END, "after"]
        assert lines[5].startswith(r"| 1 | `it`: A \| B | *refuted* | < 0.0001 | it: tau_0_5 - random | -25.00 [")
        assert lines[6] == "| 2 | `later`: A beats B. | not run | | | | | | 200 | 2 |"
        assert len({line.replace(r"\|", "").count("|") for line in lines[3:7]}) == 1
    file.write_text("# no place")
    with pytest.raises(UserError, match=r"docs/findings.md lacks the two lines"):
        findings.write(written.paths)


def test_a_verdict_from_another_checkout_counts_as_if_it_had_run_here(written):
    written.add()
    written.add("later", finding=2)
    for seed in (0, 1):
        written.measure("tau_0_5", seed, first(120))
        written.measure("random", seed, first(170))
    run.place("later", "main", written.paths).params.unlink()
    findings.write(written.paths)
    before, (head, *_) = written.paths.verdicts.read_text(), findings.told("it", written.paths)
    run.place("it", "main", written.paths).params.unlink()  # what a clone has: files of git and no runs
    assert findings.told("it", written.paths)[0] == head
    findings.write(written.paths)
    assert written.paths.verdicts.read_text() == before
    assert "| *refuted* |" in (written.paths.root / "docs" / "findings.md").read_text()
    file = written.paths.root / "studies" / "it.yaml"
    file.write_text(file.read_text().replace("minimum: 1.0", "minimum: 0.1"))
    with pytest.raises(UserError, match="it has not run"):
        findings.told("it", written.paths)
    written.paths.verdicts.write_text("<<<<<<< HEAD\n")
    with pytest.raises(UserError, match=r"studies/verdicts.json cannot be read .*; run: git checkout studies/verdicts"):
        findings.told("it", written.paths)


def test_the_file_for_the_report(written):
    peak = {"form": "peak_between", "test": "t", "over": "tau", "low": 0.5, "high": 0.5, "minimum": 1.0}
    written.add(comparisons={"it": peak}, limits="Colours.")
    written.add("later", finding=2)
    for seed in (0, 1):
        written.measure("tau_0_5", seed, first(120))
        written.measure("tau_0_1", seed, first(170))
    findings.write(written.paths)
    text = written.paths.verdicts.read_text()
    first_one, later = json.loads(text)
    assert list(first_one) == sorted(first_one)
    assert text.endswith("]\n")
    (part,) = first_one.pop("parts")
    assert (part["name"], part["form"], part["said"]) == ("it", "peak_between", "tau_0_5 - tau_0_1, chosen on val")
    assert (part["effect"], part["claimed"]) == (-25.0, "at least 1")
    assert part["low"] < -25 < part["high"] < 0 < part["detectable"]
    (curve,) = first_one.pop("curves")
    assert (curve["name"], curve["setting"], curve["values"]) == ("it", "temperature", [0.1, 0.5])
    assert [point[0] for point in curve["points"]] == [85.0, 60.0]
    assert first_one.pop("p") < 1e-6
    assert (part["enough"], part["refute"] < 1e-6 < 0.5 < part["confirm"]) == (False, True)
    assert len(first_one.pop("text")) == 16
    assert first_one == {
        "name": "it", "finding": 1, "claim": "A beats B.", "source": "nobody", "limits": "Colours.", "verdict": "refuted",
        "n": 200, "seeds": 2,
    }  # fmt: skip
    assert [later[key] for key in ("name", "verdict", "p", "parts", "curves")] == ["later", None, None, [], []]
    assert read(text) == findings.verdicts(written.paths)
    findings.write(written.paths)
    assert written.paths.verdicts.read_text() == text


def test_a_ranking_of_ties_has_no_effect(written):
    kendall = {"form": "kendall", "test": "bootstrap", "a": NAMES, "b": NAMES, "at_least": 0.5}
    written.add(params={**study().params, "experiments": {"tau": GRID}}, comparisons={"it": kendall})
    for seed in (0, 1):
        for name in NAMES:
            written.measure(name, seed, first(100))
    findings.write(written.paths)
    (found,) = read(written.paths.verdicts.read_text())
    assert (found.verdict, found.parts[0].span) == ("undecided at this scale", None)
    assert "| none: all are tied |" in (written.paths.root / "docs" / "findings.md").read_text()


OPS = {"op": {"method": "simclr", "pairs": {"crop": {}, "blur": {}, "flip": {}}}}
RIGHT = {"op_crop": 120, "op_blur": 100, "op_flip": 80, "op_crop_blur": 180, "op_crop_flip": 150, "op_blur_flip": 90}


@pytest.fixture
def matrix(written):
    best = {"form": "best_of", "test": "t", "these": ["op_crop_blur"], "those": ["op_crop"], "minimum": 1.0}
    written.add(params={**study().params, "experiments": OPS}, comparisons={"it": best}, matrix="op")
    for seed in (0, 1):
        for name, right in RIGHT.items():
            written.measure(name, seed, first(right))
    return written


def test_the_matrix_by_hand(matrix):
    runs = findings.measured("it", study(params={**study().params, "experiments": OPS}), matrix.paths)
    names, found = picture.accuracies(runs, "op")
    assert names == ["crop", "blur", "flip"]
    assert found.tolist() == [[60, 90, 75], [90, 50, 45], [75, 45, 40]]


def test_the_picture_is_drawn_and_the_same_each_time(matrix):
    assert findings.told("it", matrix.paths)[-1] == "picture: docs/it.png"
    file = matrix.paths.root / "docs" / "it.png"
    before = file.read_bytes()
    with Image.open(file) as drawn:
        assert min(drawn.size) > 300
        assert len(np.unique(np.asarray(drawn.convert("RGB")))) > 50
    findings.told("it", matrix.paths)
    assert file.read_bytes() == before


def test_list_and_show(written):
    written.add()
    written.paths.params.write_text("runtime: {}\nfinetune: {experiments: [a], protocols: [b]}\n")
    assert listing.listed(written.paths) == [" 1  it   22 stages  begun  A beats B."]
    shown = listing.shown("it", written.paths)
    assert "claim: A beats B." in shown[0]
    assert shown[1:] == ["", "# main: 22 stages, seeds 0, 1", "#   random", "#   tau_0_1", "#   tau_0_5"]
