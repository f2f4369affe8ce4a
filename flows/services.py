"""A cluster on one machine, to rehearse on: Postgres, MLflow, Prefect, and a worker of each pool.

`python -m flows.services up | down`. Everything listens on 127.0.0.1 at ports that are free; logs are in
`.miyagi/cluster/logs`. `down` ends every process and deletes the databases and the workers' clones; logs stay.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from flows import stage
from flows.postgres import Postgres, free_port
from miyagi.errors import UserError

PYTHON = (sys.executable, "-m")
POOLS = ("cpu", "gpu")
LIMIT = {"cpu": "8", "gpu": "1"}
"""Flow runs at once of a rehearsal's worker: a pipeline that waits and stages beside it; one training."""
QUICK = {
    "PREFECT_WORKER_QUERY_SECONDS": "2",
    "PREFECT_RUNNER_POLL_FREQUENCY": "3",
    "PREFECT_SERVER_SERVICES_REPOSSESSOR_LOOP_SECONDS": "5",
    "MIYAGI_LEASE": "60",
}
"""A rehearsal looks more often than a cluster has to."""


@dataclass(frozen=True)
class Process:
    """A process that `down` has to end; its start says that the number is still its own."""

    name: str
    pid: int
    created: float

    def find(self) -> psutil.Process | None:
        try:
            found = psutil.Process(self.pid)
            return found if found.create_time() == self.created else None
        except psutil.NoSuchProcess:
            return None


