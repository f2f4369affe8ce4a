import math

import pytest
import torch
from pytorch_metric_learning.losses import NormalizedSoftmaxLoss
from torch.nn.functional import normalize

from miyagi.losses.softmax import non_parametric_softmax, parametric_softmax


def test_parametric_by_hand():
    # Scores (2, 0) + (0, 1): the right class has 2 of exp(2) and exp(1).
    loss = parametric_softmax(
        torch.tensor([[1.0]]), torch.tensor([[2.0], [0.0]]), torch.tensor([0]), torch.tensor([0.0, 1.0])
    )
    assert float(loss) == pytest.approx(math.log(1 + math.exp(1 - 2)), rel=1e-6)


def test_parametric_against_sklearn():
    from sklearn.metrics import log_loss

    torch.manual_seed(0)
    x, weight, bias, label = torch.randn(20, 5), torch.randn(4, 5), torch.randn(4), torch.randint(4, (20,))
    p = (x @ weight.T + bias).double().exp()
    want = log_loss(label, p / p.sum(1, keepdim=True), labels=range(4))
    assert float(parametric_softmax(x, weight, label, bias)) == pytest.approx(want, rel=1e-5)


def test_non_parametric_by_hand():
    # The own image at cosine 1, two others at 0 and -1, tau 0.5.
    bank = torch.tensor([[0.0, 1.0], [1.0, 0.0], [-1.0, 0.0]])
    loss, accuracy = non_parametric_softmax(torch.tensor([[1.0, 0.0]]), bank, torch.tensor([1]), 0.5)
    assert float(loss) == pytest.approx(-math.log(math.exp(2) / (math.exp(2) + 1 + math.exp(-2))), rel=1e-6)
    assert float(accuracy) == 1


def test_non_parametric_against_pytorch_metric_learning():
    torch.manual_seed(0)
    features, bank, index = (
        normalize(torch.randn(8, 6), dim=1),
        normalize(torch.randn(20, 6), dim=1),
        torch.randperm(20)[:8],
    )
    theirs = NormalizedSoftmaxLoss(20, 6, temperature=0.07)
    with torch.no_grad():
        theirs.W.copy_(bank.T)
    loss, accuracy = non_parametric_softmax(features, bank, index, 0.07)
    torch.testing.assert_close(loss, theirs(features, index))
    assert float(accuracy) == float(((features @ bank.T).argmax(1) == index).float().mean())
