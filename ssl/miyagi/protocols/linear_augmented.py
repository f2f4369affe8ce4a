"""The papers' linear protocol: a linear layer on the frozen encoder, trained by SGD on augmented images.

    minimise  mean_i -log softmax(W f(t(x_i)) + b)[y_i],  t random,  f frozen, BatchNorm with its running statistics

MoCo (He et al., CVPR 2020, section 4.1): 100 epochs on ImageNet, batch 256, momentum 0.9, weight decay 0, learning rate
30, a tenth of it after 60 % and a hundredth after 80 % of the epochs; random resized crop and flip, which is
`augment: {pad: 0, crop: {}}`. A learning rate that suits one encoder's features is off by orders of magnitude for
another's, so it is chosen on validation; all rates are trained side by side and cost one encoder's forward passes.

The convex cousin without augmentation is `linear`, on the bank of features.
"""

from pydantic import Field

from miyagi.data.rng import fold
from miyagi.protocols.base import Outcome
from miyagi.protocols.classifier import Trainer, outcomes
from miyagi.protocols.task import Task
from miyagi.settings import FinetuneSettings, Grid, Optimization


class Settings(FinetuneSettings):
    """Settings of the papers' linear protocol."""

    grid: Grid = Field(Grid(lr=[0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0], steps=[1000]), description="MoCo: lr 30")
    optimization: Optimization = Field(
        Optimization(optimizer="sgd", weight_decay=0.0, batch_size=256, schedule="step", looks=1),
        description="MoCo's, but for the recipe",
    )


def evaluate(task: Task, settings: Settings, seed: int) -> list[Outcome]:
    """Top-1 accuracy of the linear layer that is best on validation.

    Raises:
        UserError: the images are too small for the encoder, or no learning rate converges.
    """
    trainer = Trainer(
        task, "linear_augmented", settings.optimization, seed, fold(seed, "linear_augmented"), frozen=True
    )
    trained = trainer.fit(trainer.train_loader(), task.loader("val"), settings.grid, "evaluate.linear_augmented.grid")
    return outcomes(task, trained, {})
