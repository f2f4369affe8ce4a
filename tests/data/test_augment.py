"""Against torchvision's functions on the same arguments, and the promises that the counter-based draws make."""

import math

import pytest
import torch
from scipy import stats
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as reference

from miyagi.data import augment as ours
from miyagi.data.augment import augment
from miyagi.data.rng import Key, uniform
from miyagi.recipes import RECIPES
from miyagi.settings import Crop, Jitter, ViewRecipe

N, S = 64, 32


@pytest.fixture
def images():
    # Smooth colour fields: noise would hide an error of half a pixel.
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(N, 3, 5, 5, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=(S, S), mode="bicubic").clamp(0, 1)


def as_bytes(x):
    return (x * 255).round().to(torch.uint8)


@pytest.mark.parametrize(
    ("box", "size"), [((0, 0, 32, 32), 32), ((3, 5, 20, 11), 24), ((3, 5, 20, 11), 8), ((1, 2, 4, 30), 32)]
)
def test_resample_equals_torchvision(images, box, size):
    got = ours.resample(images, torch.tensor([box]).expand(N, 4), size, torch.zeros(N, dtype=torch.bool))
    want = reference.resized_crop(images, *box, [size, size], antialias=True)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=0)


def test_resample_mirrors(images):
    box = torch.tensor([[3, 5, 20, 11]]).expand(N, 4)
    plain = ours.resample(images, box, 16, torch.zeros(N, dtype=torch.bool))
    torch.testing.assert_close(ours.resample(images, box, 16, torch.ones(N, dtype=torch.bool)), plain.flip(3))


@pytest.mark.parametrize("sigma", [0.1, 0.7, 2.0])
def test_blur_equals_torchvision(images, sigma):
    got = ours.blur(images, torch.full((N,), sigma))
    torch.testing.assert_close(got, reference.gaussian_blur(images, 3, sigma), atol=1e-5, rtol=0)


@pytest.mark.parametrize("shift", [-0.5, -0.13, 0.0, 0.2, 0.5])
def test_hue_equals_torchvision(images, shift):
    got = ours.shift_hue(images, torch.full((N,), shift))
    torch.testing.assert_close(got, reference.adjust_hue(images, shift), atol=1e-5, rtol=0)


def test_gray_and_solarize_equal_torchvision(images):
    torch.testing.assert_close(ours.gray(images), reference.rgb_to_grayscale(images, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.solarize(images), reference.solarize(images, 0.5))


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]])
def test_jitter_equals_torchvision_in_any_order(images, order):
    factors = (1.3, 0.6, 1.7, -0.07)
    steps = (reference.adjust_brightness, reference.adjust_contrast, reference.adjust_saturation, reference.adjust_hue)
    want = images
    for step in order:
        want = steps[step](want, factors[step])
    got = ours.jitter(images, *(torch.full((N,), f) for f in factors), torch.tensor([order]).expand(N, 4))
    assert (got - want).abs().mean() < 2 / 255
    torch.testing.assert_close(got, want, atol=1e-4, rtol=0)


def test_boxes_have_torchvisions_distribution():
    crop, n = Crop(scale=(0.2, 1.0)), 4000
    got = ours.boxes(crop, 32, 48, uniform(Key(0, 0), "crop", torch.arange(n), 40)).double()
    torch.manual_seed(0)
    image = torch.zeros(3, 32, 48)
    transform = v2.RandomResizedCrop(32, crop.scale, crop.ratio)
    want = [transform.make_params([image]) for _ in range(n)]
    for column, name in enumerate(("top", "left", "height", "width")):
        assert stats.ks_2samp(got[:, column].numpy(), [float(w[name]) for w in want]).pvalue > 1e-3, name
    assert (got[:, :2] >= 0).all() and (got[:, 0] + got[:, 2] <= 32).all() and (got[:, 1] + got[:, 3] <= 48).all()


