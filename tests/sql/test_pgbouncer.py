"""PgBouncer between a job and PostgreSQL: statements of one session run on several connections."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from streamkit.connectors.sql import SqlLookup, SqlSink, SqlTable
from streamkit.errors import ConfigError
from tests.ports import HeldPort
from tests.postgres.fixtures import connected
from tests.postgres.server import PASSWORD, USER, PostgresServer
from tests.sql.kinds import Total
from tests.sql.reading import read_all
from tests.sql.writing import Job

pytestmark = pytest.mark.anyio
PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@contextmanager
def pool(server: PostgresServer, mode: str) -> Iterator[int]:
    """Run PgBouncer; yield its port."""
    assert PROGRAM is not None, "the fixture has skipped the test"
    folder = Path(tempfile.mkdtemp(prefix="streamkit-pgbouncer-"))
    folder.chmod(0o755)  # it does not run as root
    with HeldPort() as port:
        (folder / "users").write_text(f'"{USER}" "{PASSWORD}"\n')
        (folder / "ini").write_text(
            f"[databases]\n* = host=127.0.0.1 port={server.port}\n[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {port.number}\nunix_socket_dir =\n"
            f"auth_type = scram-sha-256\nauth_file = {folder / 'users'}\n"
            f"pool_mode = {mode}\ndefault_pool_size = 3\n"
        )
        command = [PROGRAM, *(["-u", "nobody"] if os.geteuid() == 0 else []), str(folder / "ini")]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            rest = threading.Thread(target=process.stderr.read)  # it would wait for a full pipe
            try:
                assert any("process up" in line for line in process.stderr), "it did not start"
                rest.start()
                yield port.number
            finally:
                process.kill()
                if rest.ident is not None:
                    rest.join()
                shutil.rmtree(folder)


@pytest.fixture
def urls(
    postgres: PostgresServer, new_database: Callable[[], str], request: pytest.FixtureRequest
) -> Iterator[tuple[str, str]]:
    """The URLs of a database, directly and through PgBouncer."""
    if PROGRAM is None:
        pytest.skip("needs PgBouncer: it is not on PATH")
    name = new_database()
    with pool(postgres, request.param) as port:
        yield postgres.url(name), postgres.url(name, port=port)


@pytest.mark.parametrize("urls", ["transaction", "session"], indirect=True)
async def test_a_job_reads_and_writes_through_a_pool(urls: tuple[str, str], tmp_path: Path) -> None:
    direct, pooled = urls
    with connected(pooled) as other:
        other.execute("SET timezone = 'Asia/Tokyo'")  # on a connection that others get later
    sink = SqlSink(pooled, "totals", mode="upsert", key="id")
    job = Job(tmp_path / "job", Total)
    async with job.run(sink) as run:
        await run.write([Total(number, "a") for number in range(100)])
        await run.commit()
        await run.write([None, Total(2, "b")], [b"1", None])
        await run.commit("stored")
    async with job.run(sink):
        pass
    with connected(direct) as connection:
        connection.execute("ALTER TABLE totals ADD at timestamptz NOT NULL DEFAULT now()")
    source = SqlTable(pooled, "totals", incremental="at", batch_rows=10)
    rows = await read_all(source)
    assert [row["id"] for row in rows] == [0, *range(2, 100)]
    assert {str(row["at"].tzinfo) for row in rows} == {"UTC"}
    assert len(await read_all(SqlTable(pooled, "totals", splits=2, batch_rows=10))) == 99
    async with SqlLookup(pooled, "totals", Total, "id") as lookup:
        assert [await lookup.find(1), await lookup.find(2)] == [None, Total(2, "b")]
    assert not job.notes


@pytest.mark.parametrize("urls", ["statement"], indirect=True)
async def test_a_pool_without_transactions_is_refused(
    urls: tuple[str, str], tmp_path: Path
) -> None:
    direct, pooled = urls
    with connected(direct) as connection:
        connection.execute("CREATE TABLE totals (id bigint PRIMARY KEY, name text, total float)")
        connection.execute("INSERT INTO totals VALUES (1, 'a')")
    for attempt in (
        lambda: read_all(SqlTable(pooled, "totals")),
        lambda: written(pooled, tmp_path),
    ):
        with pytest.raises(ConfigError, match="no transactions in its statement mode"):
            await attempt()


async def written(url: str, folder: Path) -> None:
    async with Job(folder / "job", Total).run(SqlSink(url, "totals")) as run:
        await run.write([Total(1, "a")])
        await run.commit()
