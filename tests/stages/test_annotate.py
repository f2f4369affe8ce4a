"""Betons, annotations and a manifest that go together, equal bytes on a rerun, one line for what cannot be."""

import json
import shutil

import pytest
import yaml
from PIL import Image

from miyagi import params
from miyagi.cli import main
from miyagi.data.annotations import Annotations
from miyagi.data.decode import Beton
from miyagi.data.manifest import data_digest, read_manifest
from miyagi.errors import UserError
from miyagi.files import file_digest
from miyagi.paths import SPLITS
from miyagi.settings import AnnotatedDataset
from miyagi.stages import annotate


def files(paths, name):
    return {file.name: file.read_bytes() for file in sorted(paths.manifest(name).parent.iterdir())}


def test_the_manifest_tells_what_there_is(annotated):
    manifest = read_manifest(annotated.manifest("scenes"))
    assert {split: manifest["counts"][split]["total"] for split in SPLITS} == {"train": 48, "val": 12, "test": 16}
    assert manifest["kinds"] == {"boxes": list("0123456789"), "masks": ["background", *"0123456789"]}
    assert manifest["classes"] == manifest["kinds"]["masks"]
    assert (manifest["size"], manifest["color"], manifest["skipped"]) == (32, True, [])
    for split in SPLITS:
        beton, known = Beton(annotated.beton("scenes", split)), Annotations(annotated.annotations("scenes", split))
        assert len(beton) == len(known) == manifest["counts"][split]["total"]
        assert [beton[i].shape[:2] for i in range(len(beton))] == list(map(tuple, known.sizes.tolist()))
        assert manifest["annotations"][split] == file_digest(annotated.annotations("scenes", split))
    assert "path" not in manifest["settings"]


def test_pictures_of_folders_are_shared_out(annotated):
    manifest = read_manifest(annotated.manifest("spheres"))
    assert sum(manifest["counts"][split]["total"] for split in SPLITS) == 24
    assert min(manifest["counts"][split]["total"] for split in SPLITS) >= 2
    assert (manifest["kinds"], manifest["classes"]) == ({"normals": []}, [])


def test_twice_the_same_bytes(annotated, copied):
    again = copied(annotated)
    before = files(again, "scenes")
    shutil.rmtree(again.manifest("scenes").parent)
    annotate.run("scenes", params.read(again.params).dense.datasets["scenes"], again)
    assert files(again, "scenes") == before
    assert len(before) == 7


def test_other_annotations_are_other_data(annotated):
    manifest = read_manifest(annotated.manifest("scenes"))
    changed = {**manifest, "annotations": {**manifest["annotations"], "test": "0"}}
    assert data_digest(changed) != data_digest(manifest)


def test_the_command_writes_the_same_and_tracks_it(annotated, copied, monkeypatch, tmp_path):
    again = copied(annotated)
    before = files(again, "scenes")
    shutil.rmtree(again.manifest("scenes").parent)
    monkeypatch.chdir(again.root)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    main(["annotate", "scenes"])
    assert files(again, "scenes") == before
    with pytest.raises(SystemExit):
        main(["annotate", "scene"])


def test_what_is_odd_is_said(annotated, copied, capsys):
    again = copied(annotated)
    (again.root / "spheres" / "normals" / "3.png").unlink()
    counts = annotate.run("spheres", AnnotatedDataset(source="normals", path="spheres"), again)
    assert counts["skipped_files"] == 1
    assert capsys.readouterr().err == (
        "miyagi: warning: dense.datasets.spheres: 1 picture(s) left out, the first: 'images/3.png' (it has no normal "
        "in normals); the manifest lists all\n"
    )
    assert json.loads(again.manifest("spheres").read_text())["skipped"][0]["file"] == "images/3.png"


def test_no_usable_picture_is_one_line_and_leaves_nothing(annotated, copied):
    again = copied(annotated)
    for file in (again.root / "spheres" / "normals").iterdir():
        Image.new("RGB", (5, 5)).save(file)
    shutil.rmtree(again.manifest("spheres").parent)
    with pytest.raises(
        UserError, match=r"dense\.datasets\.spheres: no usable picture for train in spheres \(e\.g\. images/0\.png: its"
    ) as error:
        annotate.run("spheres", AnnotatedDataset(source="normals", path="spheres"), again)
    assert "\n" not in str(error.value)
    assert not list(again.manifest("spheres").parent.glob("*"))


def test_the_labelled_data_stay_as_they_were(trained, annotated):
    assert files(trained, "digits") == files(annotated, "digits")
    assert (
        yaml.safe_load(trained.params.read_text())["datasets"]
        == yaml.safe_load(annotated.params.read_text())["datasets"]
    )
