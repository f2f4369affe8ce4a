"""A Postgres of one's own in a folder: for a rehearsal of the cluster on one machine, and for tests."""

import glob
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from miyagi.errors import UserError

DATABASES = ("prefect", "mlflow", "optuna")
OWNER: dict[str, Any] = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
"""Postgres refuses to run as root; Debian's package makes a user for it."""


class Postgres:
    """A server on 127.0.0.1 with a password and a database for each of DATABASES, as its files lie in one folder."""

    def __init__(self, log: Path, port: int | None = None) -> None:
        """Make the files; where root asks, under /tmp, because the server's user may not see root's folders."""
        self.port = port or free_port()
        self.log = log
        self.data = Path(tempfile.mkdtemp(prefix="miyagi-postgres-"))
        self._password = secrets.token_hex(16)
        self.process: subprocess.Popen[bytes] | None = None
        if OWNER:
            shutil.chown(self.data, **OWNER)
        with tempfile.NamedTemporaryFile("w", dir=self.data.parent) as given:
            given.write(self._password)
            given.flush()
            if OWNER:
                shutil.chown(given.name, **OWNER)
            subprocess.run(
                [program("initdb"), "--pgdata", self.data / "files", "--username", "miyagi", "--pwfile", given.name,
                 "--auth", "scram-sha-256", "--encoding", "UTF8", "--no-sync"],
                cwd=self.data, check=True, stdout=subprocess.DEVNULL, **OWNER,
            )  # fmt: skip

    def url(self, database: str = "postgres", dialect: str = "postgresql+psycopg") -> str:
        """SQLAlchemy's address of a database."""
        return f"{dialect}://miyagi:{self._password}@127.0.0.1:{self.port}/{database}"

    @property
    def password(self) -> str:
        """For $PGPASSWORD, where an address has none."""
        return self._password

    def start(self, seconds: float = 60) -> None:
        """Start the server and wait for it.

        Raises:
            UserError: it does not come up; the log says why.
        """
        command = [program("postgres"), "-D", str(self.data / "files"), "-p", str(self.port)]
        options = ("listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=200", "fsync=off")
        for option in options:
            command += ["-c", option]
        with self.log.open("ab") as said:
            started: subprocess.Popen[bytes] = subprocess.Popen(
                command, cwd=self.data, stdout=said, stderr=subprocess.STDOUT, start_new_session=True, **OWNER
            )
        self.process = started
        deadline = time.monotonic() + seconds
        while not self._ready():
            if started.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise UserError(f"Postgres does not start; see {self.log}")
            time.sleep(0.1)

    def stop(self) -> None:
        """End the server, as one that may be started again."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)  # "fast": no new work, no waiting for clients
            self.process.wait()
            self.process = None

    def delete(self) -> None:
        """End the server and delete its files."""
        self.stop()
        shutil.rmtree(self.data, ignore_errors=True)

    def _ready(self) -> bool:
        import psycopg
        from psycopg import sql

        try:
            with psycopg.connect(self.url(dialect="postgresql"), autocommit=True, connect_timeout=2) as connection:
                there = {row[0] for row in connection.execute("select datname from pg_database")}
                for database in DATABASES:
                    if database not in there:
                        connection.execute(sql.SQL("create database {}").format(sql.Identifier(database)))
        except psycopg.OperationalError:
            return False
        return True


def program(name: str) -> str:
    """The path of one of Postgres's programs, which Debian keeps out of PATH.

    Raises:
        UserError: Postgres is not installed.
    """
    found = shutil.which(name) or next(iter(sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"), reverse=True)), None)
    if found is None:
        raise UserError(f"Postgres's {name} is not there: `apt-get install postgresql`")
    return found


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
