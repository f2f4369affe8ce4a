"""Every part once, tiny, through the real libraries; what the page says is computed from what was measured."""

import json
import re
import statistics

import pytest
import yaml

from benchmarks import machine
from benchmarks.__main__ import main
from benchmarks.commandline import command
from benchmarks.process import here
from benchmarks.report import page
from benchmarks.results import Results
from benchmarks.settings import FILE, read

pytestmark = pytest.mark.slow

OURS = {"method": "simclr", "temperature": 0.2, "recipe": "simclr_small", "pretrain": {"epochs": 2, "batch_size": 64}}
TINY = {
    "images": 128, "test_images": 60, "rate_images": 128, "size": 32, "width": 8, "batch": 64, "threads": 1, "repeats": 2,
    "data_path": {"recipes": ["simclr_small", "simclr"], "seconds": 0.0},
    "pretraining": {"temperature": 0.5, "lr": 0.06, "momentum": 0.9, "weight_decay": 0.0005, "epochs": 1, "turns": 1, "runtime": {}},
    "lightly": {"workers": [0, 1], "threads": [1], "trial_images": 64},
    "time_to_accuracy": {
        "seeds": [0, 1], "k": 5, "temperature": 0.1, "epochs": 1, "ours": {"fashion_mnist": OURS, "images": OURS},
    },
    "stages": {"repeats": 1, "experiments": ["random", "simclr"], "targets": ["sweep@simclr"], "imports": ["json"]},
    "growth": {"images": [64, 128], "batches": [32, 64], "repeats": 1, "epochs": 1},
    "orchestration": {
        "rounds": 1, "experiments": ["random", "simclr"], "changes": {"runtime": {"threads": 1}},
        "targets": ["sweep"], "tiny": {"experiments": ["simclr"], "targets": ["sweep"], "repeats": 1},
    },
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _nobody_edits():
    """The digest of the code stays as it is, whoever works in this checkout meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "code", lambda: "0123456789abcdef")
        yield


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """The folder of a finished tiny benchmark."""
    root = tmp_path_factory.mktemp("bench")
    (root / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    options = ["--params", root / "tiny.yaml", "--folder", root / "kept", "--out", root / "benchmarks.md"]
    main([str(option) for option in options], call=here)
    return root


@pytest.fixture(scope="module")
def kept(bench):
    """part -> records."""
    files = (bench / "kept" / "fashion_mnist").glob("*.json")
    found = {file.stem: json.loads(file.read_text())["records"] for file in files}
    trained = found["pretraining"]
    for turn in (0, 1):  # both of ours are measured in one training
        both = trained.pop(f"ours/{turn}")
        trained[f"ours/{turn}"], trained[f"ours_compute/{turn}"] = (
            both["ours"],
            both["ours_compute"] | {"flop": both["flop"]},
        )
    return found


@pytest.fixture(scope="module")
def cells(bench):
    """The page's tables: first cell -> the other cells, of every row."""
    found = {}
    for line in (bench / "benchmarks.md").read_text().splitlines():
        if line.startswith("| "):
            first, *rest = [cell.strip() for cell in line.strip("| ").split(" | ")]
            found.setdefault(first, []).append(rest)
    return found


def test_every_measurement_was_made(kept):
    systems = ("ours", "lightly", "torchvision")
    assert set(kept) == {
        "preparation", "data_path", "lightly", "pretraining", "time_to_accuracy", "stages", "growth",
        "orchestration",
    }  # fmt: skip
    trials = {f"trial/{system}/workers {workers}" for system in systems[1:] for workers in (0, 1)}
    rounds = {f"{r}/{system}/{turn}" for r in ("simclr_small", "simclr") for system in systems for turn in (0, 1)}
    assert set(kept["data_path"]) == trials | rounds
    systems = ("peak", "ours_compute", "ours", "lightly_compute", "lightly", "lightly_kept")
    assert set(kept["pretraining"]) == {f"{system}/{turn}" for system in systems for turn in (0, 1)}
    assert set(kept["time_to_accuracy"]) == {f"{side}/{seed}" for side in ("ours", "lightly") for seed in (0, 1)}
    assert set(kept["stages"]) == {"import json/0", "project"}
    assert set(kept["orchestration"]) == {"dvc/0", "flow/0", "tiny/dvc/0", "tiny/flow/0"}
    assert set(kept["growth"]) == {
        "prepare/64/0", "prepare/128/0", "train/64/64/0", "train/128/64/0", "train/64/32/0", "lightly/64/64/0",
    }  # fmt: skip


def test_both_sides_had_the_same_images(kept):
    assert kept["preparation"]["prepare/0"]["train"] == 128
    for system in ("ours_compute", "ours", "lightly_compute", "lightly", "lightly_kept"):
        record = kept["pretraining"][f"{system}/0"]
        assert record["images"] == 128
        assert record["rate"] == pytest.approx(128 / record["seconds"])
    for key, record in kept["data_path"].items():
        assert record["views"] == (128 if key.startswith("trial") else 256)
        assert record["rate"] == pytest.approx(record["views"] / record["seconds"])


def test_the_fastest_workers_were_taken(kept):
    for part, system in (("data_path", "lightly"), ("data_path", "torchvision"), ("lightly", "lightly")):
        rates = {key: record for key, record in kept[part].items() if key.startswith(f"trial/{system}/")}
        best = max(rates.values(), key=lambda record: record["rate"])["workers"]
        where = "data_path" if part == "data_path" else "pretraining"
        name = f"simclr/{system}/0" if part == "data_path" else "lightly/0"
        assert kept[where][name]["workers"] == best


def test_curves(kept):
    for key, record in kept["time_to_accuracy"].items():
        seconds, accuracy = zip(*record["curve"], strict=True)
        assert len(seconds) == (3 if key.startswith("ours") else 2)  # the untrained encoder, and each epoch
        assert seconds[0] == 0
        assert list(seconds) == sorted(set(seconds))
        assert all(0 < value <= 100 for value in accuracy)


def test_flop_of_a_sample(kept):
    """Against the textbook's count: 2 per weight and position, the backward pass twice the forward pass, two views.

    The images need no gradient, so the first layer's backward pass is half of that; the loss adds 2 x 3 x 2N x D.
    """
    layers = [(3, 8, 32), (8, 8, 16), (8, 8, 8), (8, 8, 4)]
    convolutions = [2 * 9 * a * b * side**2 for a, b, side in layers]
    head = 2 * (32 * 256 + 256 * 128)
    expected = 2 * (3 * (sum(convolutions) + head) - convolutions[0] + 3 * 2 * 2 * 64 * 128)
    assert kept["pretraining"]["ours_compute/0"]["flop"] == pytest.approx(expected, rel=0.02)


def test_targets_are_computed_from_what_was_measured(kept, cells):
    def ratio(part, first, second, factor=1.0):
        records = kept[part]
        values = [records[f"{first}/{turn}"]["rate"] / records[f"{second}/{turn}"]["rate"] for turn in (0, 1)]
        return factor * statistics.median(values)

    trained = kept["pretraining"]
    reached = [
        100 * trained[f"ours_compute/{turn}"]["rate"] * trained[f"ours_compute/{turn}"]["flop"] / trained[f"peak/{turn}"]["rate"]
        for turn in (0, 1)
    ]  # fmt: skip
    memory = {key: record["rss_anon"] for key, record in kept["growth"].items()}
    expected = {
        "data path, simclr_small: ours / lightly": (12, ratio("data_path", "simclr_small/ours", "simclr_small/lightly")),
        "data path, simclr_small: ours / torchvision": (20, ratio("data_path", "simclr_small/ours", "simclr_small/torchvision")),
        "data path, simclr: ours / lightly": (12, ratio("data_path", "simclr/ours", "simclr/lightly")),
        "data path, simclr: ours / torchvision": (20, ratio("data_path", "simclr/ours", "simclr/torchvision")),
        "end to end: ours / lightly": (2, ratio("pretraining", "ours", "lightly")),
        "ours: end to end / compute only": (92, ratio("pretraining", "ours", "ours_compute", 100)),
        "compute only: ours / lightly": (1.25, ratio("pretraining", "ours_compute", "lightly_compute")),
        "ours: compute only / matrix-product peak": (70, statistics.median(reached)),
        "peak memory of pretraining: batch 64 / 32": (1.05, memory["train/64/64/0"] / memory["train/64/32/0"]),
    }  # fmt: skip
    for name, (bound, value) in expected.items():
        ((_, measured, n, holds),) = cells[name]
        assert float(measured.split()[0].replace(",", "")) == pytest.approx(value, rel=0.006), name
        assert holds == ("yes" if value >= bound else "**no**"), name
        assert n == ("1" if "memory" in name else "2")
    ((wanted, measured, _, holds),) = cells["peak memory of pretraining: 128 / 64 images"]
    value = memory["train/128/64/0"] / memory["train/64/64/0"]
    assert (wanted, holds) == ("<= 1.05 x", "yes" if value <= 1.05 else "**no**")
    assert float(measured.split()[0]) == pytest.approx(value, rel=0.006)


def test_both_sides_of_an_orchestration_ran_the_same_stages(kept, cells):
    found = kept["orchestration"]  # tiny: one experiment's sweep and, forced, the data before it
    assert {key: record["stages"] for key, record in found.items()} == {
        "dvc/0": 2, "flow/0": 2, "tiny/dvc/0": 2, "tiny/flow/0": 2,
    }  # fmt: skip
    assert found["dvc/0"]["server"] == 0 < found["flow/0"]["server"]
    ((_, measured, n, _),) = cells["wall time, trainings side by side: make flow / dvc repro"]
    assert float(measured.split()[0]) == pytest.approx(
        found["flow/0"]["seconds"] / found["dvc/0"]["seconds"], rel=0.006
    )
    assert n == "1"


def test_the_random_floor_is_in_the_table(kept, cells):
    for seed in ("0", "1"):
        theirs, ours = cells[seed]
        for side, row in (("lightly", theirs), ("ours", ours)):
            curve = kept["time_to_accuracy"][f"{side}/{seed}"]["curve"]
            assert [float(cell) for cell in row[1:3]] == [round(curve[0][1], 2), round(curve[-1][1], 2)]


def test_the_page_says_what_it_was_measured_with(bench):
    text = (bench / "benchmarks.md").read_text()
    for words in ("Fashion-MNIST: 128 training and 60 test images", "torch 2.", "lightly 1.", "cores", "load average"):
        assert words in text
    assert str(bench) not in text
    assert "Not one run" not in text
    assert re.search(r"`sweep@simclr` \| \d", text)
    assert "dvc repro, nothing to do" in text


def test_a_finished_benchmark_is_only_shown(bench, capsys):
    def refuse(target, **arguments):
        raise AssertionError(f"measured again: {target}")

    before = (bench / "benchmarks.md").read_text()
    options = ["--params", bench / "tiny.yaml", "--folder", bench / "kept", "--out", bench / "again.md"]
    main([str(option) for option in options], call=refuse)
    main(["report", *map(str, options[2:])], call=refuse)
    assert (bench / "again.md").read_text() == before
    assert "## Targets" in capsys.readouterr().out


def test_parts_of_different_runs_are_told(bench, tmp_path):
    for file in (bench / "kept" / "fashion_mnist").glob("*.json"):
        (tmp_path / file.name).write_text(file.read_text())
    other = json.loads((tmp_path / "growth.json").read_text())
    other["conditions"]["code"] = "another"
    (tmp_path / "growth.json").write_text(json.dumps(other))
    (tmp_path / "stages.json").unlink()
    text = page(Results(tmp_path, "x"), "Fashion-MNIST")
    assert "**Not one run:** measured with different code: growth (git " in text
    assert "Not measured yet: stages." in text


def test_the_shipped_settings_are_the_issues():
    shipped = read(FILE)
    assert (shipped.images, shipped.test_images, shipped.batch, shipped.threads, shipped.repeats) == (
        10_000,
        10_000,
        256,
        2,
        5,
    )
    assert len(shipped.time_to_accuracy.seeds) == 3
    assert (shipped.time_to_accuracy.epochs, shipped.time_to_accuracy.k, shipped.time_to_accuracy.temperature) == (
        10,
        200,
        0.1,
    )
    assert shipped.lightly.workers == [0, 1, 2]
    assert [n / shipped.growth.images[0] for n in shipped.growth.images] == [1, 2, 4]


def test_a_part_that_is_none(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["grwth", "--folder", str(tmp_path)])
    assert stopped.value.code == 2
    assert "there is no part 'grwth'; did you mean 'growth'?" in capsys.readouterr().err


def test_the_command_on_the_page_names_no_path():
    assert (
        command("benchmarks", ["data_path", "--images", "somewhere/pictures/cifar10"])
        == "python -m benchmarks data_path --images cifar10"
    )
