"""The promises of the counter-based draws, the order of operations, and images that were cropped while decoding."""

import math

import pytest
import torch

from miyagi.data import augment as module
from miyagi.data.augment import augment, augment_views, crop_boxes
from miyagi.data.color import gray, solarize
from miyagi.data.geometry import resample
from miyagi.data.rng import Key
from miyagi.errors import UserError
from miyagi.params import views
from miyagi.recipes import RECIPES
from miyagi.settings import Blur, ColorDrop, Crop, Cutout, Jitter, Rotate, ViewRecipe

N, S = 64, 32
JITTER = Jitter(p=0.7)
CASES = {f"{name}/{i}": view for name, recipe in RECIPES.items() for i, view in enumerate(recipe.views)} | {
    "rotate": ViewRecipe(rotate=Rotate(p=0.6, degrees=30)),
    "noise": ViewRecipe(color_drop=ColorDrop(p=0.6)),
    "copies": ViewRecipe(color_drop=ColorDrop(p=0.6, fill="copies")),
    "cutout": ViewRecipe(cutout=Cutout(p=0.6, side=(0.2, 0.6))),
    "cutout_mean": ViewRecipe(cutout=Cutout(p=0.6, side=(0.2, 0.6), fill="mean")),
    "gray": ViewRecipe(gray=0.5),
    "solarize": ViewRecipe(solarize=0.6, solarize_threshold=0.3),
    "blur": ViewRecipe(blur=Blur(p=0.6)),
    "jitter": ViewRecipe(jitter=JITTER),
    "hue_only": ViewRecipe(jitter=Jitter(p=0.7, brightness=0, contrast=0, saturation=0)),
    "all": ViewRecipe(
        crop=Crop(), pad=3, flip=0.5, rotate=Rotate(p=0.5), jitter=JITTER, gray=0.3, color_drop=ColorDrop(p=0.3),
        blur=Blur(), solarize=0.4, cutout=Cutout(p=0.5, fill="mean"),
    ),
    "backwards": ViewRecipe(
        crop=Crop(), pad=3, flip=0.5, jitter=JITTER, blur=Blur(), cutout=Cutout(p=0.5),
        order=("cutout", "blur", "jitter", "flip", "pad", "crop"),
    ),
}  # fmt: skip


@pytest.fixture
def images(fields):
    """64 x 3 x 32 x 32 uint8."""
    return as_bytes(torch.cat([fields, fields.flip(1), fields.flip(2), 1 - fields]))


def as_bytes(x):
    return (x * 255).round().to(torch.uint8)


def view(images, recipe, *, key=Key(1, 2), name="v", size=S, **more):  # noqa: B008
    return augment(images, torch.arange(len(images)) * 7, key, name, recipe, size, **more)


@pytest.mark.parametrize("case", CASES)
def test_the_pixels_depend_on_no_batch(images, case, monkeypatch):
    recipe, index, key = CASES[case], torch.arange(N) * 7, Key(1, 2)
    whole = augment(images, index, key, "v", recipe, S)
    for part in (torch.tensor([5]), torch.tensor([40]), torch.arange(40, 51), torch.arange(N).flip(0)):
        assert torch.equal(augment(images[part], index[part], key, "v", recipe, S), whole[part])
    monkeypatch.setattr(module, "CHUNK", 7 * 3 * S * S)
    assert torch.equal(augment(images, index, key, "v", recipe, S), whole)
    torch.set_num_threads(1)
    assert torch.equal(augment(images, index, key, "v", recipe, S), whole)


@pytest.mark.parametrize("case", ["simclr/0", "all", "backwards"])
def test_the_pixels_of_large_images_depend_on_no_batch(case):
    images = as_bytes(torch.rand(5, 3, 190, 260, generator=torch.Generator().manual_seed(0)))
    index, key = torch.arange(5), Key(0, 0)
    whole = augment(images, index, key, "v", CASES[case], 200)
    for i in range(5):
        assert torch.equal(augment(images[i : i + 1], index[i : i + 1], key, "v", CASES[case], 200)[0], whole[i])


