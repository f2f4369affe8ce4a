"""Several gloo processes in a test: a function of a test module, run by each of them."""

import os
import sys

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def together(folder, world, work, *args):
    """What `work(rank, *args)` returns in each of `world` processes, which can reach one another.

    Args:
        folder: an empty one.
        world: how many processes.
        work: a function at the top of a test module.
        args: what can be pickled.
    """
    mp.spawn(_enter, (folder, world, work, args, sys.path), world)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(world)]


def _enter(rank, folder, world, work, args, path):
    sys.path[:] = path
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    torch.save(work(rank, *args), folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
