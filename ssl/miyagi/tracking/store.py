"""Where MLflow is, how a client is made, and how a person opens it."""

import gc
import logging
import os
import posixpath
import re
import shlex
import shutil
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from miyagi.paths import Paths
from miyagi.settings import Tracking

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


@dataclass(frozen=True)
class Store:
    """An MLflow store: an absolute tracking URI, and where artifacts go (None: the server decides)."""

    uri: str
    artifacts: str | None

    @property
    def shown(self) -> str:
        """The URI without a password, for messages."""
        return re.sub(r"//[^/@]*@", "//***@", self.uri)


def locate(paths: Paths, settings: Tracking) -> Store:
    """The store that `settings.uri`, else MLFLOW_TRACKING_URI, names; else a sqlite file in the scratch folder.

    Relative sqlite files and folders count from the project's root. A folder means the sqlite file `mlflow.db` in it:
    MLflow 3 refuses stores of plain files.
    """
    root, scratch = paths.root.absolute(), paths.scratch.absolute()
    uri = settings.uri or os.environ.get("MLFLOW_TRACKING_URI") or str(scratch)
    sqlite = re.fullmatch(r"(sqlite[+\w]*):///([^?]*)(\?.*)?", uri)
    if sqlite:
        scheme, name, query = sqlite[1], sqlite[2], sqlite[3] or ""
    elif re.match(r"databricks|(?!file:)\w[\w+.-]*://", uri):
        return Store(uri, None if re.match(r"http|databricks", uri) else (scratch / "artifacts").as_uri())
    else:
        scheme, query = "sqlite", ""
        name = posixpath.join(unquote(re.sub(r"^file:(//)?", "", uri)) if uri.startswith("file:") else uri, "mlflow.db")
    database = root / name
    return Store(f"{scheme}:///{database}{query}", (database.parent / "artifacts").as_uri())


@cache
def load(uri: str) -> None:
    """Import what the store at `uri` needs, and set MLflow up: quiet, without telemetry, not patient."""
    os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="1")
    quiet = {"MLFLOW_LOGGING_LEVEL": "WARNING", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}
    # MLflow's own defaults keep a training waiting for minutes when the server does not answer.
    patience = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
    for key, value in (quiet | patience).items():
        os.environ.setdefault(key, value)
    # Importing MLflow makes 400,000 objects that never die. Not looking for garbage among them, neither now nor at
    # exit, takes the import and the exit of a short process from 1.9 to 1.1 s.
    collecting = gc.isenabled()
    gc.disable()
    try:
        import mlflow.tracking

        if not uri.startswith("http"):
            import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
    finally:
        gc.freeze()
        if collecting:
            gc.enable()
    logging.getLogger("mlflow").setLevel(logging.WARNING)


@cache
def connect(uri: str) -> "MlflowClient":
    """A client of the store at `uri`; creates the tables of a new sqlite file, so the caller holds a lock."""
    load(uri)
    from mlflow.tracking import MlflowClient

    if uri.startswith("sqlite"):
        Path(re.sub(r"^[^:]*:///|\?.*$", "", uri)).parent.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=uri)


def ui_command(paths: Paths, settings: Tracking) -> str:
    """What to type to look at the runs: `mlflow ui ...` for a local store, or a server's URL."""
    store = locate(paths, settings)
    if store.uri.startswith("http"):
        return store.shown
    # The command beside this Python, where the shell would not find it or would find another.
    command, beside = "mlflow", Path(sys.executable).with_name("mlflow")
    if beside.exists() and shutil.which("mlflow") != str(beside):
        root = paths.root.absolute()
        command = str(beside.relative_to(root) if beside.is_relative_to(root) else beside)
    where = shlex.quote(store.uri)
    if store.shown != store.uri and not settings.uri:
        where = '"$MLFLOW_TRACKING_URI"'  # it holds a password
    return f"{shlex.quote(command)} ui --backend-store-uri {where} --host 127.0.0.1"
