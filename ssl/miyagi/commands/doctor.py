"""`miyagi doctor`: what this machine has of what Miyagi needs; each line that is not ok says what to do."""

import importlib.util
import os
import platform
import re
import shutil
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from miyagi.errors import UserError
from miyagi.params import Params, read
from miyagi.paths import SPLITS, Paths
from miyagi.settings import Runtime, Tracking
from miyagi.tracking.store import locate

GIB = 2**30
DISK = (1.0, 10.0)
"""GiB free: below the first nothing works, below the second a demo still does."""
MEMORY = (1.5, 4.0)
"""GiB available, likewise. Conv-4 with 512 views of 32 pixels takes 1.7."""
UNTESTED = "untested without a GPU: nccl, several GPUs, fp16 on CUDA, determinism on CUDA"
PATIENCE = 3.0
"""Seconds that a server has for its answer."""
PATH = {
    "git": "install git",
    "dvc": "pip install -r requirements.txt, and put the environment's bin folder on the PATH",
}
CONVENIENT = {
    "g++": "needed by `runtime.compile` and to build FFCV: apt-get install g++",
    "chromium": "needed by the tests of the report alone: apt-get install chromium",
}


@dataclass(frozen=True)
class Check:
    """One line: `fail` is for what nothing works without, `warn` for what some things do."""

    status: Literal["ok", "warn", "fail"]
    what: str
    words: str

    def __str__(self) -> str:
        return f"{self.status:4}  {self.what}: {self.words}"


def run(paths: Paths) -> Iterator[Check]:
    """The checks, one by one as they are made."""
    params: Params | None = None
    try:
        params = read(paths.params)
        yield Check("ok", "params.yaml", f"{len(params.experiments)} experiments, {len(params.datasets)} data sets")
    except UserError as error:
        yield Check("fail", "params.yaml", str(error).removeprefix("params.yaml: "))
    runtime = params.runtime if params else Runtime()
    yield from _packages(paths.root / "requirements.txt")
    yield _native()
    yield from (_command(name, advice, "fail") for name, advice in PATH.items())
    yield from (_command(name, advice, "warn") for name, advice in CONVENIENT.items())
    yield _room("disk", shutil.disk_usage(paths.root).free, DISK, "`dvc gc --workspace` frees what no run needs")
    yield _memory()
    yield _cores(runtime.threads)
    yield _gpu(runtime.device)
    yield from _data(params, paths) if params else ()
    yield _tracking(paths, params.tracking if params else Tracking())
    if address := os.environ.get("PREFECT_API_URL"):
        yield _server("prefect", address, address, "start it, or unset PREFECT_API_URL; see docs/cluster.md")
    yield from _storages(params) if params else ()