@pytest.mark.parametrize("case", [case for case in CASES if case != "none/0"])
def test_views_epochs_and_seeds_draw_anew(images, case):
    first = view(images, CASES[case], key=Key(0, 0), name="a")
    assert torch.equal(view(images, CASES[case], key=Key(0, 0), name="a"), first)
    for other in (
        view(images, CASES[case], key=Key(0, 0), name="b"),
        view(images, CASES[case], key=Key(0, 1), name="a"),
        view(images, CASES[case], key=Key(1, 0), name="a"),
    ):
        assert (first != other).flatten(1).any(1).float().mean() > 0.3


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("size", [20, 32])
def test_range_size_and_layout(images, case, size):
    got = view(images, CASES[case], size=size)
    assert got.shape == (N, 3, size, size)
    assert got.dtype == torch.float32
    assert got.min() >= 0
    assert got.max() <= 1 + 1e-6
    assert got.is_contiguous(memory_format=torch.channels_last)


def test_no_operation_is_no_change_and_the_input_is_left_alone(images):
    torch.testing.assert_close(view(images, ViewRecipe()), images / 255)
    before = images.clone()
    view(images, CASES["all"])
    assert torch.equal(images, before)
    floats = images / 255
    torch.testing.assert_close(view(floats, CASES["all"]), view(images, CASES["all"]))
    torch.testing.assert_close(floats, before / 255, atol=0, rtol=0)
    assert augment(images[:0], torch.arange(0), Key(0, 0), "v", CASES["all"], S).shape == (0, 3, S, S)


def test_operations_happen_as_often_as_they_should(images):
    x = images.repeat(20, 1, 1, 1)
    same = view(x, ViewRecipe())

    def share(recipe):
        return (view(x, recipe) - same).flatten(1).abs().amax(1).gt(1e-6).double().mean()

    for p, recipe in {
        0.3: ViewRecipe(flip=0.3),
        0.2: ViewRecipe(gray=0.2),
        0.6: ViewRecipe(rotate=Rotate(p=0.6)),
        0.7: ViewRecipe(jitter=Jitter(p=0.7)),
        0.1: ViewRecipe(color_drop=ColorDrop(p=0.1)),
        0.5: ViewRecipe(blur=Blur(p=0.5, sigma=(1.0, 2.0))),
        0.4: ViewRecipe(solarize=0.4, solarize_threshold=0.0),
        0.25: ViewRecipe(cutout=Cutout(p=0.25)),
    }.items():
        assert abs(share(recipe) - p) < 4 * math.sqrt(p * (1 - p) / len(x)), recipe


def test_a_cutout_covers_what_it_should(images):
    x = torch.ones(2000, 3, S, S)
    got = view(x, ViewRecipe(cutout=Cutout(side=(0.25, 0.5))))
    assert set(got.unique().tolist()) == {0.5, 1.0}
    covered = (got[:, 0] == 0.5).sum((1, 2)).double()
    assert covered.max() == 16 * 16
    # The middle lies anywhere: on average a side of s pixels covers s - (s^2 / 4) / 32 or so of them.
    s = torch.linspace(8, 16, 1001).double()
    assert abs(covered.mean() - ((s - s**2 / 128) ** 2).mean()) < 5
    colours, plain = view(images, ViewRecipe(cutout=Cutout(fill="mean"))), images / 255
    hidden = (colours != plain).any(1, keepdim=True)
    assert hidden.flatten(1).any(1).all()
    mean = plain.mean((2, 3), keepdim=True)
    torch.testing.assert_close(colours, torch.where(hidden, mean, plain), atol=1e-5, rtol=0)


def test_operations_come_in_the_order_of_the_setting(images):
    first = view(images, ViewRecipe(gray=1.0, solarize=1.0))
    torch.testing.assert_close(first, solarize(gray(images / 255)))
    other = view(images, ViewRecipe(gray=1.0, solarize=1.0, order=("solarize", "gray")))
    torch.testing.assert_close(other, gray(solarize(images / 255)))
    assert (first - other).abs().max() > 0.05


