"""Activation checkpointing (Chen et al., arXiv 1604.06174): memory for time, with the very same gradients."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from miyagi.nn.encoders.base import Encoder


def recompute_blocks(module: nn.Module, compile: bool = False) -> None:
    """Let every encoder in `module` keep the inputs of its blocks alone, and run each block again going backwards.

    The second run gives the same numbers, so gradients are equal bit for bit; a block costs its forward pass twice.
    Encoders that take no gradient, as MoCo's key encoder, keep nothing anyway.

    Args:
        module: a method, or an encoder.
        compile: run each block through torch.compile; an encoder that recomputes cannot be compiled as a whole.
    """
    for encoder in module.modules():
        if isinstance(encoder, Encoder) and hasattr(encoder, "blocks"):
            for block in encoder.blocks.values():
                if "forward" in vars(block):  # two encoders share it
                    continue
                forward = torch.compile(block.forward, dynamic=False) if compile else block.forward
                block.forward = partial(_forward, block, forward)


def _forward(block: nn.Module, forward: Any, *inputs: Any) -> Any:
    if not (torch.is_grad_enabled() and any(p.requires_grad for p in block.parameters())):
        return forward(*inputs)
    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=partial(_contexts, block))


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _untracked(block)


@contextmanager
def _untracked(block: nn.Module) -> Iterator[None]:
    """BatchNorm does as before, but a batch that it sees again leaves its running statistics as they are.

    They are put back and not switched off: torch takes it for a mistake if the second run saves less than the first,
    or runs through another compiled graph.
    """
    layers = [layer for layer in block.modules() if isinstance(layer, _BatchNorm)]
    kept = [(buffer, buffer.clone()) for layer in layers for buffer in layer.buffers(recurse=False)]
    try:
        yield
    finally:
        for buffer, before in kept:
            buffer.data.copy_(before)  # `data`: for autograd nothing has changed
