"""One step of the optimiser: precision, accumulated batches, recomputed activations, compiled networks, processes."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from miyagi.data.batch import Batch
from miyagi.methods.base import Method
from miyagi.nn.encoders.base import Encoder
from miyagi.settings import MethodSettings, Pretrain
from miyagi.train.distributed import ALONE, World
from miyagi.train.optimizer import optimizer
from miyagi.train.recompute import recompute_blocks

AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Step:
    """Works through `settings.accumulate` batches, and moves the weights once by the mean of their gradients.

    What compares images with one another sees one of these batches at a time: negatives of the batch, BatchNorm, and
    the statistics that VICReg and its like are made of. A queue or a bank takes in all of them, and moving averages
    move once. Views share a forward pass where a method wants their BatchNorm statistics shared; its docstring says so.

    Args:
        method: on its device. With several processes, its BatchNorm layers are replaced.
        settings: the optimisation.
        precision: "fp32", or "bf16" or "fp16" for autocast. fp16 scales the loss, so that small gradients do not
            vanish, and leaves out a step whose gradients overflow (Micikevicius et al., ICLR 2018); it is tested on a
            CPU. *Untested without a GPU: fp16 on CUDA.*
        compile: run the method's networks through torch.compile, once for each shape of input. The hooks and the loss
            stay as they are. A compiled network is as reproducible as an eager one, but differs in the last bits.
        world: the processes that train together.
    """

    def __init__(
        self,
        method: Method[MethodSettings],
        settings: Pretrain,
        *,
        precision: str = "fp32",
        compile: bool = False,
        world: World = ALONE,
    ) -> None:
        self.method = method
        self.parts = settings.accumulate
        self.device = method.encoder.mean.device
        self.dtype = AUTOCAST[precision]
        self.optimizer = optimizer(method, settings)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")
        # Hooks are called on the method; what is called for its loss may stand around it.
        self.parallel = world.parallel(method, self.device)
        if settings.checkpointing:
            recompute_blocks(method, compile)
        if compile:
            for network in method.children():
                done = settings.checkpointing and isinstance(network, Encoder)
                if not done and any(True for _ in network.parameters()):
                    network.compile(dynamic=False)

    def __call__(self, batches: Iterator[Batch], progress: float, rate: float) -> list[tuple[int, dict[str, Tensor]]]:
        """One step.

        Args:
            batches: `settings.accumulate` of them, each a part of the optimiser's batch.
            progress: share of the training that is done.
            rate: the learning rate.

        Returns:
            For each batch, how many images it has, and what the method logged (scalars without gradient).
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        found = []
        for part, batch in enumerate(batches, 1):
            with self._unsynchronized() if part < self.parts else nullcontext():
                with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
                    logged = self.parallel(batch, progress)
                self.scaler.scale(logged["loss"] / self.parts).backward()
            found.append((len(batch), {name: value.detach() for name, value in logged.items()}))
        self.scaler.unscale_(self.optimizer)
        self.method.after_backward(progress)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.method.after_step(progress)
        return found

    def _unsynchronized(self) -> AbstractContextManager[None]:
        """Gradients stay this process's own, to be averaged with those of the step's last batch."""
        return self.parallel.no_sync() if isinstance(self.parallel, DistributedDataParallel) else nullcontext()
