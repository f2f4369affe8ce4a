import json

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import save_file

from miyagi.report.asked import read

COLUMNS = {
    "turned, draw 1": np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3),
    "answer, draw 1": np.zeros((2, 9, 9, 3), np.uint8),  # the format sorts by name; sizes differ by column
}


def write(path, columns, about):
    save_file(columns, path, metadata=about)
    return path


def test_a_row_an_image_and_columns_in_their_order(tmp_path):
    shown = read(write(tmp_path / "a", COLUMNS, {"miyagi": json.dumps({"columns": list(COLUMNS)})}))
    assert shown.columns == ["turned, draw 1", "answer, draw 1"]
    assert [[picture.shape for picture in row] for row in shown.rows] == [[(4, 4, 3), (9, 9, 3)]] * 2
    for number, row in enumerate(shown.rows):
        assert np.array_equal(row[0], COLUMNS["turned, draw 1"][number])


def test_nothing_was_asked(tmp_path):
    shown = read(write(tmp_path / "a", {}, {"miyagi": json.dumps({"columns": []})}))
    assert (shown.columns, shown.rows) == ([], [])


@pytest.mark.parametrize(
    ("columns", "about"),
    [
        (COLUMNS, None),
        (COLUMNS, {"miyagi": "{}"}),
        (COLUMNS, {"miyagi": json.dumps({"columns": ["absent"]})}),
        ({"a": np.zeros((2, 4, 4, 3), np.float32)}, {"miyagi": json.dumps({"columns": ["a"]})}),
        ({"a": np.zeros((2, 4, 4), np.uint8)}, {"miyagi": json.dumps({"columns": ["a"]})}),
        ({**COLUMNS, "few": np.zeros((1, 4, 4, 3), np.uint8)}, {"miyagi": json.dumps({"columns": [*COLUMNS, "few"]})}),
    ],
)
def test_not_such_a_file(tmp_path, columns, about):
    with pytest.raises((KeyError, ValueError, SafetensorError)):
        read(write(tmp_path / "a", columns, about))
