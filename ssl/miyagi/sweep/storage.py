"""Where trials are kept: a journal file of this machine, or Postgres for many, and what is done about dead workers."""

import copy
import json
import warnings
from pathlib import Path

import optuna
from optuna import Study
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._storage import JournalOperation
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import OperationalError

from miyagi.errors import UserError
from miyagi.files import replacing

# We say ourselves how a trial went, and the parts of Optuna that may change are pinned by tests.
optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=ExperimentalWarning)

ATTEMPTS = 3
"""How often a trial whose worker died is tried again: one that kills its worker must not do so forever."""
REASON = "reason"
"""The attribute that says why a trial ended early; a failed trial without it was interrupted."""
WORKER = "worker"
"""The attribute that names the process which runs a trial."""
retry = RetryHeartbeatStaleTrialCallback(max_retry=ATTEMPTS)


def journal(file: Path) -> BaseStorage:
    """The journal file as Optuna's storage."""
    file.parent.mkdir(parents=True, exist_ok=True)
    return JournalStorage(JournalFileBackend(str(file)))


def postgres(url: str, heartbeat: int) -> BaseStorage:
    """A Postgres database as Optuna's storage, in which a trial without a sign of life is tried again.

    Args:
        url: postgresql://...
        heartbeat: seconds between two signs of life; a worker is dead after three without one.

    Raises:
        UserError: there is no answer.
    """
    try:
        return RDBStorage(
            url.replace("postgresql://", "postgresql+psycopg://", 1),
            engine_kwargs={"pool_pre_ping": True},
            heartbeat_interval=heartbeat,
            grace_period=3 * heartbeat,
            heartbeat_stale_trial_callback=retry,
        )
    except OperationalError as error:
        reason = str(error.orig).strip().splitlines()[0]
        raise UserError(f"the sweep's storage cannot be used: {reason}; see experiments.E.sweep.storage") from None


def origin(trial: FrozenTrial) -> int:
    """The number of the trial that this one is, or that it is another attempt of."""
    first = RetryHeartbeatStaleTrialCallback.retried_trial_number(trial)
    return trial.number if first is None else first


def ended(trial: FrozenTrial) -> bool:
    """Whether a trial has its result: a value, a reason why it has none, or no attempt left."""
    if trial.state == TrialState.FAIL:
        return REASON in trial.user_attrs or len(RetryHeartbeatStaleTrialCallback.retry_history(trial)) >= ATTEMPTS
    return trial.state.is_finished()


def latest(trials: list[FrozenTrial]) -> dict[int, FrozenTrial]:
    """Origin -> its last attempt. The k-th origin is trial k of the sweep, however often it had to be begun."""
    return {origin(trial): trial for trial in sorted(trials, key=lambda trial: trial.number)}


def revive(study: Study, trial: FrozenTrial) -> None:
    """Let a trial be tried again whose worker is known to be dead."""
    if trial.state == TrialState.RUNNING:
        study.tell(trial.number, state=TrialState.FAIL)
    trial = copy.deepcopy(trial)
    trial.user_attrs = {}  # whose it was, and how far it came
    retry(study, trial)


def rewind(file: Path) -> None:
    """Take a journal back to the end of its last whole trial, where one process alone wrote it and was killed.

    Half a line would make the file unreadable as soon as something follows it. A trial that has not ended is cut off,
    with all that it left behind, so that it is begun again under its own number as if nothing had happened. Where
    several processes ran trials, those that ended later stay, and the interrupted ones are tried again (`revive`).
    """
    if not file.is_file():
        return
    Path(f"{file}.lock").unlink(missing_ok=True)  # of a process that was killed while it wrote
    lines = file.read_bytes().splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):
        lines.pop()
        _write(file, lines)
    storage = journal(file)
    trials = [trial for study in storage.get_all_studies() for trial in storage.get_all_trials(study._study_id)]
    alone = [trial for trial in trials if not ended(trial)] == trials[-1:]
    if trials and alone and origin(trials[-1]) == trials[-1].number:
        begun = [i for i, line in enumerate(lines) if json.loads(line)["op_code"] == JournalOperation.CREATE_TRIAL]
        _write(file, lines[: begun[-1]])


def _write(file: Path, lines: list[bytes]) -> None:
    with replacing(file) as temporary:
        temporary.write_bytes(b"".join(lines))
