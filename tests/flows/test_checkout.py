"""Real repositories: what is refused before a worker is asked, and clones that nobody shares."""

import os
import subprocess

import pytest

from flows.checkout import Revision, clone, revision
from miyagi.errors import UserError


def git(folder, *arguments):
    identity = {"GIT_CONFIG_GLOBAL": os.devnull}
    for who in ("AUTHOR", "COMMITTER"):
        identity |= {f"GIT_{who}_NAME": "t", f"GIT_{who}_EMAIL": "t@t.invalid"}
    done = subprocess.run(
        ["git", *arguments], cwd=folder, env={**os.environ, **identity}, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def commit(folder, name, text):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "a change")


@pytest.fixture
def pushed(tmp_path):
    """A checkout whose commit is on a remote, with a DVC remote."""
    git(tmp_path, "init", "-q", "--bare", "bare.git")
    git(tmp_path, "init", "-q", "-b", "main", "work")
    work = tmp_path / "work"
    git(work, "remote", "add", "origin", "../bare.git")
    commit(work, ".dvc/.gitignore", "/config.local\n/tmp\n/cache\n")
    commit(
        work,
        ".dvc/config",
        "[core]\n    analytics = false\n    remote = shared\n['remote \"shared\"']\n    url = s3://b/100%\n",
    )
    git(work, "push", "-q", "-u", "origin", "main")
    return work


def test_a_pushed_commit_and_where_it_is(pushed):
    assert revision(pushed) == Revision(str((pushed / "../bare.git").resolve()), git(pushed, "rev-parse", "HEAD"))


def test_a_dirty_tree(pushed):
    (pushed / "params.yaml").write_text("x: 1\n")
    with pytest.raises(UserError, match="the working tree has changes that no worker can see: commit and push them"):
        revision(pushed)


def test_a_revision_that_is_not_pushed(pushed):
    commit(pushed, "params.yaml", "x: 1\n")
    with pytest.raises(UserError, match="is on no git remote: `git push` first"):
        revision(pushed)


def test_no_dvc_remote(pushed):
    commit(pushed, ".dvc/config", "[core]\n    analytics = false\n")
    git(pushed, "push", "-q")
    with pytest.raises(UserError, match=r"\.dvc/config names no default remote.*dvc remote add -d"):
        revision(pushed)


def test_each_user_has_a_clone_of_its_own(pushed, tmp_path):
    wanted = revision(pushed)
    with clone(wanted, tmp_path / "node") as first, clone(wanted, tmp_path / "node") as second:
        assert first != second
        for path in (first, second):
            assert git(path, "rev-parse", "HEAD") == wanted.commit
            assert git(path, "status", "--porcelain") == ""
            (path / ".miyagi" / f"of-{path.name}").touch()
        shared = {file.name for file in (first / ".miyagi").iterdir()}
        assert shared == {f"of-{path.name}" for path in (first, second)}
        assert (first / ".dvc/config.local").read_text() == (second / ".dvc/config.local").read_text()
    (first / "left").touch()
    with clone(wanted, tmp_path / "node") as again:
        assert again == first and (again / "left").exists()


def test_clones_of_other_revisions_go_when_nobody_uses_them(pushed, tmp_path):
    old = revision(pushed)
    commit(pushed, "params.yaml", "x: 1\n")
    git(pushed, "push", "-q")
    new = revision(pushed)
    with clone(old, tmp_path / "node") as used:
        with clone(new, tmp_path / "node") as path:
            assert (path / "params.yaml").is_file()
        assert used.is_dir()
    with clone(new, tmp_path / "node"):
        assert not used.exists()


def test_a_clone_that_cannot_be_made(pushed, tmp_path):
    with (
        pytest.raises(UserError, match="cannot clone 000000000000 of"),
        clone(Revision(str(pushed), "0" * 40), tmp_path / "node"),
    ):
        pass
    with (
        pytest.raises(UserError, match="cannot clone"),
        clone(Revision(str(tmp_path / "none"), "0" * 40), tmp_path / "node"),
    ):
        pass
