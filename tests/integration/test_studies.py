"""`miyagi study` on the real tools: a shipped study, cut down, in a checkout."""

import re

import pytest
import yaml

from tests.integration.project import DIGITS, checkout, commands

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def commit(project):
    project.run("git", "add", "-A")
    project.run("git", "-c", "user.name=t", "-c", "user.email=t@t.invalid", "commit", "-qm", "a study")


def stages(said):
    return set(re.findall(r"^Running stage '(.+)':$", said, re.MULTILINE))


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    """The study `temperature` on 256 digits with one seed and two temperatures, run once."""
    project = checkout(tmp_path_factory.mktemp("studies") / "miyagi")
    file = project.root / "studies" / "temperature.yaml"
    study = yaml.safe_load(file.read_text())
    study["params"] |= {"dataset": "digits", "datasets": DIGITS, "seeds": [0]}
    study["params"] |= {"encoder": {"name": "conv4", "width": 8}, "pretrain": {"epochs": 1, "batch_size": 64}}
    study["params"]["experiments"]["unit"]["vary"]["temperature"] = [0.2, 5.0]
    study["params"]["experiments"]["raw"]["vary"]["temperature"] = [0.2, 10.0]
    study["comparisons"]["l2_over_none"] |= {"these": ["unit_0_2"], "those": ["raw_0_2", "raw_10_0"]}
    study["measure"]["dataset"] = "digits"
    study["n"] = 200
    file.write_text(yaml.safe_dump(study, sort_keys=False))
    commit(project)
    project.said = project.run("miyagi", "study", "run", "temperature").stdout
    return project


GRID = ("unit_0_2", "unit_5_0", "raw_0_2", "raw_10_0")


def test_it_runs_in_a_worktree_of_its_own(studied):
    assert "17 stages at revision " in studied.said
    assert stages(studied.said) == {"prepare@digits"} | {
        f"{stage}@{name}{rest}" for name in GRID
        for stage, rest in (("sweep", ""), ("pretrain", "-0"), ("embed", "-0-digits"), ("probe", "-0-knn"))
    }  # fmt: skip
    assert studied.run("git", "status", "--porcelain").stdout == ""
    assert not (studied.root / "runs").exists()
    assert (studied.root / ".miyagi" / "mlflow.db").exists()  # the project's store, not one of the worktree's own


def test_its_verdict(studied):
    said = studied.run("miyagi", "study", "verdict", "temperature").stdout.splitlines()
    assert re.match(
        r"temperature: (confirmed|refuted|undecided at this scale) \(p \S+ after Holm over \d+ studies, n 200, 1 seed",
        said[0],
    )
    assert [line.split(":")[0].strip() for line in said[2:5]] == ["with_l2", "without_l2", "l2_over_none"]
    written = studied.run("miyagi", "study", "verdict", "--all").stdout
    assert written == "written: docs/findings.md, studies/verdicts.json\n"
    assert f"| *{re.search(r': ([a-z ]+) ', said[0])[1]}* |" in (studied.root / "docs/findings.md").read_text()
    studied.run("git", "checkout", "-q", "docs", "studies")


@pytest.mark.parametrize("command", commands("docs/findings.md"))
def test_a_command_of_the_page(studied, command):
    assert studied.run("sh", "-c", command).stdout.strip()
    studied.run("git", "checkout", "-q", "docs", "studies")


def test_a_second_run_does_nothing(studied):
    assert stages(studied.run("miyagi", "study", "run", "temperature").stdout) == set()


def test_another_study_shares_the_stages_and_one_seed_more_runs_that_seed(studied):
    study = yaml.safe_load((studied.root / "studies/temperature.yaml").read_text())
    study["comparisons"] = {"with_l2": study["comparisons"]["with_l2"]}
    del study["params"]["experiments"]["raw"]
    (studied.root / "studies/again.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    unready = studied.run("miyagi", "study", "run", "again", check=False)
    assert unready.returncode == 2
    assert "studies/again.yaml is not committed as it stands" in unready.stderr
    commit(studied)
    (studied.root / "params.yaml").write_text((studied.root / "params.yaml").read_text() + "\n# mine\n")
    said = studied.run("miyagi", "study", "run", "again").stdout
    assert "note: uncommitted changes are not part of the study" in said
    assert stages(said) == set()
    study["params"]["seeds"] = [0, 1]
    (studied.root / "studies/again.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    changed = studied.run("miyagi", "study", "verdict", "again", check=False)
    assert "studies/again.yaml has changed since it ran" in changed.stderr
    studied.run("git", "checkout", "-q", "params.yaml")
    commit(studied)
    assert {name.split("-")[1] for name in stages(studied.run("miyagi", "study", "run", "again").stdout)} == {"1"}
