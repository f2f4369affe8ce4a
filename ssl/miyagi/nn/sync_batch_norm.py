"""BatchNorm over the images of all processes, so that a result does not depend on how many processes share a batch.

On a GPU this is `torch.nn.SyncBatchNorm`, which has no CPU path; on a CPU it is `AllReduceBatchNorm`:

    mu = mean over all processes,  sigma^2 = variance,  x^ = (x - mu) / sqrt(sigma^2 + eps),  y = w x^ + b,
    dL/dx = w / sqrt(sigma^2 + eps) (dL/dy - mean(dL/dy) - x^ mean(dL/dy x^)),

with every mean over all processes (Ioffe and Szegedy, ICML 2015); the gradients of w and b are each process's own,
which DistributedDataParallel averages. Running statistics are updated as `torch.nn.BatchNorm2d` updates them.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from miyagi.nn.gather import gather_detached, world_size

LOCAL = "local_statistics"
"""The mark of a layer that is not replaced."""


def keep_local(module: nn.Module) -> None:
    """Let the BatchNorm layers of `module` go on using each process's own images, as MoCo's keys need it."""
    for layer in module.modules():
        if isinstance(layer, _BatchNorm):
            vars(layer)[LOCAL] = True


def local_statistics(module: nn.Module) -> list[Tensor]:
    """Running means and variances of the layers that `keep_local` was called for."""
    layers = [layer for layer in module.modules() if hasattr(layer, LOCAL)]
    return [getattr(layer, name) for layer in layers for name in ("running_mean", "running_var")]


def synchronize(module: nn.Module, device: torch.device) -> None:
    """Replace the BatchNorm layers below `module`, in place, but for those that `keep_local` was called for.

    Parameters and buffers stay the same objects under the same names.
    """
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm) and not hasattr(child, LOCAL):
            setattr(module, name, _synchronized(child, device))
        else:
            synchronize(child, device)


def _synchronized(layer: _BatchNorm, device: torch.device) -> nn.Module:
    if device.type != "cpu":
        found: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(layer)
        return found
    synchronized = AllReduceBatchNorm(layer.num_features, layer.eps, layer.momentum, layer.affine)
    synchronized.track_running_stats = layer.track_running_stats
    synchronized.weight, synchronized.bias = layer.weight, layer.bias
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        setattr(synchronized, name, getattr(layer, name))
    return synchronized.train(layer.training)


class AllReduceBatchNorm(_BatchNorm):
    """N x C or N x C x H x W, normalised over the batch of all processes; in eval mode by the running statistics."""

    def _check_input_dim(self, x: Tensor) -> None:
        if x.ndim not in (2, 4):
            raise ValueError(f"expected N x C or N x C x H x W, got {x.ndim} dimensions")

    # An exchange between processes is no part of a compiled graph.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, x: Tensor) -> Tensor:
        if not self.training or world_size() == 1:
            return super().forward(x)
        self._check_input_dim(x)
        mean, variance, count = _statistics(x)
        seen, old_mean, old_variance = self.num_batches_tracked, self.running_mean, self.running_var
        if self.track_running_stats and seen is not None and old_mean is not None and old_variance is not None:
            seen.add_(1)
            momentum = self.momentum if self.momentum is not None else 1 / float(seen)
            with torch.no_grad():
                old_mean.lerp_(mean, momentum)
                old_variance.lerp_(variance * (count / (count - 1)), momentum)
        found: Tensor = _Normalize.apply(x, mean, variance, self.weight, self.bias, self.eps, count)
        return found


@torch.no_grad()
def _statistics(x: Tensor) -> tuple[Tensor, Tensor, int]:
    """Mean and variance of each channel over all processes, and the number of values a channel."""
    axes = [0, 2, 3][: x.ndim - 1]
    variance, mean = torch.var_mean(x.float(), axes, correction=0)
    parts = gather_detached(torch.stack([mean, variance])[None])
    # Chan, Golub and LeVeque (1979), for parts of one size: nothing cancels, as it would in E[x^2] - E[x]^2.
    mean = parts[:, 0].mean(0)
    variance = (parts[:, 1] + (parts[:, 0] - mean).square()).mean(0)
    return mean, variance, world_size() * x.numel() // x.shape[1]


class _Normalize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor, eps: float, count: int
    ) -> Tensor:
        ctx.save_for_backward(x, mean, variance, weight)
        ctx.eps, ctx.count = eps, count
        return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, variance, weight = ctx.saved_tensors
        (gradient,) = gradients
        shape = (1, -1, *[1] * (x.ndim - 2))
        axes = [0, 2, 3][: x.ndim - 1]
        inverse = (variance + ctx.eps).rsqrt()
        normalised = (x.float() - mean.view(shape)) * inverse.view(shape)
        gradient = gradient.float()
        own = torch.stack([gradient.sum(axes), (gradient * normalised).sum(axes)])
        total = own.clone()
        dist.all_reduce(total)
        total /= ctx.count
        scale = inverse if weight is None else inverse * weight
        dx = (gradient - total[0].view(shape) - normalised * total[1].view(shape)) * scale.view(shape)
        if weight is None:
            return dx.to(x.dtype), None, None, None, None, None, None
        return dx.to(x.dtype), None, None, own[1].to(weight.dtype), own[0].to(weight.dtype), None, None
