"""Frozen features of a whole split."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from miyagi.data.loader import Raw
from miyagi.nn.encoders.base import Encoder


def unaugmented(raw: Raw) -> Tensor:
    """The images as floats in [0, 1]."""
    return raw.image / 255


@torch.inference_mode()
def features(
    encoder: Encoder, batches: Iterable[Raw], view: Callable[[Raw], Tensor] = unaugmented
) -> tuple[np.ndarray, np.ndarray]:
    """What `forward` gives for the images, N x D float32, and their labels, N int64.

    The encoder's mode is as it was afterwards; BatchNorm uses its running statistics.

    Args:
        encoder: the network.
        batches: of the split, in order.
        view: what is made of a batch on the encoder's device: N x 3 x S x S in [0, 1].
    """
    training = encoder.training
    device = encoder.mean.device
    encoder.eval()
    found, labels = [], []
    for raw in batches:
        x = view(raw.to(device)).contiguous(memory_format=torch.channels_last)
        found.append(encoder(x).float().cpu().numpy())
        labels.append(raw.label.numpy())
    encoder.train(training)
    return np.concatenate(found), np.concatenate(labels)
