"""Code is a dependency of the stages that run it, and of no other."""

import json

import pytest

from miyagi.code import closure, declared
from miyagi.registry import ENCODERS, METHODS
from tests.integration.project import OF_SIMCLR, ROOT, stages

pytestmark = pytest.mark.integration


def test_a_comment_and_a_new_method_file(project):
    linear = project.root / "ssl/miyagi/protocols/linear.py"
    linear.write_text(linear.read_text() + "\n# a comment\n")
    assert project.repro() == stages("probe@{E}-0-linear")
    (project.root / "ssl/miyagi/methods/new.py").write_text('"""A method."""\n')
    assert project.repro() == set()
    simclr = project.root / "ssl/miyagi/methods/simclr.py"
    simclr.write_text(simclr.read_text() + "\n# a comment\n")
    assert project.repro() == {"sweep@simclr"}
    simclr.write_text(simclr.read_text() + "\nEXTRA = 1\n")
    assert project.repro() == OF_SIMCLR | {"report"}


IMPORTS = """
import json, sys
from miyagi.cli import main
main(sys.argv[1:])
print("\\n" + json.dumps(sorted(m for m in sys.modules if m.startswith("miyagi."))))
"""
HARMLESS = {
    "cli": "only hands arguments over",
    "errors": "only words messages",
    "params": "values reach a stage by way of params.yaml or experiment.yaml, which are dependencies",
    "paths": "a place changes no content",
    "progress": "only says how far a stage is",
    "recipes": "its values reach a training by way of experiment.yaml",
    "registry": "only says which module is loaded; the module itself is a dependency",
    "settings": "its values reach a training by way of experiment.yaml; sweep, prepare and embed declare it",
    "tracking": "reads what the stages wrote",
    "code": "its digests stand in the outs, so a change of them shows by itself",
}


@pytest.mark.parametrize(
    ("command", "item"),
    [
        ("prepare digits", {"source": "digits"}),
        ("sweep simclr", {"method": "simclr"}),
        ("pretrain simclr 0", {}),
        ("embed simclr 0 digits", {"dataset": "digits"}),
        ("probe simclr 0 knn", {"protocol": "knn"}),
        ("probe simclr 0 linear", {"protocol": "linear"}),
        ("finetune simclr 0 lowlabel", {"protocol": "lowlabel"}),
        ("report", {}),
    ],
)
def test_dependencies_cover_what_is_imported(project, command, item):
    """A module that a stage imports but does not declare would give stale results when it changes."""
    stage = command.split()[0]
    done = project.run("python", "-c", IMPORTS, *command.split())
    imported = {name.split(".", 1)[1] for name in json.loads(done.stdout.splitlines()[-1])}
    package = ROOT / "ssl" / "miyagi"
    covered = declared(ROOT / "dvc.yaml", stage, item)
    if stage in (
        "pretrain",
        "embed",
        "finetune",
    ):  # by the code digest in experiment.yaml and in the encoder's metadata
        covered |= closure(METHODS.file("simclr")) | closure(ENCODERS.file("conv4"))
    names = {file.relative_to(package).with_suffix("").as_posix().replace("/", ".") for file in covered}
    missing = {
        module for module in imported
        if module.split(".")[0] not in HARMLESS and module not in names and (package / f"{module.replace('.', '/')}.py").is_file()
    }  # fmt: skip
    assert missing == set()


def test_probe_and_sweep_import_no_torch(project):
    code = "import sys; from miyagi.cli import main; main(sys.argv[1:]); assert 'torch' not in sys.modules, 'torch'"
    for command in ("sweep simclr", "probe simclr 0 knn", "probe simclr 0 linear"):
        project.run("python", "-c", code, *command.split())
