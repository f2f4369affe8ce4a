"""FFCV, imported so that it leaves torch's threads alone.

`import ffcv` sets torch's thread count to 1, and its loader sets it again when it is made, when it is iterated and in
its reader thread. A result of one thread and one of two differ in the last bits, so `runtime.threads` would not mean
what it says. Here FFCV's setter is bound to numba alone.
"""

from functools import cache
from types import ModuleType

import torch


@cache
def import_ffcv() -> ModuleType:
    """Import ffcv; torch's thread count is the same before and after, and whatever its loader does later."""
    threads = torch.get_num_threads()
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
    module: ModuleType = ffcv
    return module
