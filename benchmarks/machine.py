"""What a number depends on beside what is measured: the machine, the versions, the code."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from benchmarks.settings import ROOT
from miyagi.files import digest, file_digest

PACKAGES = (
    "torch", "torchvision", "lightly", "ffcv", "numba", "numpy", "pillow", "scikit-learn", "dvc", "mlflow",
)  # fmt: skip
RENDERING = ("__main__.py", "ratios.py", "tables.py", "report.py", "params.yaml")
"""Files of the benchmark whose change makes no measurement another one."""


def machine() -> dict[str, Any]:
    """Processor, cores that this process may use, memory in GiB, system, Python."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def _processor() -> str:
    """The name, with family and model, because a virtual machine's name may say no more than the maker's."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    facts = {name.strip(): value.strip() for name, value in pairs}
    return f"{facts.get('model name', '?')} (family {facts.get('cpu family', '?')}, model {facts.get('model', '?')})"


def versions() -> dict[str, str]:
    """The versions of what is compared and of what it stands on; "-" where it is not installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "-"
    return found


def code() -> str:
    """Digest of the library's files, of dvc.yaml and of the benchmark's own files that measure."""
    own = [file for file in (ROOT / "benchmarks").glob("*.py") if file.name not in RENDERING]
    files = [*(ROOT / "ssl" / "miyagi").rglob("*.py"), *own, ROOT / "dvc.yaml"]
    return digest({file.relative_to(ROOT).as_posix(): file_digest(file) for file in files})


def revision() -> str:
    """The checkout's git revision, with a plus sign where files differ from it; "-" outside git."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--abbrev=10", "--exclude=*", "--dirty=+"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "-"
    return done.stdout.strip()
