"""A real Postgres server of a test's own, on 127.0.0.1 and a free port."""

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

PASSWORD = "wax-on"


class Postgres:
    """A cluster in `folder`, made here and started by `start`; its content survives `restart` and `stop`.

    initdb and the server refuse to run as root, so root runs them as the user `postgres` that the package made, in a
    folder of that user's own, which is deleted with this object.
    """

    def __init__(self, folder):
        self.user = {}
        if os.geteuid() == 0:
            self.user = {"user": "postgres", "group": "postgres", "extra_groups": []}
            self.kept = tempfile.TemporaryDirectory(prefix="miyagi-postgres-")  # pytest's are closed to other users
            folder = self.kept.name
            shutil.chown(folder, "postgres", "postgres")
        self.data = Path(folder) / "postgres"
        self.data.mkdir()
        if self.user:
            shutil.chown(self.data, "postgres", "postgres")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        with tempfile.NamedTemporaryFile("w") as password:
            password.write(PASSWORD)
            password.flush()
            os.chmod(password.name, 0o644)
            self._run("initdb", "-D", self.data, "-U", "postgres", "--auth=scram-sha-256",
                      f"--pwfile={password.name}", "--no-sync")  # fmt: skip

    @property
    def url(self):
        return f"postgresql://postgres:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def start(self):
        """Start, and wait until it answers."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        self._run("pg_ctl", "start", "-w", "-D", self.data, "-l", self.data / "log", "-o", options)
        return self

    def stop(self):
        """Stop at once, open connections or not."""
        self._run("pg_ctl", "stop", "-w", "-D", self.data, "-m", "fast")

    def restart(self):
        self.stop()
        self.start()

    def _run(self, name, *arguments):
        installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
        binary = str(installed[-1]) if installed else shutil.which(name)
        assert binary, f"there is no {name}: apt-get install postgresql"
        # The server inherits what it is given: a pipe would keep `run` waiting for its end.
        output = subprocess.DEVNULL if name == "pg_ctl" else subprocess.PIPE
        done = subprocess.run(
            [binary, *arguments], stdout=output, stderr=output, text=True, cwd="/", check=False, **self.user
        )
        assert done.returncode == 0, f"{name} failed: {done.stderr or self._log()}"

    def _log(self):
        log = self.data / "log"
        return log.read_text() if log.is_file() else ""
