"""optuna-dashboard on a sweep, on this machine alone."""

from miyagi.errors import UserError
from miyagi.params import Params
from miyagi.paths import Paths


def find(params: Params, paths: Paths, name: str | None) -> str:
    """Where the study of an experiment's sweep is, or of the latest one: a journal file or a Postgres address.

    Raises:
        UserError: there is none.
    """
    if name is not None and (sweep := params.sweep(name)) and sweep.storage:
        return sweep.storage.replace("postgresql://", "postgresql+psycopg://", 1)
    journals = sorted(paths.studies.glob(f"{name or '*'}-*.log"), key=lambda file: file.stat().st_mtime)
    if not journals:
        of = f"sweep@{name}" if name else "an experiment with a sweep"
        raise UserError(f"there is no study in {paths.studies.relative_to(paths.root)}; run: dvc repro {of}")
    return str(journals[-1])


def serve(params: Params, paths: Paths, name: str | None, port: int) -> None:
    """Serve the dashboard on 127.0.0.1 until it is interrupted.

    Raises:
        UserError: there is no study, or optuna-dashboard is not installed.
    """
    storage = find(params, paths, name)
    try:
        from optuna_dashboard import run_server
    except ImportError:
        raise UserError("optuna-dashboard is not installed; run: pip install optuna-dashboard") from None
    from miyagi.sweep.storage import journal

    print(f"http://127.0.0.1:{port} (Ctrl-C ends it)", flush=True)
    run_server(storage if "://" in storage else journal(paths.root / storage), host="127.0.0.1", port=port)
