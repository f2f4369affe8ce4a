"""What `prepare` says of a data set, as later stages read it."""

import json
from pathlib import Path
from typing import Any

from miyagi.data.batch import DataInfo
from miyagi.errors import UserError
from miyagi.files import digest


def read_manifest(file: Path) -> dict[str, Any]:
    """A data set's manifest.

    Raises:
        UserError: it is missing or not JSON.
    """
    try:
        manifest: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {file}: {error}; run `dvc repro`") from error
    return manifest


def data_info(manifest: dict[str, Any]) -> DataInfo:
    """The facts that a method may know."""
    return DataInfo(
        n=manifest["counts"]["train"]["total"],
        classes=len(manifest["classes"]),
        size=manifest["size"],
        mean=tuple(manifest["mean"]),
        std=tuple(manifest["std"]),
        color=manifest["color"],
    )


def data_digest(manifest: dict[str, Any]) -> str:
    """One digest of all betons, and of what is known of their images beside them: the data identity of a row."""
    beside = [manifest[key] for key in ("several_labels", "annotations") if manifest.get(key)]
    return digest([manifest["betons"], *beside] if beside else manifest["betons"])
