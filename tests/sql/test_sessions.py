"""Connections: what errors mean, and what they show."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from streamkit.connectors.sql.opening import session_for
from streamkit.connectors.sql.queries import Statement
from streamkit.connectors.sql.url import database_of
from streamkit.errors import ConfigError, ConnectFailed, DataError, StreamKitError, TransportError
from tests.inner_pytest import ROOT
from tests.ports import HeldPort
from tests.postgres.server import PASSWORD, PostgresServer
from tests.proxy import Proxy
from tests.sql.databases import TestDatabase, postgres_database


def open_error(url: str) -> ConnectFailed:
    session = session_for(database_of(url), creates=False)
    with pytest.raises(ConnectFailed) as failed:
        session.open()
    session.close()
    texts = [str(failed.value), repr(failed.value), failed.value.hint]
    assert not any(PASSWORD in each or "geheim" in each for each in texts)
    assert failed.value.__cause__ is None or PASSWORD not in str(failed.value.__cause__)
    return failed.value


def test_a_wrong_password_is_final_and_never_shown(postgres: PostgresServer) -> None:
    url = postgres.url()
    for wrong in ("geheim-5", "geheim%20%2F%40"):
        error = open_error(url.replace(PASSWORD, wrong))
        assert not error.retryable
        assert "password authentication failed" in str(error)


def test_a_missing_database_is_final(postgres: PostgresServer) -> None:
    error = open_error(postgres.url("none"))
    assert not error.retryable
    assert 'database "none" does not exist' in str(error)


def test_options_that_libpq_does_not_know_are_final(postgres: PostgresServer) -> None:
    assert not open_error(f"{postgres.url()}?password=geheim&unknown=1").retryable
    assert not open_error(postgres.url().replace("/postgres", "/%zz")).retryable


def test_a_server_that_does_not_listen_may_come_back() -> None:
    with HeldPort() as port:
        url = f"postgresql://me:{PASSWORD}@{port.address}/db"
        assert open_error(url).retryable


def test_a_lost_connection_is_an_error_of_transport(postgres: PostgresServer) -> None:
    with Proxy(postgres.port, postgres.port, is_framed=False) as proxy:
        session = session_for(database_of(postgres.url(port=proxy.port)), creates=False)
        session.open()
        proxy.cut_all()
        with pytest.raises(TransportError):
            session.query(Statement("SELECT 1"))
        session.close()
        session.open()
        assert session.query(Statement("SELECT 1")).rows == [(1,)]
        session.close()


def test_a_statement_that_the_server_refuses_is_not_retried(database: TestDatabase) -> None:
    with database.session() as session:
        with pytest.raises(StreamKitError) as refused:
            session.query(Statement("SELECT wrong"))
        assert not refused.value.retryable
        assert not isinstance(refused.value, DataError)
        # The connection still works.
        assert list(session.query(Statement("SELECT 1")).rows) == [(1,)]


def test_a_deadlock_is_retried(postgres_only: TestDatabase) -> None:
    postgres_only.run_all("CREATE TABLE t (id int)", "INSERT INTO t VALUES (1), (2)")
    update = Statement("UPDATE t SET id = id WHERE id = %s", (1,))
    other_update = Statement("UPDATE t SET id = id WHERE id = %s", (2,))
    with postgres_only.session() as one, postgres_only.session() as other:
        one.execute(Statement("SET deadlock_timeout = '10ms'"))
        other.execute(Statement("SET deadlock_timeout = '1h'"))
        one.begin()
        one.execute(update)
        other.begin()
        other.execute(other_update)
        waiting = threading.Thread(target=other.execute, args=(update,))
        waiting.start()
        while not postgres_only.run("SELECT 1 FROM pg_locks WHERE NOT granted"):
            pass
        with pytest.raises(TransportError, match="deadlock detected"):
            one.execute(other_update)
        one.rollback()
        waiting.join()
        other.rollback()


def test_a_statement_that_runs_is_interrupted(database: TestDatabase) -> None:
    endless = (
        "SELECT pg_sleep(1000)"
        if database.is_postgres
        else "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    )
    with database.session() as session:
        errors: list[Exception] = []

        def run() -> None:
            try:
                session.query(Statement(endless))
            except StreamKitError as error:
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        while thread.is_alive():
            session.interrupt()
            thread.join(0.05)
        assert len(errors) == 1
        assert list(session.query(Statement("SELECT 1")).rows) == [(1,)]


def test_a_missing_file_of_sqlite_is_created_only_for_a_sink(tmp_path: Path) -> None:
    database = database_of(f"sqlite:///{tmp_path}/none.db")
    assert not open_error(database.url.reveal()).retryable
    session = session_for(database, creates=True)
    session.open()
    session.close()
    assert (tmp_path / "none.db").exists()


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database " * 100)
    error = open_error(f"sqlite:///{tmp_path}/text.db")
    assert not error.retryable
    assert "not a database" in str(error)


def test_the_transactions_of_other_sessions_are_known(postgres_only: TestDatabase) -> None:
    other_url = postgres_only.url.rpartition("/")[0] + "/postgres"
    elsewhere = postgres_database(other_url)
    with (
        postgres_only.session() as session,
        postgres_only.session() as writer,
        elsewhere.session() as stranger,
    ):
        assert session.open_transactions() == frozenset()
        stranger.begin()
        assert session.open_transactions() == frozenset()
        writer.begin()
        [first] = list(session.open_transactions() or [])
        writer.execute(Statement("CREATE TABLE t (id int)"))
        assert session.open_transactions() == frozenset({first})
        writer.commit()
        assert session.open_transactions() == frozenset()
        writer.begin()
        assert session.open_transactions() not in (frozenset(), frozenset({first}))
        writer.rollback()
        stranger.rollback()


@pytest.mark.parametrize(
    ("url", "module", "expected"),
    [
        (
            "postgresql://host/db",
            "psycopg",
            "the package 'psycopg' is not installed - pip install 'fluvio-streamkit[postgres]'",
        ),
        (
            "mysql+pymysql://host/db",
            "sqlalchemy",
            "the package 'sqlalchemy' is not installed - pip install 'fluvio-streamkit[sql]'",
        ),
        (
            "mysql+pymysql://user:geheim@host/db",
            "pymysql",
            "mysql+pymysql://user@host/db: the package 'pymysql', its driver, is not installed - "
            "pip install pymysql",
        ),
    ],
)
def test_a_missing_driver_is_named(url: str, module: str, expected: str) -> None:
    program = (
        f"import sys; sys.modules.update({module}=None)\n"
        "from streamkit.connectors.sql.opening import session_for\n"
        "from streamkit.connectors.sql.url import database_of\n"
        "from streamkit.errors import ConfigError\n"
        "try:\n"
        f"    session_for(database_of({url!r}), creates=False)\n"
        "except ConfigError as error:\n"
        "    print(error, '-', error.hint)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == expected


@pytest.mark.parametrize("url", ["nosuch://host/db", "mssql+pymssql://host/db", "duckdb:// /x"])
def test_an_unknown_system_is_refused(url: str) -> None:
    pytest.importorskip("sqlalchemy", reason="needs an optional package: sqlalchemy")
    with pytest.raises(ConfigError):
        session_for(database_of(url), creates=False)