@dataclass
class Rehearsal:
    """What runs, and where; `state.json` in its folder remembers it for `down`."""

    folder: Path
    root: Path
    processes: list[Process] = field(default_factory=list)
    data: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    storage: str = ""
    _starts: dict[str, Callable[[], None]] = field(default_factory=dict)

    def up(self) -> dict[str, str]:
        """Start everything; the variables that a shell needs to use it.

        Raises:
            UserError: it runs already, or something does not come up; then nothing is left of it.
        """
        if (self.folder / "state.json").is_file():
            raise UserError(f"it is up, or was not taken down: `make cluster-down` ({self.folder / 'state.json'})")
        try:
            self._servers()
            for pool in POOLS:
                post(f"{self.environment['PREFECT_API_URL']}/work_pools/", {"name": pool, "type": "process"})
            healthy = [self.worker(pool, f"node{number}") for number, pool in enumerate(POOLS, 1)]
            self._deploy()
            for wait in healthy:
                wait()
        except BaseException:
            self.down()
            raise
        return self.environment

    def down(self) -> None:
        """End what runs, the last started first, and delete all but the logs."""
        for process in reversed(self.processes):
            found = process.find()
            if found is not None:
                end(found)
        self.processes.clear()
        kept = ("logs", "state.json")
        left = [path for path in self.folder.glob("*") if path.name not in kept]
        for path in [*left, *([Path(self.data)] if self.data else [])]:
            shutil.rmtree(path, ignore_errors=True)
        (self.folder / "state.json").unlink(missing_ok=True)

    def stop(self, name: str) -> None:
        """End one process of it, to see what the others do without; `again` starts it where it was."""
        process = next(process for process in self.processes if process.name == name)
        found = process.find()
        if found is not None:
            end(found)
        self.processes.remove(process)

    def again(self, name: str) -> None:
        """Start what `stop` ended."""
        self._starts[name]()

    def worker(self, pool: str, name: str) -> Callable[[], None]:
        """Start a worker of `pool` with a cache, clones and a Prefect home of its own; a function that waits for it."""
        place, port = self.folder / name, free_port()
        place.mkdir(parents=True, exist_ok=True)
        environment = {
            "MIYAGI_NODE": name, "MIYAGI_WORKSPACE": str(place), "PREFECT_HOME": str(place / "prefect"), **QUICK,
            "PREFECT_WORKER_WEBSERVER_HOST": "127.0.0.1", "PREFECT_WORKER_WEBSERVER_PORT": str(port),
        }  # fmt: skip
        script = str(self.root / "cluster" / "worker.sh")
        self._start(f"worker-{name}", ("sh", script, pool, "--limit", LIMIT[pool], "--with-healthcheck"), environment)
        return lambda: self._wait(f"worker-{name}", lambda: answers(f"http://127.0.0.1:{port}/health"))

    def _servers(self) -> None:
        logs = self.folder / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        postgres = Postgres(logs / "postgres.log")
        self.data = str(postgres.data)
        try:
            self._database(postgres)
        except BaseException:
            postgres.delete()
            raise
        prefect, mlflow = (f"http://127.0.0.1:{port}" for port in (free_port(), free_port()))
        self.environment = {
            "PREFECT_API_URL": f"{prefect}/api",
            "MLFLOW_TRACKING_URI": mlflow,
            "PGPASSWORD": postgres.password,
        }
        self.storage = f"postgresql://miyagi@127.0.0.1:{postgres.port}/optuna"
        database = {"PREFECT_API_DATABASE_CONNECTION_URL": postgres.url("prefect", "postgresql+asyncpg")}
        where = ("--host", "127.0.0.1", "--port")
        self._start(
            "prefect", (*PYTHON, "prefect", "server", "start", *where, prefect.rpartition(":")[2]), database | QUICK
        )
        self._start(
            "mlflow",
            (*PYTHON, "mlflow", "server", *where, mlflow.rpartition(":")[2], "--workers", "1", "--backend-store-uri",
             postgres.url("mlflow"), "--artifacts-destination", str(self.folder / "artifacts")),
        )  # fmt: skip
        self._wait("prefect", lambda: answers(f"{prefect}/api/health"))
        self._wait("mlflow", lambda: answers(f"{mlflow}/health"))

    def _database(self, postgres: Postgres) -> None:
        self._starts["postgres"] = lambda: self._database(postgres)
        postgres.start()
        assert postgres.process is not None
        self._remember("postgres", postgres.process.pid)

    def _deploy(self) -> None:
        """The deployments of prefect.yaml."""
        log = self.folder / "logs" / "deploy.log"
        with log.open("ab") as said:
            done = subprocess.run(
                [*PYTHON, "prefect", "--no-prompt", "deploy", "--all"],
                cwd=self.root, env=self._environment(), check=False, stdout=said, stderr=subprocess.STDOUT,
            )  # fmt: skip
        if done.returncode:
            raise UserError(f"prefect.yaml: its deployments were refused; see {log}")

    def _environment(self) -> dict[str, str]:
        home = {"PREFECT_HOME": str(self.folder / "prefect")}
        variables = {**stage.environment(self.root), **home, **self.environment}
        variables["PYTHONPATH"] = f"{self.root}{os.pathsep}{variables['PYTHONPATH']}"
        return variables

    def _start(self, name: str, command: Sequence[str], environment: dict[str, str] | None = None) -> None:
        self._starts[name] = lambda: self._start(name, command, environment)
        with (self.folder / "logs" / f"{name}.log").open("ab") as said:
            started = subprocess.Popen(
                command, cwd=self.folder, env=self._environment() | (environment or {}),
                stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self._remember(name, started.pid)

    def _remember(self, name: str, pid: int) -> None:
        found = psutil.Process(pid)
        self.processes.append(Process(name, pid, found.create_time()))
        state = {"processes": [asdict(process) for process in self.processes], "data": self.data}
        (self.folder / "state.json").write_text(json.dumps(state), encoding="utf-8")

    def _wait(self, name: str, healthy: Callable[[], bool], seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        process = next(process for process in self.processes if process.name == name)
        while not healthy():
            found = process.find()
            if found is None or found.status() == psutil.STATUS_ZOMBIE or time.monotonic() > deadline:
                raise UserError(f"{name} does not start; see {self.folder / 'logs' / f'{name}.log'}")
            time.sleep(0.3)


def rehearsal(root: Path) -> Rehearsal:
    """The one of a checkout, as `up` left it."""
    found = Rehearsal(root / ".miyagi" / "cluster", root)
    if (found.folder / "state.json").is_file():
        state = json.loads((found.folder / "state.json").read_text(encoding="utf-8"))
        found.processes = [Process(**process) for process in state["processes"]]
        found.data = state["data"]
    return found


def answers(url: str) -> bool:
    """Whether a server says that it is well."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def post(url: str, value: dict[str, str]) -> None:
    """Send JSON to a server of ours; raises where it answers otherwise than well."""
    request = urllib.request.Request(url, json.dumps(value).encode(), {"Content-Type": "application/json"})
    urllib.request.urlopen(request, timeout=30).close()


def end(process: psutil.Process, seconds: float = 15) -> None:
    """End a process and everything under it: asked first, killed after `seconds`."""
    try:
        under = [process, *process.children(recursive=True)]
        process.send_signal(signal.SIGINT)
    except psutil.NoSuchProcess:
        return
    _, left = psutil.wait_procs(under[:1], seconds)
    for one in {*left, *(one for one in under if one.is_running())}:
        try:
            one.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(under, seconds)


def main(arguments: Sequence[str]) -> int:
    """`up` or `down`, in the current folder."""
    found = rehearsal(Path.cwd())
    try:
        if list(arguments) == ["down"]:
            found.down()
            print(f"down; logs: {found.folder / 'logs'}")
        elif list(arguments) == ["up"]:
            for name, value in found.up().items():
                print(f"export {name}='{value}'")
            print(f"# a sweep on many workers has storage: {found.storage}")
            print(f"# Prefect and MLflow open in a browser at these addresses; logs: {found.folder / 'logs'}")
            print("# next: python -m flows.pipeline --cluster; at the end: make cluster-down")
        else:
            raise UserError("say up or down")
    except UserError as error:
        print(f"flows: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
