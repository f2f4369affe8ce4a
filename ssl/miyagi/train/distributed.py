"""Several processes on one machine that train one method together: started as torchrun does, one a GPU.

Each process takes its part of every batch (data/loader.py), BatchNorm sees the images of all (nn/sync_batch_norm.py),
what a method compares or keeps is gathered (nn/gather.py), and gradients are averaged, so that a step is the one that a
single process would take with the whole batch. Process 0 alone watches, tracks and writes.

Backends: gloo on CPUs; nccl, with torch's own SyncBatchNorm, on GPUs. *Untested without a GPU: nccl.*
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import GradBucket
from torch.nn.parallel import DistributedDataParallel

from miyagi.errors import UserError
from miyagi.nn.sync_batch_norm import synchronize
from miyagi.train.launch import STORE, die_with_the_launcher, inside, rank

PATIENCE = timedelta(days=30)
"""How long the others wait for process 0 while it waits for another training, looks at the encoder, or writes. When a
process dies, nobody waits any longer: the launcher ends the others."""


@dataclass(frozen=True)
class World:
    """The processes that train together; by default this one alone."""

    rank: int = 0
    size: int = 1
    waiting: dist.ProcessGroup | None = None

    def wait(self) -> None:
        """Until all processes are here."""
        if self.waiting is not None:
            dist.barrier(self.waiting)

    def told(self, value: bool) -> bool:
        """What process 0 says, once it says it."""
        if self.waiting is None:
            return value
        answer = torch.tensor([int(value)])
        dist.broadcast(answer, 0, self.waiting)
        return bool(answer.item())

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes of each value."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def parallel(self, method: nn.Module, device: torch.device) -> nn.Module:
        """`method` itself, or what to call instead so that gradients are averaged and BatchNorm sees all images."""
        if self.size == 1:
            return method
        synchronize(method, device)
        wrapped = DistributedDataParallel(method, forward_sync_buffers=False, gradient_as_bucket_view=True)
        if device.type == "cpu":
            wrapped.register_comm_hook(None, _mean_in_order)
        return wrapped


ALONE = World()


def _mean_in_order(_: None, bucket: GradBucket) -> torch.futures.Future[Tensor]:
    """Average a bucket of gradients, adding the processes' up one after the other.

    gloo adds three or more in an order that depends on a number's place in its bucket, and DDP fills its buckets anew
    after its first step. So a resumed training, whose first step is another one, would differ in the last bits.
    """
    own = bucket.buffer()
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, own)
    total = parts[0]
    for part in parts[1:]:
        total.add_(part)
    done: torch.futures.Future[Tensor] = torch.futures.Future()
    done.set_result(total.div_(len(parts)))
    return done


@contextmanager
def joined(processes: int, gpu: bool) -> Iterator[World]:
    """The processes of one training, met and parted again.

    Args:
        processes: how many there should be.
        gpu: whether they train on GPUs, one each.

    Raises:
        UserError: there are fewer or more of them, or fewer GPUs.
    """
    found = int(os.environ["WORLD_SIZE"]) if inside() else 1
    if found != processes:
        raise UserError(
            f"runtime.processes: {processes}, but {found} were started; `miyagi pretrain` starts them itself"
        )
    if processes == 1:
        yield World()
        return
    if gpu and torch.cuda.device_count() < processes:
        raise UserError(f"runtime.processes: {processes}, but there are {torch.cuda.device_count()} GPUs")
    die_with_the_launcher()
    # Under a launcher of the user's own, its environment says where they meet.
    place = f"file://{os.environ[STORE]}" if STORE in os.environ else "env://"
    dist.init_process_group("nccl" if gpu else "gloo", init_method=place, rank=rank(), world_size=processes)
    waiting = dist.new_group(backend="gloo", timeout=PATIENCE)
    assert isinstance(waiting, dist.ProcessGroup)
    yield World(rank(), processes, waiting)
    # Not after an error: the others may wait for what will never come, and the launcher ends them.
    dist.destroy_process_group()
