import numpy as np
import pytest
import torch

from miyagi.data.loader import Raw
from miyagi.train.features import features


@pytest.fixture
def batches(digits):
    images, labels = digits
    return [Raw(images[i : i + 30], labels[i : i + 30], torch.arange(i, min(i + 30, 70))) for i in (0, 30)] + [
        Raw(images[60:70], labels[60:70], torch.arange(60, 70))
    ]


def test_what_forward_gives_in_eval_mode(encoder, batches, digits):
    encoder.train()
    encoder(torch.rand(16, 3, 32, 32))  # running statistics that differ from any batch's
    found, labels = features(encoder, iter(batches))
    encoder.eval()
    with torch.no_grad():
        expected = encoder(digits[0][:70].float() / 255).numpy()
    assert (found.dtype, labels.dtype, found.shape) == (np.float32, np.int64, (70, encoder.dim))
    assert np.allclose(found, expected, atol=1e-5)
    assert np.array_equal(labels, digits[1][:70])


@pytest.mark.parametrize("training", [True, False])
def test_the_encoder_is_left_as_it_was(encoder, batches, training):
    encoder.train(training)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    features(encoder, batches)
    assert [module.training for module in encoder.modules()] == [training] * len(list(encoder.modules()))
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
