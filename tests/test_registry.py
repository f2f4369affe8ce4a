import json
import subprocess
import sys

import pytest

from miyagi.cli import main
from miyagi.errors import UserError
from miyagi.registry import ENCODERS, METHODS, PROTOCOLS, SOURCES, listing


@pytest.mark.parametrize("family", [METHODS, ENCODERS, PROTOCOLS, SOURCES])
def test_every_entry_has_its_file(family):
    for name, entry in family.entries.items():
        assert family.file(name).is_file(), name
        assert entry.line


@pytest.mark.parametrize("family", [METHODS, PROTOCOLS, SOURCES])
def test_every_file_has_its_entry(family):
    folder = family.file("x").parent
    shared = {"__init__", "base", "rows", "task", "classifier", "linear_fits", "dense", "descent", "evaluation"}
    files = {file.stem for file in folder.glob("*.py")} - shared
    assert files == set(family.entries)


def test_nothing_outside_the_package_is_loaded():
    with pytest.raises(UserError, match="not a method's name"):
        METHODS.load("../../os")


@pytest.mark.parametrize("kind", ["methods", "sources", "protocols", "encoders", "recipes"])
def test_listing(kind):
    rows = listing(kind)
    assert rows
    assert all(set(row) == {"name", "line", "paper"} | ({"family"} if kind == "protocols" else set()) for row in rows)


def test_every_protocol_has_a_family_and_the_list_shows_it(capsys):
    assert {entry.family for entry in PROTOCOLS.entries.values()} <= {"probe", "finetune", "dense"}
    main(["list", "protocols"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [[name, entry.family] for name, entry in PROTOCOLS.entries.items()]


def test_listing_for_scripts_and_without_torch():
    code = "import sys; from miyagi.cli import main; main(['list', 'methods', '--json']); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"random", "supervised", "rotation", "simclr", "moco"} <= {row["name"] for row in json.loads(done.stdout)}