def _packages(pins: Path) -> Iterator[Check]:
    """The interpreter and the installed packages against what miyagi asks for, and against the tested versions."""
    yield Check("ok", "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    if sys.platform != "linux":
        yield Check("warn", "system", f"{platform.system()} is untested: use Linux, or a container of it")
    advice = "pip install -r requirements.txt"
    try:
        wanted = [Requirement(line) for line in requires("miyagi") or ()]
    except PackageNotFoundError:
        yield Check("fail", "packages", "miyagi itself is not installed: pip install --no-deps -e .")
        return
    wanted = [each for each in wanted if each.marker is None or each.marker.evaluate()]
    wrong = 0
    for each in wanted:
        found = _version(each.name)
        if found is None or not each.specifier.contains(found, prereleases=True):
            wrong += 1
            yield Check("fail", each.name, f"{found or 'not installed'}, but {each} is needed: {advice}")
    if not wrong:
        yield Check("ok", "packages", f"all {len(wanted)} that miyagi asks for, torch {_version('torch')}")
    text = pins.read_text(encoding="utf-8") if pins.is_file() else ""
    tested = dict(re.findall(r"^([\w.-]+)(?:\[[^]]*\])?==([^\s;]+)", text, re.MULTILINE))
    others = [name for name, pin in tested.items() if _version(name) not in (None, pin)]
    if others:
        named = ", ".join(f"{name} {_version(name)} (tested: {tested[name]})" for name in others[:3])
        yield Check("warn", "versions", f"{len(others)} other than those tested, e.g. {named}: {advice}")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _native() -> Check:
    """FFCV's compiled part, which needs OpenCV and libturbojpeg; loaded as data/decode.py loads it."""
    import ctypes

    spec = importlib.util.find_spec("ffcv")
    (folder,) = spec.submodule_search_locations or [""] if spec else [""]
    library = next(Path(folder).glob("_libffcv*.so"), None) if folder else None
    advice = "apt-get install libopencv-dev libturbojpeg0-dev, then pip install --force-reinstall --no-deps ffcv"
    if library is None:
        return Check("fail", "system libraries", f"FFCV is not built: {advice}")
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        return Check("fail", "system libraries", f"FFCV cannot be loaded ({error}): {advice}")
    return Check("ok", "system libraries", "OpenCV and libturbojpeg, by way of FFCV")


def _command(name: str, advice: str, otherwise: Literal["warn", "fail"]) -> Check:
    path = shutil.which(name)
    return Check("ok", name, path) if path else Check(otherwise, name, f"not on the PATH; {advice}")


def _room(what: str, free: int, limits: tuple[float, float], advice: str) -> Check:
    least, enough = limits
    status: Literal["ok", "warn", "fail"] = "fail" if free < least * GIB else "warn" if free < enough * GIB else "ok"
    words = f"{free / GIB:.1f} GiB free"
    return Check(status, what, words if status == "ok" else f"{words}, {enough:g} are comfortable: {advice}")


def _memory() -> Check:
    import psutil

    return _room("memory", psutil.virtual_memory().available, MEMORY, "lower pretrain.batch_size, or close something")


def _cores(threads: int) -> Check:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    words = f"{cores} cores, runtime.threads {threads}"
    if threads > cores:
        return Check("warn", "processor", f"{words}: slow; fewer threads are another experiment, in the last bits")
    return Check("ok", "processor", words)


def _gpu(device: str) -> Check:
    try:
        import torch
    except (ImportError, OSError) as error:
        return Check("fail", "gpu", f"torch cannot be imported ({error}): pip install -r requirements.txt")
    if torch.cuda.is_available():
        return Check("ok", "gpu", f"{torch.cuda.get_device_name()}; this project's own tests had none: {UNTESTED}")
    if device == "cuda":
        return Check("fail", "gpu", "none, but runtime.device is cuda: set it to auto")
    return Check("ok", "gpu", f"none, the CPU does the work; {UNTESTED}")


def _data(params: Params, paths: Paths) -> Iterator[Check]:
    """Each data set: prepared, there to be prepared, or to be downloaded."""
    from miyagi.data.sources.fashion_mnist import DEBIAN

    for name, settings in params.datasets.items():
        what, raw = f"data set {name}", paths.raw / settings.source
        path = paths.root / settings.path
        if all(paths.beton(name, split).is_file() for split in SPLITS) and paths.manifest(name).is_file():
            yield Check("ok", what, "prepared")
        elif not path.exists():
            yield Check("fail", what, f"there is no {settings.path}: mend datasets.{name}.path")
        elif path.suffix != ".py" or settings.source == "digits":
            yield Check("ok", what, f"{settings.source}, will be prepared from {settings.path}")
        elif raw.is_dir() or (settings.source == "fashion_mnist" and DEBIAN.is_dir()):
            yield Check("ok", what, f"{settings.source}, will be prepared from {raw if raw.is_dir() else DEBIAN}")
        else:
            yield Check("warn", what, f"not here yet: `dvc repro` downloads it, or put its files into {raw}")


def _tracking(paths: Paths, settings: Tracking) -> Check:
    """Whether MLflow can be written; training goes on without, so nothing fails here."""
    store = locate(paths, settings)
    if store.uri.startswith("http"):
        later = "training goes on without it, `miyagi track sync` sends later"
        return _server("tracking", store.uri, store.shown, f"start it; {later}")
    if store.uri.startswith("sqlite"):
        place = Path(re.sub(r"^[^:]*:///|\?.*$", "", store.uri))
        nearest = next(folder for folder in place.parents if folder.exists())
        if not os.access(nearest, os.W_OK):
            return Check("warn", "tracking", f"{nearest} cannot be written: mend its permissions, or set tracking.uri")
        return Check(
            "ok",
            "tracking",
            f"MLflow in {place}{'' if place.is_file() else ', made at the first run'}; to open it: `miyagi track ui`",
        )
    return Check("ok", "tracking", f"MLflow at {store.shown}, not asked: `miyagi track sync` does")


def _server(what: str, address: str, shown: str, advice: str) -> Check:
    """Whether a server says that it is well, as MLflow and Prefect do under /health."""
    try:
        with urllib.request.urlopen(f"{address.rstrip('/')}/health", timeout=PATIENCE):
            return Check("ok", what, f"answers at {shown}")
    except (OSError, ValueError) as error:
        return Check("warn", what, f"{shown} does not answer ({getattr(error, 'reason', error)}): {advice}")


def _storages(params: Params) -> Iterator[Check]:
    """The databases that sweeps of several machines share."""
    import psycopg

    sweeps = {name: params.sweep(name) for name in params.experiments}
    for name, sweep in sweeps.items():
        if sweep and sweep.storage:
            try:
                psycopg.connect(sweep.storage, connect_timeout=round(PATIENCE)).close()
                yield Check("ok", f"sweep of {name}", "its database answers")
            except psycopg.Error as error:
                reason = str(error).strip().splitlines()[-1]
                advice = f"start it, or mend experiments.{name}.sweep.storage"
                yield Check("warn", f"sweep of {name}", f"its database does not answer ({reason}): {advice}")
