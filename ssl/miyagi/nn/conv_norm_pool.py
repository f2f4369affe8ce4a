"""Convolution, BatchNorm, 2x2 max pooling, ReLU: one block, trained in fewer passes over memory where it can be.

BatchNorm is affine in each channel, so it may follow the pooling where its slope is not negative; a channel whose
slope is has its filter turned over first. Then only the statistics need every value, and the affine map, ReLU and
their gradients have a quarter of the work. With x the convolution's output, M values a channel, m and s^2 their mean
and variance, X = (x - m) / s, and g the gradient of slope X + shift at the maxima (Ioffe and Szegedy, ICML 2015):

    dx = slope / s (scatter(g) - sum(g) / M - X sum(g X) / M),  d slope = sum(g X),  d shift = sum(g)

The sums take X at the maxima alone, and the last term is linear in x.

A first layer, whose input takes no gradient and has few channels, never holds x as a whole. With p its patches (27
values of 3 channels) and w its filters, x = w p, and all but the maxima follows from t = sum(p) and S = sum(p p^T):

    m = w t / M,  s^2 = w (S / M - t t^T / M^2) w^T,  dw = sum(dx p^T) where sum(x p^T) = w S

S is summed in double precision: of a difference of neighbours little of it is left. So x is made, pooled and dropped
a few images at a time, and so is its gradient; for 512 views of 32 pixels and 64 channels either has 128 MiB.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

aten = torch.ops.aten

PART = 2**22
"""Values of a map that are worked on at a time: 16 MiB, which a processor's last cache holds."""
PATCHES = 2**17
"""Values of patches that are multiplied at a time: in double precision 1 MiB, which a core's own cache holds."""
LEAST = 2**20
"""Values of a map that is worth it: with fewer, starting more operations costs more than a processor's memory does."""


