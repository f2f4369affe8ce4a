"""The DAG of `dvc.yaml` run by Prefect: many stages at once on one machine, or on the workers of a cluster.

Nobody is phoned from here, whatever a library's default is. Prefect keeps its files in the project, so that neither a
user's profile nor an older database of theirs decides what happens; `PREFECT_API_URL` names a server, and without one a
run starts its own and ends it.
"""

import os
from pathlib import Path

ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    "PREFECT_CLI_PROMPT": "false",
    "PREFECT_HOME": str(Path.cwd() / ".miyagi" / "prefect"),
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "true",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # it takes 16 to 34 s on two busy cores
    # Leases outlive a restart of the server; in memory they would be forgotten and their slots never come back.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
}
for _name, _value in ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)
