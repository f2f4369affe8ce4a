import pytest

from miyagi.commands import estimate
from miyagi.commands.estimate import Stage
from miyagi.commands.measure import Bench, Cost, grown
from miyagi.params import read
from miyagi.paths import Paths


def test_how_a_time_goes_on():
    assert grown(2.0, 5.0, 1.0) == 5.0
    assert grown(2.0, 5.0, 3.0) == pytest.approx(1.0 + 4.0 * 3)  # 1 s, and 1 s for as many as the small copy has
    assert grown(1.0, 16.0, 2.0) == pytest.approx(16.0 * 4)  # all with all
    assert grown(3.0, 2.0, 10.0) == 2.0  # noise, not growth
    assert grown(0.001, 16.0, 2.0) == pytest.approx(64.0)  # nothing here grows faster than with the square


def test_lines_add_up():
    stages = [Stage("prepare", Cost(30.0, 5e6)), Stage("probe", Cost(45.0, 1e3)), Stage("probe", Cost(45.0, 1e3))]
    header, prepare, probe, total, note = estimate.told(stages)
    assert "annotate and dense" in estimate.told(stages, dense=True)[4]
    assert prepare.split() == ["prepare", "1", "30", "s", "5", "MB"]
    assert probe.split() == ["probe", "2", "1.5", "min", "2", "kB"]
    assert total.split() == ["total", "3", "2.0", "min", "5", "MB"]
    assert header.split()[0] == "stage" and "cached" in note


@pytest.mark.parametrize("prepared", [True, False])
def test_a_bench_costs_every_stage_and_leaves_the_project_alone(project, tmp_path, prepared, copied):
    paths = copied(project)
    before = {file: file.stat().st_mtime_ns for file in paths.root.rglob("*") if file.is_file()}
    stored = sum(file.stat().st_size for file in paths.manifest("digits").parent.iterdir())
    if not prepared:
        for file in paths.manifest("digits").parent.iterdir():
            before.pop(file)
            file.unlink()
    bench = Bench(read(paths.params), paths, Paths(tmp_path))
    betons = bench.prepare("digits")
    assert bench.counts["digits"] == {"train": 256, "val": 64, "test": 200}
    bench.sweep("simclr"), bench.sweep("random")
    trained, floor = bench.pretrain("simclr"), bench.pretrain("random")
    bank, rows = bench.embed("simclr", "digits"), bench.probe("simclr", "knn")
    assert betons.bytes == pytest.approx(stored, rel=0.01)
    assert trained.seconds > 0.05 and floor.seconds == 0 and 0 < floor.bytes < trained.bytes
    layers = 4 * 32 + 32 + 128  # each tap is pooled to 2 x 2 of 8 channels, at most 64; the encoder; the head
    assert bank.bytes == pytest.approx(520 * 4 * layers, rel=0.05)
    assert rows.seconds > 0 and rows.bytes > 1000
    assert bench.embed("random", "digits") is bank  # the same encoder
    assert {file: file.stat().st_mtime_ns for file in paths.root.rglob("*") if file.is_file()} == before


def test_more_steps_cost_more(project, tmp_path):
    params = read(project.params)
    few, many = (
        params.model_copy(update={"evaluate": {**params.evaluate, "lowlabel": {
            "fractions": [0.5], "draws": 1, "finetune": {"lr": [0.01], "steps": [steps]}, "optimization": {"looks": 1},
        }}})
        for steps in (10, 1000)
    )  # fmt: skip
    costs = []
    for params in (few, many):
        (tmp_path / str(len(costs))).mkdir()
        bench = Bench(params, project, Paths(tmp_path / str(len(costs))))
        bench.prepare("digits"), bench.sweep("simclr"), bench.pretrain("simclr")
        costs.append(bench.finetune("simclr", "lowlabel").seconds)
    assert costs[1] > 5 * costs[0]