def test_an_operation_before_the_crop_sees_the_whole_image(images):
    recipe = ViewRecipe(crop=Crop(), solarize=1.0, order=("solarize", "crop"))
    box = crop_boxes(ViewRecipe(crop=Crop()), S, S, torch.arange(N) * 7, Key(1, 2), "v")
    want = resample(solarize(images / 255), box, 20, torch.zeros(N, dtype=torch.bool))
    torch.testing.assert_close(view(images, recipe, size=20), want)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"order": ["crop", "blurr"]}, "experiments.x.augment.order.1: Input should be 'crop', "),
        ({"order": ["crop", "blur", "flip", "blur"]}, "experiments.x.augment: order names blur twice"),
        ({"order": ["crop", "flip", "jitter", "gray"]}, "experiments.x.augment: order leaves out blur, which is on"),
        ({"cutout": {"side": [0.6, 0.5]}}, "side [0.6, 0.5] must be [low, high]"),
        ({"rotate": {"degrees": 0}}, "experiments.x.augment.rotate.degrees"),
    ],
)
def test_settings_that_are_refused(changes, message):
    with pytest.raises(UserError) as error:
        views("simclr", changes, "experiments.x")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("case", CASES)
def test_images_cropped_elsewhere_give_the_same_view(images, case):
    recipe, index, key = CASES[case], torch.arange(N) * 7, Key(1, 2)
    if recipe.steps()[0] != "crop":
        for refused in (
            lambda: crop_boxes(recipe, S, S, index, key, "v"),
            lambda: view(images, recipe, cropped=True),
        ):
            with pytest.raises(UserError, match=r"augment\.order: cutout before crop"):
                refused()
        return
    box = crop_boxes(recipe, S, S, index, key, "v")
    cropped = resample(images / 255, box, 20, torch.zeros(N, dtype=torch.bool))
    torch.testing.assert_close(
        augment(cropped, index, key, "v", recipe, 20, cropped=True),
        augment(images, index, key, "v", recipe, 20),
        atol=2e-5, rtol=0,
    )  # fmt: skip


def test_views_made_together_are_those_made_alone(images):
    """Two of one recipe, one of another recipe and one of another size; of shared images and of images of their own."""
    index, key = torch.arange(N) * 7, Key(3, 1)
    simclr, weak = CASES["simclr/0"], CASES["weak/0"]
    wanted = [("a", simclr, S), ("b", weak, S), ("c", simclr, S), ("d", simclr, 20)]
    alone = [augment(images, index, key, *view) for view in wanted]
    for got, want in zip(augment_views([images] * 4, index, key, wanted), alone, strict=True):
        assert torch.equal(got, want)
    own = [images, images.flip(3), images.flip(2), images.flip(0)]
    alone = [augment(x, index, key, *view, cropped=True) for x, view in zip(own, wanted[:3], strict=False)]
    for got, want in zip(augment_views(own[:3], index, key, wanted[:3], cropped=True), alone, strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize("case", ["simclr/0", "weak/0"])
def test_images_of_different_sizes(case):
    """Each image cropped on its own, all then augmented together, as the decoder does it."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(40, 60), (60, 40), (33, 33), (100, 21), (25, 90)]
    images = [as_bytes(torch.rand(3, *shape, generator=generator)) for shape in shapes]
    recipe, index, key = CASES[case], torch.arange(5), Key(3, 1)
    heights, widths = (torch.tensor(sides) for sides in zip(*shapes, strict=True))
    box = crop_boxes(recipe, heights, widths, index, key, "v")
    straight = torch.zeros(1, dtype=torch.bool)
    cropped = torch.cat([
        resample(image[None] / 255, box[i : i + 1], 24, straight) for i, image in enumerate(images)
    ])  # fmt: skip
    got = augment(cropped, index, key, "v", recipe, 24, cropped=True)
    for i, image in enumerate(images):
        want = augment(image[None], index[i : i + 1], key, "v", recipe, 24)[0]
        torch.testing.assert_close(got[i], want, atol=2e-5, rtol=0)
