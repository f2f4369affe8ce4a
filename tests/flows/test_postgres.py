"""A real server: who gets in, what survives a restart, what is left."""

import psutil
import psycopg
import pytest

from flows.postgres import DATABASES, Postgres


@pytest.fixture
def server(tmp_path):
    made = Postgres(tmp_path / "log")
    made.start()
    yield made
    made.delete()


def test_its_content_survives_a_restart(server):
    with psycopg.connect(server.url("optuna", "postgresql"), autocommit=True) as connection:
        assert {row[0] for row in connection.execute("select datname from pg_database")} >= set(DATABASES)
        connection.execute("create table t as select 7 as n")
    server.stop()
    server.start()
    with psycopg.connect(server.url("optuna", "postgresql")) as connection:
        assert connection.execute("select n from t").fetchone() == (7,)


def test_only_the_password_opens_it_and_only_from_here(server):
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(server.url("prefect", "postgresql").replace(server.password, "wrong"))
    assert server.url("prefect").startswith("postgresql+psycopg://miyagi:")
    listening = [
        c.laddr.ip for c in psutil.Process(server.process.pid).net_connections() if c.status == psutil.CONN_LISTEN
    ]
    assert listening == ["127.0.0.1"]
    assert not list(server.data.rglob(".s.PGSQL.*"))


def test_nothing_is_left(tmp_path):
    server = Postgres(tmp_path / "log")
    server.start()
    process = psutil.Process(server.process.pid)
    server.delete()
    assert not process.is_running() and not server.data.exists()
    assert not list(server.data.parent.glob(f"{server.data.name}*"))
