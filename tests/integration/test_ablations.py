"""docs/ablations.md, run top to bottom in the small project: its commands work, and show what the page says."""

import pytest

from tests.integration.project import commands

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.long]


@pytest.fixture
def said(project):
    """Each command of the page -> what it printed."""
    for key, value in (("user.name", "t"), ("user.email", "t@t.invalid")):
        project.run("git", "config", key, value)
    return {command: project.run("sh", "-c", command).stdout for command in commands("docs/ablations.md")}


def test_the_pages_commands(said):
    def of(start):
        return next(text for command, text in said.items() if command.startswith(start))

    assert "Running stage 'pretrain@simclr-0'" in of("dvc exp run -n colder")
    assert "Running stage 'pretrain@random-0'" not in of("dvc exp run -n colder")
    params = of("dvc params diff").split()
    assert params[params.index("experiments.simclr.temperature") + 1 :][:2] == ["0.2", "0.1"]
    assert "runs/simclr/0/knn.json" in of("dvc metrics diff")
    assert "runs/random/0/knn.json" not in of("dvc metrics diff")
    assert "Running stage 'probe@random-0-knn'" in of("dvc exp run -n nearer")
    assert "Running stage 'pretrain" not in of("dvc exp run -n nearer")
    assert "colder" in of("dvc exp show")
    assert "nearer" in of("dvc exp show")
    assert "evaluate.knn.k" in of("dvc exp diff")
    assert "Running stage 'pretrain@simclr_linear_head-0'" in of("dvc exp run -n heads")
    assert "runs/simclr_linear_head/0/knn.json" in of("dvc metrics show")
    assert of("miyagi track ui").split()[1:3] == ["ui", "--backend-store-uri"]