class ConvNormPool(nn.Sequential):
    """N x C x H x W to N x channels x H/2 x W/2.

    Args:
        inputs: C.
        channels: of the output.
        fused: go the way above where this trains on large maps, on a CPU and in fp32; elsewhere, and where
            torch.compile fuses layers itself, the four follow one another. Values and gradients are the same but for
            rounding.
    """

    def __init__(self, inputs: int, channels: int, *, fused: bool = True) -> None:
        super().__init__(
            nn.Conv2d(inputs, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.MaxPool2d(2),
            nn.ReLU(inplace=True),
        )
        self.fused = fused

    def forward(self, x: Tensor) -> Tensor:
        conv: Any = self[0]
        norm: Any = self[1]
        n, channels, height, width = x.shape
        large = n * len(conv.weight) * height * width >= LEAST
        # Several processes have another BatchNorm in its place.
        if not (self.fused and large and type(norm) is nn.BatchNorm2d and norm.training and _eager_fp32_on_a_cpu(x)):
            plain: Tensor = super().forward(x)
            return plain
        sign = torch.where(norm.weight.detach() < 0, -1.0, 1.0)
        filters, slope = conv.weight * sign.view(-1, 1, 1, 1), norm.weight * sign
        y: Tensor
        # Patches of more values than the map has channels would cost more than they spare.
        few = 9 * channels <= len(filters)
        if few and not x.requires_grad and height % 2 == width % 2 == 0:
            y, mean, variance = _First.apply(x, filters, slope, norm.bias, norm.eps)
        else:
            y, mean, variance = _NormPool.apply(F.conv2d(x, filters, padding=1), slope, norm.bias, norm.eps)
        _track(norm, mean * sign, variance, n * height * width)
        return y


def _eager_fp32_on_a_cpu(x: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


@torch.no_grad()
def _track(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, count: int) -> None:
    """Move the running statistics as torch.nn.BatchNorm2d does: by the unbiased variance."""
    if norm.num_batches_tracked is None or norm.running_mean is None or norm.running_var is None:
        return
    norm.num_batches_tracked.add_(1)
    momentum = norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked)
    # `data`: torch's own layer, whose backward pass may be still to come, holds them, and minds if autograd is told.
    norm.running_mean.data.lerp_(mean, momentum)
    norm.running_var.data.lerp_(variance * (count / (count - 1)), momentum)


class _NormPool(torch.autograd.Function):
    """BatchNorm with slopes >= 0, pooling and ReLU of a convolution's output; also its mean and biased variance."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: Tensor, shift: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        x = _channels_last(x)
        mean, variance = torch.batch_norm_update_stats(x, None, None, 0.0)
        inverse = (variance + eps).rsqrt()
        pooled, where, y = _pool(x.split(_images(x.shape)), x.shape, mean, inverse * slope, shift)
        ctx.save_for_backward(x, pooled, where, y, mean, inverse, slope)
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, pooled, where, y, mean, inverse, slope = ctx.saved_tensors
        g, sums, dx = torch.empty_like(y), _Sums(mean, inverse, slope), torch.empty_like(x)
        for part in _parts(_images(x.shape), _channels_last(gradients[0]), y, pooled, g):
            sums.add(*part)
        by_x, rest = sums.linear(x.numel() // x.shape[1])
        for own, at, values, out in _parts(_images(x.shape), g, where, x, dx):
            _scatter(own, at, out)
            _rows(out).add_(rest).addcmul_(_rows(values), by_x)
        return dx, sums.slope(), sums.shift, None


class _First(torch.autograd.Function):
    """The whole block on images; also the mean and biased variance of the convolution's output."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, filters: Tensor, slope: Tensor, shift: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        x, filters = _channels_last(x), _channels_last(filters)
        shape = (len(x), len(filters), *x.shape[2:])
        count = len(x) * x.shape[2] * x.shape[3]
        sums, products = patch_moments(x)
        w = _as_patches(filters).double()
        spread = products / count - torch.outer(sums, sums) / count**2
        mean, variance = (w @ sums / count).float(), ((w @ spread) * w).sum(1).clamp(min=0).float()
        inverse = (variance + eps).rsqrt()
        maps = (F.conv2d(images, filters, padding=1) for images in x.split(_images(shape)))
        pooled, where, y = _pool(maps, shape, mean, inverse * slope, shift)
        ctx.save_for_backward(x, filters, sums, products, pooled, where, y, mean, inverse, slope)
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, filters, patches, products, pooled, where, y, mean, inverse, slope = ctx.saved_tensors
        shape = (len(x), len(filters), *x.shape[2:])
        sums, total = _Sums(mean, inverse, slope), torch.zeros_like(filters)
        for images, at, gradient, own, values in _parts(
            _images(shape), x, where, _channels_last(gradients[0]), y, pooled
        ):
            g = torch.empty_like(own)
            sums.add(gradient, own, values, g)
            dx = torch.empty((len(images), *shape[1:]), memory_format=torch.channels_last)
            _scatter(g, at, dx)
            total += _of_filters(dx, images, filters)
        by_x, rest = (each.double() for each in sums.linear(len(x) * x.shape[2] * x.shape[3]))
        linear = by_x[:, None] * (_as_patches(filters).double() @ products) + torch.outer(rest, patches)
        total += linear.float().view(total.permute(0, 2, 3, 1).shape).permute(0, 3, 1, 2)
        return None, total, sums.slope(), sums.shift, None


class _Sums:
    """Sums of g and of g x over the maxima, a few images at a time, and what follows from them."""

    def __init__(self, mean: Tensor, inverse: Tensor, slope: Tensor) -> None:
        self.mean, self.inverse, self.scale = mean, inverse, slope * inverse
        self.shift, self.products = torch.zeros_like(mean), torch.zeros_like(mean)

    def add(self, gradient: Tensor, y: Tensor, pooled: Tensor, out: Tensor) -> None:
        """Take in the gradient of some images' y; `out` becomes slope / s g."""
        aten.threshold_backward.grad_input(gradient, y, 0, grad_input=out)
        g = _rows(out)
        self.shift += g.sum(0)
        self.products += (g * _rows(pooled)).sum(0)
        g.mul_(self.scale)

    def slope(self) -> Tensor:
        """sum(g X)."""
        return (self.products - self.mean * self.shift) * self.inverse

    def linear(self, count: int) -> tuple[Tensor, Tensor]:
        """(a, b) of dx = scatter(slope / s g) + a x + b, for `count` values a channel."""
        by_x = -self.scale * self.inverse * self.slope() / count
        return by_x, -self.scale * self.shift / count - by_x * self.mean


def _pool(
    maps: Iterable[Tensor], shape: Sequence[int], mean: Tensor, scale: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Maxima, where they are (as max_pool2d says it), and ReLU of scale (x - mean) + shift.

    Args:
        maps: a few images of x after the other.
        shape: of x as a whole.
        mean, scale, shift: of each channel.
    """
    n, channels, height, width = shape
    size = (n, channels, height // 2, width // 2)
    pooled = torch.empty(size, memory_format=torch.channels_last)
    where = torch.empty(size, dtype=torch.int64, memory_format=torch.channels_last)
    y, offset = torch.empty_like(pooled), shift - mean * scale
    for x, (values, at, out) in zip(maps, _parts(_images(shape), pooled, where, y), strict=True):
        aten.max_pool2d_with_indices.out(x, [2, 2], [2, 2], out=values, indices=at)
        torch.addcmul(offset, _rows(values), scale, out=_rows(out)).relu_()
    return pooled, where, y


def _scatter(g: Tensor, where: Tensor, out: Tensor) -> None:
    """`out` becomes `g` at the maxima and 0 elsewhere."""
    # Of the map that was pooled, the kernel wants shape and layout alone.
    aten.max_pool2d_with_indices_backward.grad_input(
        g, out, [2, 2], [2, 2], [0, 0], [1, 1], False, where, grad_input=out
    )


def _of_filters(dx: Tensor, images: Tensor, filters: Tensor) -> Tensor:
    """The convolution's gradient for its filters."""
    found: Tensor = aten.convolution_backward(
        dx, images, filters, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [False, True, False]
    )[1]
    return found


def patch_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Sums over all 3x3 patches p of `x` framed by zeros: of p (9 C) and of p p^T (9 C x 9 C), in double precision.

    The order of p is row, column, channel. A patch of 4x4 at every other row and column holds four of 3x3, so a
    quarter as many are copied and multiplied.

    Args:
        x: N x C x H x W, channels last in memory, H and W even.
    """
    _, c, height, width = x.shape
    wide = 16 * c
    sums, products = x.new_zeros(wide, dtype=torch.float64), x.new_zeros(wide, wide, dtype=torch.float64)
    row = (width + 2) * c
    for images in x.split(max(1, PATCHES // (4 * c * height * width))):
        framed = F.pad(images.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1)).contiguous()
        patches = framed.as_strided(
            (len(framed), height // 2, width // 2, 4, 4 * c), (framed.stride(0), 2 * row, 2 * c, row, 1)
        )
        flat = patches.to(torch.float64, memory_format=torch.contiguous_format).view(-1, wide)
        sums += flat.sum(0)
        products.addmm_(flat.T, flat)
    at = torch.arange(wide).view(4, 4, c)
    corners = [at[dy : dy + 3, dx : dx + 3].flatten() for dy in (0, 1) for dx in (0, 1)]
    total = torch.stack([products[corner][:, corner] for corner in corners]).sum(0)
    return torch.stack([sums[corner] for corner in corners]).sum(0), total


def _as_patches(filters: Tensor) -> Tensor:
    """Filters (K x C x 3 x 3) as K x 9 C, in the order of `patch_moments`."""
    return filters.permute(0, 2, 3, 1).flatten(1)


def _images(shape: Sequence[int]) -> int:
    """How many images' maps hold PART values."""
    return max(1, PART // (shape[1] * shape[2] * shape[3]))


def _parts(images: int, *tensors: Tensor) -> Iterable[tuple[Tensor, ...]]:
    """So many images of each tensor at a time; views."""
    return zip(*(each.split(images) for each in tensors), strict=True)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _rows(x: Tensor) -> Tensor:
    """N x K x H x W, channels last in memory, as N H W x K; a view."""
    return x.permute(0, 2, 3, 1).flatten(0, 2)
