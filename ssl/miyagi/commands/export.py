"""`miyagi export`: a trained encoder for other programs, with a model card that says what its numbers are."""

import importlib.util
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from miyagi.commands import model_card
from miyagi.commands.encoders import Trained, trained
from miyagi.errors import UserError
from miyagi.files import canonical, replacing, write_text
from miyagi.nn.encoders.resnet import ResNet
from miyagi.params import Params
from miyagi.paths import Paths

STEM = {"stem.0": "conv1", "stem.1": "bn1"}
"""Where a ResNet's blocks have other names than torchvision's and timm's model."""
TOLERANCE = 1e-4


def run(params: Params, paths: Paths, name: str, seed: int | None, form: str, folder: Path) -> list[Path]:
    """Write the encoder and its model card, `README.md`, to `folder`.

    Args:
        params, paths: the project.
        name, seed: of the encoder; no seed: the first one.
        form: "state_dict" (`encoder.safetensors`), "torchscript" (`encoder.pt`) or "onnx" (`encoder.onnx`).
        folder: made where it is missing.

    Returns:
        The files.

    Raises:
        UserError: the encoder is not there, or what the format needs is not installed.
    """
    own = trained(params, paths, name, seed)
    file = folder / {"state_dict": "encoder.safetensors", "torchscript": "encoder.pt", "onnx": "encoder.onnx"}[form]
    WRITERS[form](own, file)
    card = folder / "README.md"
    write_text(card, model_card.text(own, file, form, params, paths))
    return [file, card]


def state_dict(encoder: nn.Module) -> dict[str, Tensor]:
    """The weights; a ResNet's under the names that torchvision's and timm's model give them, without `fc`.

    The normalisation (`mean`, `std`) is no part of those models: the model card says it.
    """
    state = {name: tensor.contiguous() for name, tensor in encoder.state_dict().items()}
    if not isinstance(encoder, ResNet):
        return state
    blocks = {name.removeprefix("blocks."): tensor for name, tensor in state.items() if name.startswith("blocks.")}
    found = {}
    for key, tensor in blocks.items():
        front = next((own for own in STEM if key.startswith(f"{own}.")), None)
        found[key if front is None else STEM[front] + key.removeprefix(front)] = tensor
    return found


def _write_state_dict(own: Trained, file: Path) -> None:
    about = {"experiment": own.name, "seed": own.seed, "weights": own.digest, "encoder": own.experiment.encoder}
    with replacing(file) as temporary:
        save_file(state_dict(own.encoder), str(temporary), metadata={"miyagi": canonical(about)})


def _write_torchscript(own: Trained, file: Path) -> None:
    x = torch.rand(2, 3, own.size, own.size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), warnings.catch_warnings(), replacing(file) as temporary:
        warnings.simplefilter("ignore")  # torch.jit is deprecated; what loads its files is in wide use
        torch.jit.trace(own.encoder, (x,)).save(str(temporary))
        more = torch.cat([x, 1 - x])  # another batch size than the traced one
        if not torch.allclose(torch.jit.load(str(temporary))(more), own.encoder(more), rtol=TOLERANCE, atol=TOLERANCE):
            raise UserError(f"{own.name}: the traced encoder gives other features; export it as a state_dict")


def _write_onnx(own: Trained, file: Path) -> None:
    if lacking := [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]:
        raise UserError(
            f"--format onnx: torch's exporter needs {' and '.join(lacking)}: pip install {' '.join(lacking)}"
        )
    x = torch.rand(2, 3, own.size, own.size)
    with replacing(file) as temporary:
        torch.onnx.export(
            own.encoder, (x,), str(temporary), dynamo=True, external_data=False, verbose=False,
            input_names=["image"], output_names=["features"], dynamic_shapes=({0: torch.export.Dim("n")},),
        )  # fmt: skip


WRITERS: dict[str, Callable[[Trained, Path], None]] = {
    "state_dict": _write_state_dict,
    "torchscript": _write_torchscript,
    "onnx": _write_onnx,
}
