import pytest
import torch
from torch import nn

from miyagi.nn.multi_crop import crops, encode


@pytest.mark.parametrize(
    ("size", "share", "side"), [(224, 96 / 224, 96), (32, 96 / 224, 16), (32, 0.75, 24), (16, 0.5, 16)]
)
def test_small_crops_are_no_smaller_than_the_encoder_takes(encoder, size, share, side):
    """conv4 takes 16 pixels."""
    views = crops(encoder, size, 2, 3, share)
    assert [(view.size, view.recipe) for view in views] == [(None, 0)] * 2 + [(side, 1)] * 3
    assert len({view.name for view in views}) == 5  # else they would be the same crop
    encoder.eval()(torch.rand(1, 3, views[-1].size, views[-1].size))


def test_views_of_one_size_share_a_forward_pass():
    sizes = []

    class Means(nn.Module):
        def forward(self, x):
            sizes.append(tuple(x.shape))
            return x.mean((2, 3))

    views = [torch.rand(4, 3, side, side) for side in (8, 8, 6, 6, 6)]
    out = encode(Means(), views)
    assert sizes == [(8, 3, 8, 8), (12, 3, 6, 6)]
    torch.testing.assert_close(out, torch.cat([view.mean((2, 3)) for view in views]))
