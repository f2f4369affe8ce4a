import pytest
import torch

from miyagi.protocols.descent import optimizer, share
from miyagi.settings import Descent


def test_the_schedules_by_hand():
    step = Descent(schedule="step")
    assert [share(step, p) for p in (0.0, 0.59, 0.6, 0.79, 0.8, 1.0)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    cosine = Descent(warmup=0.2)
    assert [share(cosine, p) for p in (0.0, 0.1, 0.2, 0.6, 1.0)] == pytest.approx([0, 0.5, 1, 0.5, 0])


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_no_weight_decay_on_biases_and_batchnorm_and_a_rate_each(encoder, name):
    head = torch.nn.Linear(encoder.dim, 10)
    groups = optimizer(Descent(optimizer=name, weight_decay=0.1), [(head, 0.3), (encoder, 0.1)]).param_groups
    decayed = {p.ndim > 1 for group in groups for p in group["params"] if group["weight_decay"]}
    kept = {p.ndim > 1 for group in groups for p in group["params"] if not group["weight_decay"]}
    assert (decayed, kept) == ({True}, {False})
    assert [group["peak"] for group in groups] == [0.3, 0.3, 0.1, 0.1]
    assert sum(len(group["params"]) for group in groups) == len(list(encoder.parameters())) + 2
