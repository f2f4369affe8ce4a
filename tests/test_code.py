from pathlib import Path

import pytest

from miyagi import code
from miyagi.code import PACKAGE, closure, code_digest, declared
from miyagi.params import CODE
from miyagi.registry import ENCODERS, METHODS, PROTOCOLS, SOURCES

ROOT = Path(__file__).parent.parent
LEAVES = {PACKAGE / f"{leaf}.py" for leaf in ("errors", "paths", "progress", "recipes", "registry")}
"""What changes no result; why, says tests/integration/test_dependencies.py."""


def test_a_comment_changes_nothing_and_a_token_does(tmp_path, monkeypatch):
    monkeypatch.setattr(code, "PACKAGE", tmp_path)
    file = tmp_path / "a.py"
    file.write_text("x = 1\n")
    first = code_digest([file])
    file.write_text("# why\n\nx  =  1  # really\n")
    assert code_digest([file]) == first
    file.write_text("x = 2\n")
    assert code_digest([file]) != first


def test_closure_follows_imports():
    found = {file.relative_to(PACKAGE).as_posix() for file in closure(PACKAGE / "methods" / "simclr.py")}
    assert {"methods/simclr.py", "methods/base.py", "losses/info_nce.py", "nn/heads.py", "nn/encoders/base.py"} <= found
    assert not {"methods/moco.py", "nn/ema.py"} & found


def test_declared_fills_in_the_item():
    knn = declared(ROOT / "dvc.yaml", "probe", {"protocol": "knn"})
    assert PACKAGE / "protocols" / "knn.py" in knn
    assert PACKAGE / "protocols" / "linear.py" not in knn
    assert PACKAGE / "train" / "loop.py" in declared(ROOT / "dvc.yaml", "pretrain")


@pytest.mark.parametrize("name", METHODS.entries)
def test_what_a_method_imports_reaches_its_digest_when_it_changes(name):
    """Whatever can change a trained weight is declared by the sweep stage, which writes the digest of it."""
    sweep = declared(ROOT / "dvc.yaml", "sweep", {"method": name})
    for encoder in ENCODERS.entries:
        files = closure(METHODS.file(name)) | closure(ENCODERS.file(encoder))
        assert {file for file in files if any(file.is_relative_to(folder) for folder in CODE)} <= sweep
        assert PACKAGE / "settings.py" in sweep


@pytest.mark.parametrize("name", SOURCES.entries)
def test_what_a_source_imports_is_declared(name):
    stage = "annotate" if SOURCES.entries[name].family == "annotated" else "prepare"
    assert closure(SOURCES.file(name)) - LEAVES <= declared(ROOT / "dvc.yaml", stage, {"source": name})


@pytest.mark.parametrize("name", [name for name, entry in PROTOCOLS.entries.items() if entry.family == "probe"])
def test_what_a_probe_imports_is_declared_and_needs_no_torch(name):
    files = closure(PROTOCOLS.file(name))
    assert files - LEAVES - {PACKAGE / "settings.py"} <= declared(ROOT / "dvc.yaml", "probe", {"protocol": name})
    assert not any("import torch" in file.read_text() or "from torch" in file.read_text() for file in files)


@pytest.mark.parametrize("name", [name for name, entry in PROTOCOLS.entries.items() if entry.family != "probe"])
def test_what_a_protocol_with_a_network_imports_is_declared(name):
    stage = PROTOCOLS.entries[name].family
    assert closure(PROTOCOLS.file(name)) - LEAVES - {PACKAGE / "params.py"} <= declared(
        ROOT / "dvc.yaml", stage, {"protocol": name}
    )
