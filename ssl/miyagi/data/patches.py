"""Square patches of images, for methods that look at parts: relative patches, jigsaw puzzles."""

import torch
from torch import Tensor
from torch.nn import functional as F


def cut(x: Tensor, top: Tensor, left: Tensor, side: int) -> Tensor:
    """P patches of each image, where they stand.

    Args:
        x: N x 3 x H x W.
        top, left: N x P, int64: the patches' first rows and columns.
        side: of a patch, in pixels.

    Returns:
        N x P x 3 x side x side.
    """
    step = torch.arange(side, device=x.device)
    rows, columns = (top[:, :, None] + step)[:, :, :, None], (left[:, :, None] + step)[:, :, None, :]
    image = torch.arange(len(x), device=x.device)[:, None, None, None]
    return x[image, :, rows, columns].permute(0, 1, 4, 2, 3)


def enlarge(patches: Tensor, side: int) -> Tensor:
    """Patches (N x 3 x s x s) at least `side` pixels large: bilinear where they are smaller, else as they are."""
    if patches.shape[3] < side:
        patches = F.interpolate(patches, size=side, mode="bilinear", align_corners=False)
    return patches.contiguous(memory_format=torch.channels_last)


def standardize(patches: Tensor) -> Tensor:
    """Each channel of each patch (... x 3 x s x s) to mean 0 and deviation 1; a flat one to 0.

    A deviation counts as one grey level (1 / 255) at least: below it there is nothing but rounding to enlarge.
    """
    std, mean = torch.std_mean(patches, dim=(-2, -1), keepdim=True, correction=0)
    return (patches - mean) / std.clamp(min=1 / 255)


def mosaic(tiles: Tensor, line: int = 1) -> Tensor:
    """N x 9 x 3 x s x s as pictures with white lines, N x 3 x (3 s + 2 line) squared."""
    n, side = len(tiles), tiles.shape[4]
    step = side + line
    picture = tiles.new_ones(n, 3, 3 * side + 2 * line, 3 * side + 2 * line)
    for i, tile in enumerate(tiles.unbind(1)):
        row, column = (step * part for part in divmod(i, 3))
        picture[:, :, row : row + side, column : column + side] = tile
    return picture
