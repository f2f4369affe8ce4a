"""Worktrees, commits and links on the real git and DVC, with a DAG that costs nothing: what a study never touches."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from miyagi.errors import UserError
from miyagi.paths import Paths
from miyagi.studies import run
from tests.studies.test_expand import BASE, study

DAG = {
    "stages": {
        "probe": {
            "matrix": {"experiment": "${experiments}", "seed": "${seeds}"},
            "cmd": 'mkdir -p out && python -c "import miyagi; print(miyagi.__file__)" > out/${item.experiment}-${item.seed}',
            "deps": ["code.txt"],
            "params": ["experiments.${item.experiment}"],
            "outs": ["out/${item.experiment}-${item.seed}"],
        }
    }
}


class Repository:
    """A project of one study in a git repository of its own."""

    def __init__(self, root):
        self.root = root
        self.paths = Paths(root)
        self.said = []
        for folder in ("studies", "ssl/miyagi", "pictures"):
            (root / folder).mkdir(parents=True)
        (root / ".gitignore").write_text("/.miyagi/\n/data/\n/out/\n/pictures/\n")
        (root / "ssl/miyagi/__init__.py").write_text("")
        (root / "code.txt").write_text("one")
        (root / "params.yaml").write_text(yaml.safe_dump(BASE))
        (root / "dvc.yaml").write_text(yaml.safe_dump(DAG))
        self.study()
        self.command("git", "init", "-q")
        self.command(str(Path(sys.executable).with_name("dvc")), "init", "-q")
        self.commit()

    def study(self, **changes):
        text = yaml.safe_dump(study(**changes).model_dump(mode="json", exclude_none=True), sort_keys=False)
        (self.root / "studies/it.yaml").write_text(text)

    def command(self, *arguments):
        done = subprocess.run(arguments, cwd=self.root, check=True, capture_output=True, text=True)
        return done.stdout

    def commit(self):
        self.command("git", "add", "-A")
        self.command("git", "-c", "user.name=t", "-c", "user.email=t@t.invalid", "commit", "-qm", "x")

    def run(self, capfd):
        """The stages that ran."""
        self.said.clear()
        run.run("it", self.paths, self.said.append)
        lines = capfd.readouterr().out.splitlines()
        return {line.split("'")[1] for line in lines if line.startswith("Running stage")}


@pytest.fixture
def repository(tmp_path):
    return Repository(tmp_path)


EVERY = {f"probe@{name}-{seed}" for name in ("random", "tau_0_1", "tau_0_5") for seed in (0, 1)}


def test_it_runs_as_committed_beside_the_users_files(repository, capfd):
    (repository.root / "code.txt").write_text("an unsaved thought")
    before = (repository.root / "params.yaml").read_bytes()
    assert repository.run(capfd) == EVERY
    assert repository.said[0].startswith("it: 22 stages at revision ")
    assert repository.said[1] == "note: uncommitted changes are not part of the study"
    tree = run.place("it", "main", repository.paths)
    assert (tree.root / "code.txt").read_text() == "one"
    code = (tree.root / "out/random-0").read_text().strip()
    assert Path(code) == tree.root / "ssl/miyagi/__init__.py"  # not what is installed
    assert (repository.root / "params.yaml").read_bytes() == before
    assert not (repository.root / "out").exists()
    assert repository.command("git", "status", "--porcelain") == " M code.txt\n"
    written = yaml.safe_load(tree.params.read_text())
    assert list(written["experiments"]) == ["random", "tau_0_1", "tau_0_5"]
    assert written["tracking"]["experiment"] == "study_it"
    assert written["tracking"]["uri"] == f"sqlite:///{repository.root}/.miyagi/mlflow.db"
    assert (repository.root / ".dvc/cache/runs").is_dir()  # the project's cache, not one of the worktree's

    repository.command("git", "checkout", "-q", "code.txt")
    (repository.root / "README").write_text("new")
    repository.commit()
    assert repository.run(capfd) == set()  # at the new revision, with the old lock
    repository.command("git", "worktree", "remove", "--force", str(tree.root))
    assert repository.run(capfd) == set()  # out of the shared cache
    (repository.root / "code.txt").write_text("two")
    repository.commit()
    assert repository.run(capfd) == EVERY


def test_a_killed_run_goes_on(repository, capfd):
    whole = study().params
    repository.study(params={**whole, "experiments": {"random": {"method": "random"}}}, comparisons={
        "it": {"form": "same", "test": "t", "plus": ["random"], "minus": ["random"], "minimum": 1.0},
    })  # fmt: skip
    repository.commit()
    repository.run(capfd)
    (run.place("it", "main", repository.paths).root / ".dvc/tmp/rwlock").write_text("")  # as a kill may leave it
    assert repository.run(capfd) == set()


def test_what_is_not_committed_does_not_run(repository):
    repository.study(claim="Something else.")
    with pytest.raises(UserError, match=r"studies/it.yaml is not committed as it stands; commit it"):
        run.run("it", repository.paths, print)
    assert not (repository.root / ".miyagi").exists()


def test_too_many_stages_do_not_run(repository):
    repository.study(stages=21)
    repository.commit()
    with pytest.raises(UserError, match="the study has 22 stages, more than the 21"):
        run.run("it", repository.paths, print)
    assert not (repository.root / ".miyagi").exists()


def test_a_project_inside_a_repository_is_refused(repository):
    with pytest.raises(UserError, match="a study needs the repository's root"):
        run.run("it", Paths(repository.root / "studies"), print)


def test_the_users_pictures_are_there_by_links(repository, capfd):
    whole = study().params
    folder = {"source": "imagefolder", "path": "pictures"}
    repository.study(params={**whole, "datasets": {"digits": folder}, "experiments": {"random": {"method": "random"}}}, comparisons={
        "it": {"form": "same", "test": "t", "plus": ["random"], "minus": ["random"], "minimum": 1.0},
    })  # fmt: skip
    repository.commit()
    repository.run(capfd)
    tree = run.place("it", "main", repository.paths)
    assert (tree.root / "pictures").resolve() == repository.root / "pictures"
    assert (tree.root / "data/raw").resolve() == repository.root / "data/raw"


def test_a_stage_that_fails_is_said(repository, capfd):
    dag = {"stages": {"probe": {**DAG["stages"]["probe"], "cmd": "false"}}}
    (repository.root / "dvc.yaml").write_text(yaml.safe_dump(dag))
    repository.commit()
    with pytest.raises(UserError, match="it: a stage failed, see above; `miyagi study run it` goes on from there"):
        repository.run(capfd)
