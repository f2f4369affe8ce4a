"""The contract between a method and the training loop. Nothing in the loop knows a method by name."""

from collections.abc import Iterable
from typing import Generic, TypeVar

from torch import Tensor, nn

from miyagi.data.batch import Batch, DataInfo, View
from miyagi.nn.encoders.base import Encoder
from miyagi.registry import METHODS
from miyagi.settings import MethodSettings

S = TypeVar("S", bound=MethodSettings)


class Method(nn.Module, Generic[S]):
    """A pretext task: which views it wants, what it minimises, what it updates by itself.

    Whatever must survive a resume is a parameter or a persistent buffer. A subclass defines `forward` and, where it
    needs them, `setup` and the hooks; all else has a default.

    With `pretrain.accumulate` above 1, `forward` runs several times before `after_step`: what it leaves for that is a
    list. With several processes a batch is one's own part; what compares images or keeps them asks nn/gather.py for
    those of all. tests/methods/test_ddp.py checks both for every method.

    Attributes:
        views: what the loader must give, in the order of `Batch.views`; `setup` may set its own.
        views_before: what it must give `before_epoch`; None: `views`, with the same draws as in the epoch.
        encoder: what is trained.
        head: what stands on the encoder (empty: nothing).
    """

    views: tuple[View, ...] = ()
    views_before: tuple[View, ...] | None = None

    def __init__(self, settings: S, encoder: Encoder, info: DataInfo) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Sequential()
        self.setup(settings, info)

    def setup(self, settings: S, info: DataInfo) -> None:
        """Build heads, queues and banks; the encoder is there."""

    def before_epoch(self, epoch: int, batches: Iterable[Batch]) -> None:
        """What needs a pass over the data first: clusters, words, a teacher's phase."""

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """The step's "loss" (scalar, with gradient) and whatever else should be logged (scalars).

        Args:
            batch: the views asked for, indices, labels (only the supervised floor may read them) and the key.
            progress: share of the training that is done, in [0, 1).
        """
        raise TypeError(f"{type(self).__name__} does not train")

    def after_backward(self, progress: float) -> None:
        """Between the backward pass and the optimiser's step: gradients that must not be followed."""

    def after_step(self, progress: float) -> None:
        """After the optimiser's step: moving averages, queues, banks."""

    def downstream(self) -> tuple[Encoder, nn.Module]:
        """What later stages are given: an encoder, and its head, so that a protocol can ask what it throws away."""
        return self.encoder, self.head

    def show(self, batch: Batch) -> dict[str, Tensor]:
        """What the network is asked, and what it answers, as pictures for people.

        Called in eval mode, without gradients, after the training. The default is the views.

        Returns:
            The name of a column -> N x 3 x S x S in [0, 1], the batch's images in order; S may differ by column.
        """
        return {view.name: images for view, images in zip(self.views, batch.views, strict=True)}

    def parameter_groups(self) -> list[dict[str, object]]:
        """What the optimiser gets: no weight decay on biases and normalisation layers (vectors)."""
        trained = [p for p in self.parameters() if p.requires_grad]
        return [
            {"params": [p for p in trained if p.ndim > 1]},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]


def build(name: str, settings: dict[str, object], encoder: Encoder, info: DataInfo) -> Method[MethodSettings]:
    """The method called `name`, on `encoder`.

    Args:
        name: the method's key, which is its file's name.
        settings: the method's own settings, as `experiment.yaml` holds them.
        encoder: freshly initialised.
        info: facts of the data.

    Raises:
        UserError: the method learns from colours, and the images have none.
    """
    module = METHODS.load(name)
    if module.Settings.needs_color:
        info.require_color(name)
    (method,) = (
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Method) and value.__module__ == module.__name__
    )
    built: Method[MethodSettings] = method(module.Settings.model_validate(settings, strict=False), encoder, info)
    return built
