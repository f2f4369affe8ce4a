"""A few steps of a method, as its tests take them: what the loss is at each, with true or with shuffled positives."""

from miyagi.settings import Pretrain
from miyagi.train.optimizer import optimizer


def descend(method, batches):
    """The loss of each step, one a batch."""
    optimiser, losses = optimizer(method, Pretrain(lr=3e-3)), []
    for batch in batches:
        loss = method(batch, 0.0)["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        method.after_step(0.0)
        losses.append(float(loss.detach()))
    return losses


def pairs(method, make_batch, recipe, steps, shuffle=False):
    """Batches of 64 images in two views; shuffled, an image's second view is another image's."""
    for i in range(steps):
        batch = make_batch(method, recipe, i, n=64)
        if shuffle:
            batch.views[1] = batch.views[1].roll(1, 0)
        yield batch
