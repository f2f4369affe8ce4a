"""Curves, small pictures, neighbours."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file

from miyagi.report import figures

PAST = figures.history("epoch,loss,knn,accuracy\n1,2.5,40,\n2,2.0,,\n3,1.5,60,\n")


def test_history_keeps_gaps() -> None:
    assert PAST == {
        "epoch": [1.0, 2.0, 3.0], "loss": [2.5, 2.0, 1.5], "knn": [40.0, None, 60.0], "accuracy": [None, None, None],
    }  # fmt: skip
    assert figures.points(PAST, "knn") == ([1.0, 3.0], [40.0, 60.0])
    assert figures.points(PAST, "absent") == ([], [])
    assert figures.history("epoch,loss\n") == {"epoch": [], "loss": []}


@pytest.mark.parametrize("text", ["epoch,loss\n1\n", "epoch,loss\n1,x\n", "epoch,loss\n1,2,3\n"])
def test_history_refuses_half_a_file(text: str) -> None:
    with pytest.raises(ValueError, match=r"header|float"):
        figures.history(text)


def test_a_loss_that_is_not_finite_is_left_out() -> None:
    past = figures.history("epoch,loss\n1,2.0\n2,nan\n3,inf\n")
    assert figures.points(past, "loss") == ([1.0], [2.0])
    assert figures.summary(past) == "loss 2.00 to 2.00 in 3 epochs"


def test_summary_and_shared_axis() -> None:
    assert figures.summary(PAST) == "loss 2.50 to 1.50, online kNN 40.00 % to 60.00 % in 3 epochs"
    assert figures.knn_limits([PAST, {"epoch": [1.0], "knn": [90.0]}]) == (36.0, 94.0)
    assert figures.knn_limits([{"epoch": [1.0], "knn": [99.9]}]) == (pytest.approx(98.9), 100.0)


def test_curves_can_stand_side_by_side_in_one_page() -> None:
    svgs = [figures.curves(name, {0: PAST, 1: PAST}, (0, 100)) for name in ("a", "b")]
    assert svgs[0] == figures.curves("a", {0: PAST, 1: PAST}, (0, 100))
    ids = [set(re.findall(r'\bid="([^"]*)"', svg)) for svg in svgs]
    assert ids[0]
    assert not ids[0] & ids[1]
    for svg, known in zip(svgs, ids, strict=True):
        references = set(re.findall(r'(?:url\(#|href="#)([^")]*)', svg))
        assert references
        assert references <= known
        assert svg.startswith('<svg aria-hidden="true"')
        assert "://" not in svg
        assert figures.INK not in svg
        assert "currentColor" in svg
        for text in ("epoch", "loss", "online kNN (%)", "seed 1"):
            assert f">{text}</text>" in svg


COSINES = figures.history(
    "epoch,loss," + ",".join(f"{kind}_q{level}" for kind in ("pos", "neg") for level in ("05", "25", "50", "75", "95"))
    + "\n1,2.5,.5,.6,.7,.8,.9,-.2,-.1,0,.1,.2\n2,2.4,,,,,,,,,,\n3,2.3,.7,.8,.85,.9,.95,-.4,-.3,-.2,-.1,.25\n"
)  # fmt: skip


def test_similarities_are_a_panel_of_their_own_where_there_are_any() -> None:
    svg = figures.curves("a", {0: PAST, 1: COSINES}, (0, 100))
    for text in ("cosine of two views", "one image", "two images"):
        assert f">{text}</text>" in svg
        assert text not in figures.curves("a", {0: PAST}, (0, 100))
    assert figures.summary(COSINES) == (
        "loss 2.50 to 2.30, in the end 95 % of two views of one image have a cosine above 0.70 (median 0.85), 95 % of "
        "two images one below 0.25, in 3 epochs"
    )


def decoded(uri: str) -> np.ndarray:
    assert uri.startswith("data:image/png;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))


@pytest.mark.parametrize("shape", [(32, 32, 3), (8, 8)])
def test_small_picture_keeps_its_pixels(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.testing.assert_array_equal(decoded(figures.picture(image)), image)
    np.testing.assert_array_equal(decoded(figures.picture(image[:, ::-1])), image[:, ::-1])


def test_large_picture_shrinks_and_keeps_its_shape() -> None:
    assert decoded(figures.picture(np.zeros((100, 400, 3), np.uint8))).shape == (24, 96, 3)


def test_nearest_is_by_angle_not_by_length() -> None:
    train = np.array([[0, 1], [100, 1], [1, 1], [-1, 0], [0, 0]], np.float32)
    queries = np.array([[1, 0], [0, 9]], np.float32)
    assert figures.nearest(train, queries, 3).tolist() == [[1, 2, 0], [0, 2, 1]]
    assert figures.nearest(train, queries, 9).shape == (2, 5)  # fewer images than neighbours asked for


def test_queries_are_the_first_of_each_class() -> None:
    labels = np.array([3, 3, 1, 0, 1, 7], np.int64)
    assert figures.firsts(labels).tolist() == [3, 2, 0, 5]
    assert figures.firsts(labels, 2).tolist() == [3, 2]


def test_look_up_names_hits_and_misses(tmp_path: Path) -> None:
    bank = tmp_path / "bank.safetensors"
    save_file({
        "train.encoder": np.array([[1, 0], [0, 1], [2, 1]], np.float32), "train.labels": np.array([0, 1, 1], np.int64),
        "test.encoder": np.array([[0, 3], [3, 0]], np.float32), "test.labels": np.array([1, 0], np.int64),
    }, bank)  # fmt: skip
    found = figures.look_up(bank, "encoder")
    assert (found.queries.tolist(), found.near.tolist()) == ([1, 0], [[0, 2, 1], [1, 2, 0]])
    shown = found.shown({0: "t0", 1: "t1"}, {0: "n0", 1: "n1", 2: "n2"}, ["cat", "dog"])
    assert [(query.picture, query.name) for query in shown] == [("t1", "cat"), ("t0", "dog")]
    assert [(n.picture, n.name, n.hit) for n in shown[0].neighbours] == [
        ("n0", "cat", True), ("n2", "dog", False), ("n1", "dog", False),
    ]  # fmt: skip


@pytest.mark.parametrize("count", [2, 5, 9])
def test_first_takes_no_more_than_there_are(tmp_path, count):
    save_file({"x": np.arange(10, dtype=np.float32).reshape(5, 2)}, tmp_path / "bank.safetensors")
    with safe_open(tmp_path / "bank.safetensors", "numpy") as tensors:
        assert figures.rows(tensors, "x", count).tolist() == [[2 * i, 2 * i + 1] for i in range(min(5, count))]
