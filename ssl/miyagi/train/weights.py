"""Weights as safetensors: no pickle, equal weights give equal bytes."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from miyagi.errors import UserError
from miyagi.files import canonical, replacing


def save_module(module: nn.Module, file: Path, about: dict[str, Any]) -> None:
    """Write a module's state and what it is. One metadata key only: the format keeps no order among several."""
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in module.state_dict().items()}
    with replacing(file) as temporary:
        save_file(state, str(temporary), metadata={"miyagi": canonical(about)})


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # safetensors and torch raise several kinds
        reason = str(error).splitlines()[0]
        raise UserError(f"cannot load {file}: {reason}; delete it and run `dvc repro`") from error


def load_module(module: nn.Module, file: Path) -> None:
    """Fill `module` from `file`.

    Raises:
        UserError: the file is missing, damaged, or of another architecture.
    """
    with _reading(file):
        module.load_state_dict(load_file(str(file)))


def about(file: Path) -> dict[str, Any]:
    """What `save_module` wrote beside the weights.

    Raises:
        UserError: the file is missing, damaged, or was written by something else.
    """
    with _reading(file), safe_open(str(file), framework="numpy") as opened:
        found: dict[str, Any] = json.loads((opened.metadata() or {})["miyagi"])
        return found
