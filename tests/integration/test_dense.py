"""The dense family switched on in params.yaml, by `dvc repro`: canvases, segmentation, detection, the report."""

import json

import pytest

from tests.integration.project import EXPERIMENTS
from tests.integration.test_dependencies import HARMLESS, IMPORTS

pytestmark = [pytest.mark.integration, pytest.mark.slow]

PROTOCOLS = ("segmentation", "detection")
STAGES = {"annotate@scenes", *(f"dense@{name}-0-{protocol}" for name in EXPERIMENTS for protocol in PROTOCOLS)}


def switch_on(params):
    params["dense"] = {
        "datasets": {
            "scenes": {
                "source": "scenes", "of": "digits", "path": "ssl/miyagi/data/sources/digits.py", "shorter_side": 32,
                "objects": 2, "train_limit": 32, "val_limit": 8, "test_limit": 12,
            }
        },
        "experiments": list(EXPERIMENTS), "protocols": list(PROTOCOLS),
    }  # fmt: skip
    short = {"finetune": {"lr": [0.003], "steps": [4]}, "scratch": {"lr": [0.003], "steps": [4]}}
    for protocol in PROTOCOLS:
        params["evaluate"][protocol] |= short
    params["finetune"]["protocols"] = []  # it depends on all betons, and has tests of its own


def test_switched_on_it_runs_and_reruns_only_what_a_change_touches(project):
    """Also that a rerun gives the same bytes, that the declared code covers what is imported, and what the rows say."""
    project.edit(switch_on)
    assert project.repro() == STAGES | {"report"}
    assert project.repro() == set()
    for name in EXPERIMENTS:
        for protocol, metrics in (("segmentation", {"miou", "pixel_accuracy"}), ("detection", {"ap", "ap50", "ap75"})):
            written = json.loads((project.root / f"runs/{name}/0/{protocol}.json").read_text())
            assert {(row["split"], row["metric"], row["n"]) for row in written["rows"]} == {
                (split, metric, n) for split, n in (("val", 8), ("test", 12)) for metric in metrics
            }
            assert {row["chosen"]["start"] for row in written["rows"]} == {
                "scratch" if name == "random" else "pretrained"
            }
    assert "detection on scenes: ap50" in (project.root / "reports/report.html").read_text()
    _check_imports(project)
    assert project.repro() == set()  # its commands have written the same bytes once more
    project.edit(lambda params: params["evaluate"]["segmentation"].update(skips=1))
    touched = {f"dense@{name}-0-segmentation" for name in EXPERIMENTS}
    assert touched <= project.repro("--dry") <= touched | {"report"}
    project.edit(lambda params: params["dense"].update(protocols=["detection"]))
    assert project.repro() == {"report"}


def _check_imports(project):
    """See test_dependencies.py's test of the same for the other stages."""
    from miyagi.code import closure, declared
    from miyagi.registry import ENCODERS, METHODS
    from tests.integration.project import ROOT

    package = ROOT / "ssl" / "miyagi"
    by_digest = closure(METHODS.file("simclr")) | closure(ENCODERS.file("conv4"))
    for command, item, also in (
        ("annotate scenes", {"source": "scenes"}, set()),
        ("dense simclr 0 segmentation", {"protocol": "segmentation"}, by_digest),
        ("dense simclr 0 detection", {"protocol": "detection"}, by_digest),
    ):
        done = project.run("python", "-c", IMPORTS, *command.split())
        imported = {name.split(".", 1)[1] for name in json.loads(done.stdout.splitlines()[-1])}
        covered = declared(ROOT / "dvc.yaml", command.split()[0], item) | also
        names = {file.relative_to(package).with_suffix("").as_posix().replace("/", ".") for file in covered}
        missing = {
            module for module in imported
            if module.split(".")[0] not in HARMLESS and module not in names
            and (package / f"{module.replace('.', '/')}.py").is_file()
        }  # fmt: skip
        assert missing == set(), command
