"""The machine as an experiment's `runtime` asks for it."""

import torch

from miyagi.data.threads import import_ffcv
from miyagi.errors import UserError
from miyagi.settings import Runtime


def set_up(runtime: Runtime) -> torch.device:
    """Set torch's threads and determinism, and return the device.

    Raises:
        UserError: `runtime.device` asks for a GPU that is not there.
    """
    import_ffcv()
    torch.set_num_threads(runtime.threads)
    torch.use_deterministic_algorithms(True)
    cuda = torch.cuda.is_available()
    if runtime.device == "cuda" and not cuda:
        raise UserError("runtime.device: cuda, but torch finds no GPU; use `auto` or `cpu`")
    return torch.device("cuda" if cuda and runtime.device != "cpu" else "cpu")
