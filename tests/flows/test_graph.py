"""The plan: on a project that DVC ran, where DVC is asked too; and on 1,000 stages."""

import json
import subprocess
import sys
import time

import pytest
import yaml

from flows import graph
from miyagi.errors import UserError
from tests.flows.locked import Locked

SMALL = """
stages:
  base:
    cmd: mkdir -p out && cat raw.txt > out/base
    deps: [raw.txt, code]
    outs: [out/base]
  train:
    foreach: ${experiments}
    do:
      cmd: echo ${key} > out/${key} && cat out/base >> out/${key}
      deps: [out/base]
      params: ["experiments.${key}", other]
      outs: ["out/${key}"]
      meta: {pool: gpu, retries: 2, slots: "${other}", timeout: 60}
  report:
    cmd: cat out/* > report
    deps: [out]
    metrics: [report]
"""
PARAMS = {"experiments": {"a": {"lr": 1}, "b": {"lr": 2}}, "other": 3}


def dvc(root, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Run once by DVC; each test changes something and puts it back."""
    root = tmp_path_factory.mktemp("small")
    (root / ".dvc").mkdir()
    (root / ".dvc/config").write_text("[core]\n    analytics = false\n    no_scm = true\n")
    (root / "dvc.yaml").write_text(SMALL)
    (root / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    (root / "raw.txt").write_text("raw\n")
    (root / "code").mkdir()
    (root / "code/x.py").write_text("x\n")
    before = graph.plan(root)
    assert {stage.stale for stage in before.stages} == {"never run"}
    dvc(root, "repro", "--quiet")
    return root


@pytest.fixture
def changed(small):
    """changed(name, text): write a file, or delete it; it is as before after the test."""
    kept = {}

    def change(name, text):
        kept[name] = (small / name).read_bytes()
        (small / name).unlink()
        if text is not None:
            (small / name).write_text(text)

    yield change
    for name, content in kept.items():
        (small / name).unlink(missing_ok=True)
        (small / name).write_bytes(content)


def stale(root, *targets, **options):
    return {stage.name: stage.stale for stage in graph.plan(root, targets, **options).stale}


def own(root):
    """What is stale by itself, not for what it follows."""
    return {name for name, why in stale(root).items() if not why.startswith("after ")}


def test_what_is_relied_on_in_dvc(small):
    """The contract: names, edges, meta with parameters filled in, an order that can be run in."""
    plan = graph.plan(small)
    stages = {stage.name: stage for stage in plan.stages}
    needs = {name: set(stage.needs) for name, stage in stages.items()}
    assert needs == {
        "base": set(), "train@a": {"base"}, "train@b": {"base"}, "report": {"base", "train@a", "train@b"},
    }  # fmt: skip
    assert [stage.name for stage in plan.stages].index("report") == 3 and plan.stages[0].name == "base"
    assert stages["train@a"].meta == graph.Meta(pool="gpu", retries=2, slots=3, timeout=60)
    assert stages["base"].meta == graph.Meta()
    assert plan.stale == ()


def test_dvc_finds_the_same_stale(small, changed):
    def agreed():
        found = own(small)
        assert found == set(json.loads(dvc(small, "status", "--json")))
        return found

    assert agreed() == set()
    changed("params.yaml", yaml.safe_dump({**PARAMS, "experiments": {"a": {"lr": 1}, "b": {"lr": 5}}}))
    changed("code/x.py", "y\n")
    changed("out/a", None)
    changed("report", "other\n")
    assert agreed() == {"base", "train@a", "train@b", "report"}


@pytest.mark.parametrize(
    ("name", "text", "reasons"),
    [
        ("raw.txt", "new", {"base": "changed: raw.txt", "train@a": "after base", "train@b": "after base", "report": "after base"}),
        ("code/x.py", None, {"base": "changed: code", "train@a": "after base", "train@b": "after base", "report": "after base"}),
        ("params.yaml", yaml.safe_dump({**PARAMS, "experiments": {"a": {"lr": 1.5}, "b": {"lr": 2}}}),
         {"train@a": "changed: params.yaml: experiments.a", "report": "after train@a"}),
        ("dvc.yaml", SMALL.replace("cat raw.txt", "cat  raw.txt"),
         {"base": "its command changed", "train@a": "after base", "train@b": "after base", "report": "after base"}),
        ("out/b", "other", {"train@b": "changed: out/b", "report": "changed: out"}),
        ("report", None, {"report": "changed: report"}),
    ],
)  # fmt: skip
def test_what_an_edit_makes_stale(small, changed, name, text, reasons):
    changed(name, text)
    assert stale(small) == reasons


def test_targets_and_what_they_need(small, changed):
    assert [stage.name for stage in graph.plan(small, ["train@b"]).stages] == ["base", "train@b"]
    assert {stage.name for stage in graph.plan(small, ["train"]).stages} == {"base", "train@a", "train@b"}
    assert stale(small, "train@b", force=True) == {"base": "forced", "train@b": "forced"}
    with pytest.raises(UserError, match="no stage 'train@c'; did you mean 'train@"):
        graph.plan(small, ["train@c"])


def test_a_clone_without_outs(small, changed):
    """What a head sees of a revision whose dvc.lock is committed: files that are not there count as locked."""
    for name in ("out/base", "out/a", "out/b", "report"):
        changed(name, None)
    assert stale(small, "train", missing=True) == {}
    changed("raw.txt", "new\n")
    assert stale(small, "train", missing=True) == {
        "base": "changed: raw.txt",
        "train@a": "after base",
        "train@b": "after base",
    }


@pytest.mark.parametrize(
    ("meta", "said"),
    [
        ("{pool: tpu}", "stage base: meta.pool: Input should be 'cpu' or 'gpu'; known: pool, retries, slots, timeout"),
        ("{retires: 2}", "stage base: meta.retires: Extra inputs are not permitted; known: pool"),
        ("{timeout: 0}", "stage base: meta.timeout: Input should be greater than 0"),
    ],
)
def test_meta_is_checked(small, changed, meta, said):
    changed("dvc.yaml", SMALL.replace("outs: [out/base]", f"outs: [out/base]\n    meta: {meta}"))
    with pytest.raises(UserError, match="dvc.yaml: ") as told:
        graph.plan(small)
    assert said in str(told.value)


def test_a_dag_that_cannot_be_read(small, changed):
    changed("dvc.yaml", SMALL.replace("${key} &&", "${kye} &&"))
    with pytest.raises(UserError, match=r"^dvc.yaml: .*kye"):
        graph.plan(small)


EXPERIMENTS, SEEDS, PROTOCOLS = 40, 5, 3


@pytest.fixture(scope="module")
def thousand(tmp_path_factory):
    """1,002 stages: a preparation, 200 trainings, 200 banks, 600 probes on them, a report; 20 and 10 files of code."""
    names, seeds, protocols = (
        [f"e{i}" for i in range(EXPERIMENTS)],
        list(range(SEEDS)),
        [f"p{i}" for i in range(PROTOCOLS)],
    )
    made = Locked(tmp_path_factory.mktemp("thousand"), {
        "experiments": {name: {"method": "simclr", "temperature": i / 100} for i, name in enumerate(names)},
        "seeds": seeds, "protocols": protocols, "evaluate": {name: {"k": 200} for name in protocols},
    })  # fmt: skip
    training, probing = [f"code/t{i}.py" for i in range(20)], [f"code/p{i}.py" for i in range(10)]
    made.code(["raw.txt", *training, *probing])
    made.stages = {
        "prepare": {"cmd": "prepare", "deps": ["raw.txt"], "outs": ["data/train"]},
        "train": {
            "matrix": {"e": "${experiments}", "s": "${seeds}"}, "cmd": "train ${item.e} ${item.s}", "meta": {"pool": "gpu"},
            "deps": ["data/train", *training], "params": ["experiments.${item.e}"], "outs": ["runs/${item.e}/${item.s}/encoder"],
        },
        "embed": {
            "matrix": {"e": "${experiments}", "s": "${seeds}"}, "cmd": "embed ${item.e} ${item.s}",
            "deps": ["runs/${item.e}/${item.s}/encoder", *training], "outs": ["runs/${item.e}/${item.s}/bank"],
        },
        "probe": {
            "matrix": {"e": "${experiments}", "s": "${seeds}", "p": "${protocols}"}, "cmd": "probe ${item.e} ${item.s} ${item.p}",
            "deps": ["runs/${item.e}/${item.s}/bank", *probing], "params": ["evaluate.${item.p}"],
            "outs": ["runs/${item.e}/${item.s}/${item.p}.json"],
        },
        "report": {"cmd": "report", "deps": ["runs"], "outs": ["report.html"]},
    }  # fmt: skip
    made.ran("prepare", "prepare", ["raw.txt"], outs=["data/train"])
    for e in names:
        for s in seeds:
            run = f"runs/{e}/{s}"
            made.ran(
                f"train@{e}-{s}", f"train {e} {s}", ["data/train", *training], [f"experiments.{e}"], [f"{run}/encoder"]
            )
            made.ran(f"embed@{e}-{s}", f"embed {e} {s}", [f"{run}/encoder", *training], outs=[f"{run}/bank"])
            for p in protocols:
                made.ran(
                    f"probe@{e}-{s}-{p}",
                    f"probe {e} {s} {p}",
                    [f"{run}/bank", *probing],
                    [f"evaluate.{p}"],
                    [f"{run}/{p}.json"],
                )
    made.ran("report", "report", ["runs"], outs=["report.html"])
    made.write()
    return made


def test_a_thousand_stages_in_ten_seconds(thousand):
    """One experiment has changed: exactly its stages and the report are stale, and all others are not."""
    thousand.params["experiments"]["e7"]["temperature"] = 0.9
    thousand.write()
    began = time.perf_counter()
    plan = graph.plan(thousand.root)
    took = time.perf_counter() - began
    seeds, protocols = range(SEEDS), range(PROTOCOLS)
    assert len(plan.stages) == 2 + EXPERIMENTS * SEEDS * (2 + PROTOCOLS) == 1002
    found = {stage.name: stage.stale for stage in plan.stale}
    assert {name for name, why in found.items() if why == "changed: params.yaml: experiments.e7"} == {
        f"train@e7-{s}" for s in seeds
    }
    assert set(found) == {
        *(f"{stage}@e7-{s}" for stage in ("train", "embed") for s in seeds),
        *(f"probe@e7-{s}-p{p}" for s in seeds for p in protocols), "report",
    }  # fmt: skip
    print(f"1,002 stages, {len(found)} of them stale, planned in {took:.2f} s")
    assert took < 10
