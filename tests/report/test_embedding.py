import numpy as np
import pytest
from sklearn.decomposition import PCA

from miyagi.report.embedding import COLUMNS, POINTS, SIDE, colour, embedding_map, principal_plane, sprite


def test_the_plane_is_that_of_scikit_learns_pca():
    x = np.random.default_rng(0).normal(size=(60, 5)) * [5, 4, 1, 0.5, 0.1]
    plane, share = principal_plane(x)
    pca = PCA(2).fit(x)
    np.testing.assert_allclose(np.abs(plane), np.abs(pca.transform(x)), atol=1e-8)
    assert share == pytest.approx(pca.explained_variance_ratio_.sum())


def test_signs_are_a_function_of_the_features():
    x = np.random.default_rng(0).normal(size=(30, 4))
    mirrored, _ = principal_plane(-x)
    np.testing.assert_allclose(mirrored, -principal_plane(x)[0], atol=1e-8)


def test_one_dimension_and_no_variance_at_all():
    plane, share = principal_plane(np.arange(3.0)[:, None])
    np.testing.assert_allclose(plane, [[-1, 0], [0, 0], [1, 0]])
    assert share == 1
    assert (principal_plane(np.ones((3, 4)))[0] == 0).all()


def test_a_map_fills_its_square_on_one_scale(write_bank, pixels):
    found = embedding_map(write_bank(pixels), "encoder")
    assert [point.label for point in found.points] == pixels["test.labels"][:POINTS].tolist()
    places = np.array([(point.x, point.y) for point in found.points])
    assert places.min() >= 0 and places.max() <= 100
    assert np.ptp(places, axis=0).max() == pytest.approx(100)
    plane, share = principal_plane(pixels["test.encoder"].astype(np.float64))
    stretch = np.ptp(plane, axis=0)
    assert np.ptp(places[:, 1]) == pytest.approx(100 * stretch[1] / stretch.max(), abs=0.2)
    assert found.share == share


def test_sprite():
    images = [np.full((size, size, 3), i, np.uint8) for i, size in enumerate([SIDE] * COLUMNS + [2 * SIDE])]
    sheet = sprite(images)
    assert sheet.shape == (2 * SIDE, COLUMNS * SIDE, 3)
    assert (sheet[:SIDE, SIDE : 2 * SIDE] == 1).all() and (sheet[SIDE:, :SIDE] == COLUMNS).all()
    assert (sheet[SIDE:, SIDE:] == 0).all()


def test_classes_have_colours_of_their_own():
    for classes in (2, 10, 100):
        assert len({colour(label, classes) for label in range(classes)}) == classes
