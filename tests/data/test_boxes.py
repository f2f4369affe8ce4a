import pytest
import torch
from scipy import stats
from torchvision.transforms import v2

from miyagi.data.boxes import boxes, squares
from miyagi.data.rng import Key, uniform
from miyagi.settings import Crop


def draws(n):
    return uniform(Key(0, 0), "crop", torch.arange(n), 40)


def test_boxes_have_torchvisions_distribution():
    crop, n = Crop(scale=(0.2, 1.0)), 4000
    got = boxes(crop, 32, 48, draws(n)).double()
    torch.manual_seed(0)
    image = torch.zeros(3, 32, 48)
    transform = v2.RandomResizedCrop(32, crop.scale, crop.ratio)
    want = [transform.make_params([image]) for _ in range(n)]
    for column, name in enumerate(("top", "left", "height", "width")):
        assert stats.ks_2samp(got[:, column].numpy(), [float(w[name]) for w in want]).pvalue > 1e-3, name
    assert (got[:, :2] >= 0).all() and (got[:, 0] + got[:, 2] <= 32).all() and (got[:, 1] + got[:, 3] <= 48).all()


@pytest.mark.parametrize(
    ("ratio", "size", "want"),
    [
        ((2.0, 2.0), (32, 32), [8, 0, 16, 32]),  # a 2:1 box of the whole area of a square does not exist
        ((0.5, 0.5), (32, 32), [0, 8, 32, 16]),
        ((0.75, 4 / 3), (20, 100), [0, 36, 20, 27]),  # round(20 * 4 / 3) = 27
        ((0.75, 4 / 3), (101, 20), [37, 0, 27, 20]),
    ],
)
def test_a_box_that_never_fits_is_the_centre(ratio, size, want):
    got = boxes(Crop(scale=(1.0, 1.0), ratio=ratio), *size, draws(5))
    assert got.tolist() == [want] * 5
    # Torchvision's own fallback, where no area fits.
    _, *image = (3, *size)
    assert v2.RandomResizedCrop(32, (1.0, 1.0), ratio).make_params([torch.zeros(3, *image)]) == dict(
        zip(("top", "left", "height", "width"), want, strict=True)
    )


def test_each_image_may_have_its_own_size():
    heights, widths = torch.tensor([32, 300, 51, 7]), torch.tensor([32, 200, 640, 9])
    crop, drawn = Crop(), draws(4)
    together = boxes(crop, heights, widths, drawn)
    for i, (height, width) in enumerate(zip(heights.tolist(), widths.tolist(), strict=True)):
        assert torch.equal(boxes(crop, height, width, drawn[i : i + 1])[0], together[i])
    assert together.dtype == torch.int64
    assert squares(heights, widths, drawn).tolist() == [
        [0, 0, 32, 32],
        [50, 0, 200, 200],
        [0, 294, 51, 51],
        [0, 1, 7, 7],
    ]
    assert squares(10, 14, drawn).tolist() == [[0, 2, 10, 10]] * 4
