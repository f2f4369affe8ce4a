"""Frozen features of a whole split."""

from collections.abc import Iterable

import numpy as np
import torch

from miyagi.data.loader import Raw
from miyagi.nn.encoders.base import Encoder


@torch.inference_mode()
def features(encoder: Encoder, batches: Iterable[Raw]) -> tuple[np.ndarray, np.ndarray]:
    """What `forward` gives for unaugmented images, N x D float32, and their labels, N int64.

    The encoder's mode is as it was afterwards; BatchNorm uses its running statistics.
    """
    training = encoder.training
    device = encoder.mean.device
    encoder.eval()
    found, labels = [], []
    for raw in batches:
        x = (raw.image.to(device) / 255).contiguous(memory_format=torch.channels_last)
        found.append(encoder(x).float().cpu().numpy())
        labels.append(raw.label.numpy())
    encoder.train(training)
    return np.concatenate(found), np.concatenate(labels)
