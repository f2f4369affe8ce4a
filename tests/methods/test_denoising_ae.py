import pytest
import torch
from pydantic import ValidationError

from miyagi.data.batch import Batch, DataInfo
from miyagi.data.rng import Key
from miyagi.methods.denoising_ae import DenoisingAE, Settings
from miyagi.recipes import RECIPES

RECIPE = RECIPES["none"].views


def white(n=200, size=32, value=1.0):
    return Batch([torch.full((n, 3, size, size), value)], torch.arange(n), torch.zeros(n), Key(3, 1))


def make(encoder, info, **settings):
    torch.manual_seed(0)
    return DenoisingAE(Settings(width=16, **settings), encoder, info)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.9])
def test_masking_blackens_the_share_of_pixels(encoder, info, share):
    corrupted = make(encoder, info, corruption=share).corrupt(white())
    red, green, blue = corrupted.unbind(1)
    assert torch.equal(red, green) and torch.equal(red, blue)  # a pixel goes with all its channels
    assert set(red.unique().tolist()) == {0.0, 1.0}
    assert float((red == 0).float().mean()) == pytest.approx(share, abs=0.005)
    assert float((red == 0).float().mean(0).std()) < 0.05  # everywhere alike


def test_squares_go_together(encoder, info):
    red = make(encoder, info, corruption=0.5, cell=5).corrupt(white())[:, 0]
    for row, column in ((0, 0), (5, 10), (25, 25)):
        square = red[:, row : row + 5, column : column + 5].flatten(1)
        assert ((square == square[:, :1]).all()) and 0.3 < square[:, 0].mean() < 0.7
    rest = red[:, 30:, 30:].flatten(1)  # 32 = 6 x 5 + 2
    assert (rest == rest[:, :1]).all()
    assert not torch.equal(red[:, 4], red[:, 5])


def test_gaussian_noise_has_its_deviation(encoder, info):
    batch = white(value=0.25)
    noise = make(encoder, info, noise="gaussian", corruption=0.3).corrupt(batch) - batch.views[0]
    assert float(noise.mean()) == pytest.approx(0, abs=0.002)
    assert float(noise.std()) == pytest.approx(0.3, abs=0.002)
    channels = noise.permute(1, 0, 2, 3).flatten(1)
    assert (torch.corrcoef(channels) - torch.eye(3)).abs().max() < 0.01


@pytest.mark.parametrize("noise", ["masking", "gaussian"])
def test_corruption_0_is_the_plain_autoencoder(encoder, info, make_batch, noise):
    method = make(encoder, info, noise=noise, corruption=0.0)
    batch = make_batch(method, RECIPE, n=4)
    assert torch.equal(method.corrupt(batch), batch.views[0])


@pytest.mark.parametrize("noise", ["masking", "gaussian"])
def test_draws_belong_to_the_image_and_not_to_the_batch(encoder, info, make_batch, noise):
    method = make(encoder, info, noise=noise)
    whole, rows = make_batch(method, RECIPE, n=32), torch.tensor([7, 30, 2])
    part = Batch([whole.views[0][rows]], whole.index[rows], whole.label[rows], whole.key)
    assert torch.equal(method.corrupt(part), method.corrupt(whole)[rows])
    later = Batch(whole.views, whole.index, whole.label, Key(0, 1))
    assert not torch.equal(method.corrupt(later), method.corrupt(whole))


@pytest.mark.parametrize("size", [28, 32, 45, 96])
def test_the_answer_has_the_images_size(encoder, size):
    info = DataInfo(n=8, classes=2, size=size, mean=(0.5,) * 3, std=(0.3,) * 3)
    assert make(encoder, info).reconstruct(torch.rand(2, 3, size, size)).shape == (2, 3, size, size)


def test_the_loss_by_hand(encoder, info):
    """A decoder that answers 0.2 everywhere, for white images: each pixel is 0.8 off, corrupted or not."""
    method = make(encoder, info, corruption=0.5)
    with torch.no_grad():
        method.decoder[-1].weight.zero_()
        method.decoder[-1].bias.fill_(0.2)
        assert float(method(white(8), 0.0)["loss"]) == pytest.approx(0.64, rel=1e-5)
        shown = method.show(white(8))
    assert torch.allclose(shown["reconstruction"], torch.tensor(0.2))
    assert torch.equal(shown["corrupted"], method.corrupt(white(8)))
    assert torch.equal(shown["truth"], white(8).views[0])


def test_what_is_explained(encoder, info):
    """Half of the images black, half white: an answer of 0.5 everywhere explains nothing, one of 0.2 less."""
    method, batch = make(encoder, info), white(8)
    batch.views[0][4:] = 0.0
    with torch.no_grad():
        method.decoder[-1].weight.zero_()
        for answer, share in ((0.5, 0.0), (0.2, 1 - (0.04 + 0.64) / 2 / 0.25)):
            method.decoder[-1].bias.fill_(answer)
            assert float(method(batch, 0.0)["explained"]) == pytest.approx(share, abs=1e-5)


def test_shuffled_targets_are_worse(encoder, info, fit):
    method = make(encoder, info)
    state = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    true = fit(method, RECIPE, steps=40, n=32, lr=0.01)
    method.load_state_dict(state)
    own = method.target

    def shuffled(batch):  # another image
        return own(batch).roll(1, dims=0)

    method.target = shuffled
    assert true < 0.8 * fit(method, RECIPE, steps=40, n=32, lr=0.01)


def test_bounds():
    for wrong in ({"corruption": 1.1}, {"noise": "salt"}, {"cell": 0}, {"mask": 0.5}):
        with pytest.raises(ValidationError):
            Settings(**wrong)
