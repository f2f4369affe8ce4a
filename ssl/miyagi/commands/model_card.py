"""A model card (Mitchell et al., FAT* 2019): what an exported encoder is, how to use it, what its numbers mean."""

import json
from pathlib import Path
from typing import Any

import yaml

from miyagi.commands.encoders import Trained
from miyagi.data.manifest import data_digest, read_manifest
from miyagi.files import file_digest
from miyagi.nn.encoders.resnet import ResNet
from miyagi.params import Params
from miyagi.paths import SPLITS, Paths
from miyagi.registry import METHODS

COLUMNS = ("protocol", "settings", "data set", "layer", "condition", "metric", "value", "interval", "n", "selection")


def text(own: Trained, file: Path, form: str, params: Params, paths: Paths) -> str:
    """The card, as Markdown; equal encoders and results give equal text."""
    experiment, entry = own.experiment, METHODS.entries[own.experiment.method]
    paper = f" ({entry.paper})" if entry.paper else ""
    manifest = read_manifest(paths.manifest(experiment.dataset))
    counts = ", ".join(f"{manifest['counts'][split]['total']} {split}" for split in SPLITS)
    parts = [
        f"# {own.name}, seed {own.seed}",
        f"An image encoder, `{experiment.encoder['name']}`, by the method `{experiment.method}`{paper}: {entry.line}.",
        "## Use",
        _use(own, file.name, form),
        "## Data",
        f"Pretrained on `{experiment.dataset}` (source `{manifest['source']}`; {counts} images of "
        f"{own.size} x {own.size} pixels). Digest of the data: `{data_digest(manifest)}`, of its source: "
        f"`{manifest['source_digest'][:16]}`.",
        "## Results",
        _results(own, params, paths),
        "## Training",
        "The total description of the training; no value was left to a default.",
        f"```yaml\n{yaml.safe_dump(experiment.model_dump(mode='json'), sort_keys=True)}```",
        "## Digests",
        f"sha256 of `{file.name}`: `{file_digest(file)}`\n\nsha256 of the weights it was made of: `{own.digest}`\n\n"
        f"Code of the method, its encoder and its loss: `{experiment.code}`",
    ]
    return "\n\n".join(parts) + "\n"


def _use(own: Trained, name: str, form: str) -> str:
    """How the file is loaded; every snippet takes `images` to `z`."""
    mean, std = (own.encoder.get_buffer(key).flatten().tolist() for key in ("mean", "std"))
    images = f"Images are N x 3 x {own.size} x {own.size}, RGB in [0, 1]"
    inside = f"{images}; the normalisation is inside."
    if form == "torchscript":
        return _snippet(inside, "import torch", f'network = torch.jit.load("{name}")', "z = network(images)")
    if form == "onnx":
        session = f'session = onnxruntime.InferenceSession("{name}")'
        return _snippet(inside, "import onnxruntime", session, '(z,) = session.run(None, {"image": images})')
    load = f'network.load_state_dict(safetensors.torch.load_file("{name}"), strict=False)'
    if not isinstance(own.encoder, ResNet):
        return _snippet(
            inside,
            "import safetensors.torch",
            "from miyagi.nn.encoders.base import build",
            f"network = build({own.experiment.encoder!r}, {mean}, {std}).eval()",
            load.replace(", strict=False", ""),
            "z = network(images)",
        )
    kind = own.experiment.encoder["name"]
    stem = ["network.conv1, network.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()"]
    return _snippet(
        f"The keys are those of torchvision's and timm's `{kind}`; only `fc` is missing. {images}, normalised with the "
        "values below.",
        "import safetensors.torch",
        "from torch import nn",
        "from torchvision.models import " + kind,
        "from torchvision.transforms.functional import normalize",
        f"network = {kind}()",
        *(stem if own.experiment.encoder["stem"] == "small" else []),
        load,
        "network.fc = nn.Identity()",
        f"z = network.eval()(normalize(images, {mean}, {std}))",
    )


def _snippet(words: str, *lines: str) -> str:
    return f"{words}\n\n```python\n{chr(10).join(lines)}\n```"


def _results(own: Trained, params: Params, paths: Paths) -> str:
    """The test rows of every protocol that has run; a number means nothing without the rest of its row."""
    rows: list[dict[str, Any]] = []
    for protocol in sorted({*params.probe.protocols, *params.finetune.protocols}):
        file = paths.rows(own.name, own.seed, protocol)
        if file.is_file():
            rows += [row for row in json.loads(file.read_text(encoding="utf-8"))["rows"] if row["split"] == "test"]
    if not rows:
        return "None: no protocol has run on this encoder yet."
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for row in rows:
        condition = ", ".join(f"{key} {value}" for key, value in sorted(row["condition"].items()))
        if row["draw"] is not None:
            condition = ", ".join(filter(None, [condition, f"draw {row['draw']}"]))
        lines.append(
            f"| {row['protocol']} | `{row['settings']}` | {row['dataset']} | {row['layer']} | {condition} "
            f"| {row['metric']} | {row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}] | {row['interval']} "
            f"| {row['n']} | {row['selection'] or ''} |"
        )
    codes = ", ".join(f"{name} `{code}`" for name, code in sorted({(row["protocol"], row["code"]) for row in rows}))
    return (
        "On the test split, which no choice saw. Rows that differ in protocol, settings, data set or metric cannot be "
        f"compared.\n\n{chr(10).join(lines)}\n\nCode of the protocols: {codes}."
    )
