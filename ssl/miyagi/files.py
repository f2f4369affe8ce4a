"""Files that are written whole or not at all, and the digests that name their content."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from miyagi.errors import UserError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path`; rename it to `path` when the block ends well, delete it when not.

    A reader therefore never sees half a file, and a full disk leaves nothing behind that looks whole.

    Raises:
        UserError: the folder cannot be written, or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f".{path.name}.*.tmp"):  # by a process that was killed
            left.unlink()
        try:
            yield temporary
            with temporary.open("rb+") as handle:
                os.fsync(handle.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot write {path}: {reason}; free some space or check the folder's permissions") from error


@contextmanager
def all_or_none(files: list[Path]) -> Iterator[None]:
    """Remove `files` before the block, and again if it fails: a mixture of two runs would look like one."""

    def remove() -> None:
        for file in reversed(files):  # the manifest first
            file.unlink(missing_ok=True)
            # What a killed run left half written: later stages depend on the folder, whatever is in it.
            for stale in file.parent.glob(f".{file.name}.*.tmp"):
                stale.unlink(missing_ok=True)

    try:
        remove()
        yield
    except BaseException as error:
        with suppress(OSError):  # what cannot be removed could not be written either; the first error says why
            remove()
        if isinstance(error, OSError):
            raise UserError(
                f"cannot write {files[-1].parent}: {error.strerror or error}; check its permissions"
            ) from error
        raise


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` in one step (UTF-8)."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: the text that a digest is taken of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def json_text(value: Any) -> str:
    """Readable JSON with sorted keys; equal values give equal text. NaN and infinity raise ValueError."""
    return json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Write `json_text(value)` to `path` in one step."""
    write_text(path, json_text(value))


def digest(value: Any) -> str:
    """The first 16 hex digits of the sha256 of a value's canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:16]


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """The hex digest of a file's bytes; `algorithm` is any that hashlib knows."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, algorithm).hexdigest()
