import pytest

from miyagi.settings import Pretrain
from miyagi.train.schedule import learning_rate


def settings(warmup, epochs=4, min_lr=0.2):
    return Pretrain(epochs=epochs, lr=1.0, min_lr=min_lr, warmup_epochs=warmup)


@pytest.mark.parametrize(
    ("progress", "rate"),
    [
        (0.0, 0.0),
        (0.125, 0.5),
        (0.25, 1.0),  # one of four epochs: the peak
        (0.5, 0.8),  # a third of the cosine: 0.2 + 0.8 (1 + cos 60) / 2
        (0.625, 0.6),
        (0.75, 0.4),
        (1.0, 0.2),
    ],
)
def test_by_hand(progress, rate):
    assert learning_rate(settings(1.0), progress) == pytest.approx(rate, abs=1e-12)


def test_no_warm_up_starts_at_the_peak():
    assert [learning_rate(settings(0.0), p) for p in (0.0, 0.5, 1.0)] == pytest.approx([1.0, 0.6, 0.2])


def test_warm_up_of_all_epochs_only_rises():
    assert [learning_rate(settings(4.0), p) for p in (0.0, 0.25, 0.999)] == pytest.approx([0.0, 0.25, 0.999])


def test_warm_up_is_in_epochs_not_in_shares():
    assert learning_rate(settings(0.5, epochs=10), 0.025) == pytest.approx(0.5)


def test_the_end_is_exactly_min_lr():
    assert learning_rate(settings(0.5, min_lr=0.0), 1.0) == 0.0
    assert learning_rate(settings(4.0), 1.0) == 0.2
