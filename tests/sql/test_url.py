"""URLs of databases are read, and no text shows a password."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamkit import Secret
from streamkit.connectors.sql import SqlQuery, SqlSink, SqlTable
from streamkit.connectors.sql.url import database_of
from streamkit.errors import UsageError

PASSWORD = "p:w/%20?geheim"
QUOTED = "p%3Aw%2F%2520%3Fgeheim"
URLS = [
    f"postgresql://me:{QUOTED}@db.example:5433/orders?sslmode=require",
    f"postgres://me:{QUOTED}@/orders",
    f"postgresql://me:{QUOTED}@one:1,two:2/orders",
    f"postgresql://me@host/orders?password={QUOTED}",
    f"postgresql+asyncpg://me:{QUOTED}@host/orders",
    f"mysql+pymysql://me:{QUOTED}@host/orders",
]


@pytest.mark.parametrize("url", URLS)
def test_no_text_shows_a_password(url: str) -> None:
    database = database_of(url)
    objects = (
        database,
        SqlTable(url, "orders"),
        SqlQuery(Secret(url), "SELECT 1 AS id", key="id"),
        SqlSink(url, "orders"),
    )
    for each in objects:
        for text in (repr(each), str(each), f"{each}"):
            assert "geheim" not in text
            assert "***" in text or "me@" in text
    error = f'missing "=" after "{url}" in {PASSWORD} or {QUOTED}'
    assert "geheim" not in database.hidden(error)
    assert "***" in database.hidden(error)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:pa/ss-geheim@host/db",
        "postgresql://me:pa#geheim@host/db",
        "postgresql://me:geheim[@host/db",
        "postgresql://host:geheim/db",
        "geheim",
        "://geheim",
        "sqlite://geheim.db",
        "sqlite:///file.db?key=geheim",
        "",
    ],
)
def test_an_unclear_url_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(UsageError) as refused:
        SqlTable(url, "orders")
    texts = [str(refused.value), refused.value.hint, repr(refused.value)]
    assert not any("geheim" in each for each in texts)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


def test_a_url_that_is_not_text_is_refused() -> None:
    with pytest.raises(UsageError, match="must be text, not int"):
        database_of(5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///orders.db", Path("orders.db")),
        ("sqlite:////var/lib/orders.db", Path("/var/lib/orders.db")),
        ("sqlite:///a%20b.db", Path("a b.db")),
    ],
)
def test_the_path_of_an_sqlite_database_is_relative_or_absolute(url: str, path: Path) -> None:
    found = database_of(url)
    assert (found.system, found.path) == ("sqlite", path)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:///:memory:"])
def test_an_sqlite_database_in_memory_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        database_of(url)


def test_the_scheme_chooses_the_system() -> None:
    systems = [database_of(url).system for url in URLS]
    assert systems == ["postgresql"] * 4 + ["sqlalchemy"] * 2


def test_a_function_gives_the_url_when_the_job_starts() -> None:
    calls = []

    def url() -> Secret:
        calls.append(1)
        return Secret("sqlite:///orders.db")

    sink = SqlSink(url, "orders")
    assert "a database of the settings" in repr(sink)
    assert calls == []
    assert sink.database.path == Path("orders.db")
