"""MLflow, behind a handful of calls that never raise into a training.

Every event is written to the run's journal first and sent second. While MLflow cannot be reached, the journal keeps
what was not sent, training goes on, and `miyagi track sync` sends it later.
"""

from miyagi.tracking.replay import Synced, sync
from miyagi.tracking.run import Run
from miyagi.tracking.store import ui_command

__all__ = ["Run", "Synced", "sync", "ui_command"]
