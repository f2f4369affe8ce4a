import numpy as np
import pytest
from PIL import Image

from miyagi.commands import preview
from miyagi.errors import UserError
from miyagi.params import read
from miyagi.report.sheet import GAP, TILE


@pytest.fixture
def params(project):
    return read(project.params)


def tile(sheet, column, row):
    """The pixels of one picture, counted from the bottom: how high the head is depends on the names."""
    left, bottom = GAP + (TILE + GAP) * column, sheet.shape[0] - GAP - (TILE + GAP) * row - GAP
    return sheet[bottom - TILE : bottom, left : left + TILE]


def test_stored_images_and_two_draws_of_two_views(project, params, tmp_path):
    file = preview.run(params, project, None, None, tmp_path / "p.png")
    sheet = np.asarray(Image.open(file))
    assert sheet.shape[1] == GAP + 5 * (TILE + GAP)
    stored, first, second, again, _ = (tile(sheet, column, 0) for column in range(5))
    assert stored.std() > 20
    for other in (first, second, again):
        assert (other != stored).mean() > 0.1
    assert (first != second).any() and (first != again).any()


def test_it_is_the_same_every_time(project, params, tmp_path):
    files = [preview.run(params, project, "simclr", None, tmp_path / f"{i}.png") for i in range(2)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_pictures_of_ones_own_without_betons(project, params, tmp_path, digits):
    for i in range(3):
        (tmp_path / "mine" / str(i)).mkdir(parents=True)
        Image.fromarray(digits[0][i].permute(1, 2, 0).numpy()).save(tmp_path / "mine" / str(i) / "x.png")
    (tmp_path / "mine" / "0" / "broken.png").write_bytes(b"no image")
    file = preview.run(params, project, "simclr", tmp_path / "mine", tmp_path / "p.png")
    sheet = np.asarray(Image.open(file))
    shown = Image.fromarray(tile(sheet, 0, 0)).resize((32, 32), Image.Resampling.NEAREST)
    assert (np.asarray(shown) == digits[0][2].permute(1, 2, 0).numpy()).all()


def test_the_source_is_read_where_nothing_is_prepared(params, tmp_path):
    from miyagi.paths import Paths

    file = preview.run(params, Paths(tmp_path), "simclr", None, None)
    assert file == tmp_path / "reports" / "preview_simclr.png" and file.stat().st_size > 1000


def test_mistakes(project, params, tmp_path):
    with pytest.raises(UserError, match="experiments.random: trains nothing"):
        preview.run(params, project, "random", None, None)
    with pytest.raises(UserError, match="did you mean 'simclr'"):
        preview.run(params, project, "simclear", None, None)
    with pytest.raises(UserError, match="there is no folder"):
        preview.run(params, project, "simclr", tmp_path / "nowhere", None)
    with pytest.raises(UserError, match="no image that can be read"):
        preview.run(params, project, "simclr", tmp_path, None)