def test_a_box_that_never_fits_is_the_centre():
    crop = Crop(scale=(1.0, 1.0), ratio=(2.0, 2.0))  # a 2:1 box of the whole area of a square does not exist
    got = ours.boxes(crop, 32, 32, uniform(Key(0, 0), "crop", torch.arange(5), 40))
    assert got.tolist() == [[8, 0, 16, 32]] * 5


@pytest.mark.parametrize("name", RECIPES)
def test_the_pixels_depend_on_no_batch(images, name):
    recipe, x = RECIPES[name].views[-1], as_bytes(images)
    index = torch.arange(N) * 7
    whole = augment(x, index, Key(1, 2), "v", recipe, S)
    for part in (torch.tensor([5]), torch.arange(40, 51), torch.arange(N).flip(0)):
        assert torch.equal(augment(x[part], index[part], Key(1, 2), "v", recipe, S), whole[part])


@pytest.mark.parametrize("name", ["weak", "simclr", "moco_v1"])
def test_views_epochs_and_seeds_draw_anew(images, name):
    recipe, x, index = RECIPES[name].views[0], as_bytes(images), torch.arange(N)
    first = augment(x, index, Key(0, 0), "a", recipe, S)
    for other in (
        augment(x, index, Key(0, 0), "b", recipe, S),
        augment(x, index, Key(0, 1), "a", recipe, S),
        augment(x, index, Key(1, 0), "a", recipe, S),
    ):
        assert (first != other).flatten(1).any(1).float().mean() > 0.9


def test_range_size_and_layout(images):
    for recipe in RECIPES.values():
        view = augment(as_bytes(images), torch.arange(N), Key(0, 0), "v", recipe.views[0], 20)
        assert view.shape == (N, 3, 20, 20)
        assert view.min() >= 0
        assert view.max() <= 1 + 1e-6
        assert view.is_contiguous(memory_format=torch.channels_last)


def test_probabilities_and_nothing(images):
    x, index = as_bytes(images).repeat(20, 1, 1, 1), torch.arange(20 * N)
    same = augment(x, index, Key(0, 0), "v", ViewRecipe(), S)
    torch.testing.assert_close(same, x / 255)
    flipped = augment(x, index, Key(0, 0), "v", ViewRecipe(flip=0.3), S)
    share = (flipped != same).flatten(1).any(1).double().mean()
    assert abs(share - 0.3) < 4 * math.sqrt(0.3 * 0.7 / len(x))
    grayed = augment(x, index, Key(0, 0), "v", ViewRecipe(gray=0.2), S)
    share = (grayed.amax(1) - grayed.amin(1)).flatten(1).amax(1).lt(1e-6).double().mean()
    assert abs(share - 0.2) < 4 * math.sqrt(0.2 * 0.8 / len(x))


def test_the_recipes_statistics_are_torchvisions(images):
    """The mean and deviation of SimCLR's views, ours and torchvision's own composition, over many draws."""
    recipe = RECIPES["simclr_small"].views[0]
    jitter = recipe.jitter
    assert isinstance(jitter, Jitter)
    theirs = v2.Compose([
        v2.RandomResizedCrop(S, recipe.crop.scale, recipe.crop.ratio, antialias=True),
        v2.RandomHorizontalFlip(recipe.flip),
        v2.RandomApply([v2.ColorJitter(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)], jitter.p),
        v2.RandomGrayscale(recipe.gray),
    ])  # fmt: skip
    torch.manual_seed(0)
    x = as_bytes(images)
    want = torch.stack([theirs(image) for image in (x / 255).repeat(10, 1, 1, 1)])
    got = torch.cat([augment(x, torch.arange(N), Key(0, e), "v", recipe, S) for e in range(10)])
    for figure in (lambda v: v.mean((2, 3)), lambda v: v.std((2, 3)), lambda v: (v.amax(1) - v.amin(1)).mean((1, 2))):
        ours_, theirs_ = figure(got).flatten().numpy(), figure(want).flatten().numpy()
        assert abs(ours_.mean() - theirs_.mean()) < 4 * math.hypot(stats.sem(ours_), stats.sem(theirs_))
        assert abs(ours_.std() - theirs_.std()) < 0.02
