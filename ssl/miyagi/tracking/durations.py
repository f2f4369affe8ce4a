"""How long each stage took when it last ran on this machine: beside MLflow, for whoever asks without a store.

No stage declares these files: a time in an out would make equal runs differ.
"""

from contextlib import suppress
from pathlib import Path

from miyagi.files import write_text
from miyagi.paths import Paths


def keep(paths: Paths, stage: str, target: str, seconds: float) -> None:
    """Note the seconds of a stage that ended well."""
    write_text(_folder(paths) / f"{stage}@{target}", f"{seconds:.2f}\n")


def read(paths: Paths) -> dict[str, float]:
    """The name of a stage, as `dvc.lock` has it -> seconds; what cannot be read is left out."""
    found = {}
    for file in sorted(_folder(paths).glob("*@*")):
        with suppress(OSError, ValueError):
            stage, _, target = file.name.partition("@")
            found[stage if stage == target else file.name] = float(file.read_text(encoding="utf-8"))
    return found


def _folder(paths: Paths) -> Path:
    return paths.scratch / "durations"
