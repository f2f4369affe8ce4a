"""FFCV, imported so that it leaves torch's threads alone, and what a user is told of waiting for it.

`import ffcv` sets torch's thread count to 1, and its loader sets it again when it is made, when it is iterated and in
its reader thread. A result of one thread and one of two differ in the last bits, so `runtime.threads` would not mean
what it says. Here FFCV's setter is bound to numba alone.
"""

import sys
import time
from functools import cache
from types import ModuleType

import torch

WORTH_TELLING = 1.0
"""Seconds of waiting that a user is told about."""


def waited(what: str, seconds: float) -> None:
    """Say on stderr what took so long, where it was long."""
    if seconds > WORTH_TELLING:
        print(f"miyagi: {what} took {seconds:.1f} s", file=sys.stderr)


@cache
def import_ffcv() -> ModuleType:
    """Import ffcv; torch's thread count is the same before and after, and whatever its loader does later."""
    threads, start = torch.get_num_threads(), time.perf_counter()
    import ffcv
    import numba
    from ffcv.pipeline.compiler import Compiler

    cores: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]

    def set_num_threads(n: int) -> None:
        # FFCV's own convention: below 1 means every core.
        Compiler.num_threads = n if n >= 1 else cores
        numba.set_num_threads(min(Compiler.num_threads, cores))

    Compiler.set_num_threads = staticmethod(set_num_threads)
    torch.set_num_threads(threads)
    waited("importing ffcv, once a process,", time.perf_counter() - start)
    module: ModuleType = ffcv
    return module
