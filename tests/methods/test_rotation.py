import torch

from miyagi.methods.rotation import Rotation, Settings


def test_the_target_by_hand(encoder, info):
    method = Rotation(Settings(), encoder, info)
    # One image whose only bright pixel is at the top left: quarter turns (counter-clockwise) take it round the corners.
    image = torch.zeros(1, 3, 16, 16)
    image[:, :, 0, 0] = 1
    rotated, target = method.rotate(image)
    assert target.tolist() == [0, 1, 2, 3]
    corners = [(0, 0), (15, 0), (15, 15), (0, 15)]
    for turned, (row, column) in zip(rotated, corners, strict=True):
        assert turned.sum() == 3
        assert turned[0, row, column] == 1


def test_all_rotations_of_every_image_are_in_the_batch(encoder, info):
    method = Rotation(Settings(), encoder, info)
    x = torch.rand(5, 3, 16, 16)
    rotated, target = method.rotate(x)
    assert rotated.shape == (20, 3, 16, 16)
    assert target.bincount().tolist() == [5, 5, 5, 5]
    assert torch.equal(rotated[10:15], x.flip(2, 3))


def test_two_rotations_are_half_turns(encoder, info):
    assert Rotation(Settings(rotations=2), encoder, info).turns == (0, 2)


def test_pictures_are_turned_and_turned_back_as_answered(encoder, info, make_batch):
    from miyagi.recipes import RECIPES

    method = Rotation(Settings(), encoder, info).eval()
    batch = make_batch(method, RECIPES["none"].views, n=40)
    with torch.no_grad():
        method.head[0].bias[1] = 100.0  # always answers "a quarter turn"
        shown = method.show(batch)
    turns = [
        next(k for k in range(4) if torch.equal(turned, torch.rot90(image, k, (1, 2))))
        for turned, image in zip(shown["turned"], batch.views[0], strict=True)
    ]
    assert set(turns) == {0, 1, 2, 3}
    for back, image, k in zip(shown["turned back as answered"], batch.views[0], turns, strict=True):
        assert torch.equal(back, torch.rot90(image, k - 1, (1, 2)))


def test_shuffled_targets_are_worse(encoder, info, make_batch):
    from miyagi.recipes import RECIPES
    from miyagi.settings import Pretrain
    from miyagi.train.loop import optimizer

    method = Rotation(Settings(), encoder, info)
    recipes = RECIPES["none"].views

    def train(shuffle):
        torch.manual_seed(0)
        copy = Rotation(Settings(), type(encoder)(encoder_settings, (0.5,) * 3, (0.3,) * 3), info)
        if shuffle:
            rotate = copy.rotate
            copy.rotate = lambda x: (rotate(x)[0], rotate(x)[1][torch.randperm(4 * len(x))])
        optimiser = optimizer(copy, Pretrain(lr=3e-3))
        for i in range(20):
            loss = copy(make_batch(method, recipes, i), 0.0)["loss"]
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        return float(loss.detach())

    from miyagi.nn.encoders.conv4 import Settings as EncoderSettings

    encoder_settings = EncoderSettings(width=16)
    assert train(shuffle=False) < train(shuffle=True) - 0.3
