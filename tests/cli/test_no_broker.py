"""A job without topics runs without a broker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.processes import run
from tests.ports import HeldPort

JOB = """
from streamkit import App
from streamkit.connectors.files import Files, FileSink, Jsonl
app = App("job")
rows = app.stream(Files("in.jsonl", Jsonl(dict)))
rows.to({end})
"""
FILES = 'FileSink("out/rows.jsonl")'
ROWS = b"".join(b'{"number":%d}\n' % number for number in range(100))


@pytest.fixture
def held() -> Iterator[HeldPort]:
    """A port on which nothing listens."""
    with HeldPort() as port:
        yield port


def test_a_job_of_files_needs_no_broker(tmp_path: Path) -> None:
    write(tmp_path, FILES)
    ended = run(tmp_path, "run", "app.py", "--once")
    assert ended.code == 0, ended.err
    assert "job: running without a broker, because it has no topics" in ended.err
    assert (tmp_path / "out" / "rows.jsonl").read_bytes() == ROWS
    assert [each.name for each in (tmp_path / ".streamkit").iterdir()] == ["state"]


def test_it_runs_while_the_cluster_cannot_be_reached(tmp_path: Path, held: HeldPort) -> None:
    write(tmp_path, FILES)
    ended = run(tmp_path, "run", "app.py", "--once", variables={"STREAMKIT_CLUSTER": held.address})
    assert ended.code == 0, ended.err
    assert (tmp_path / "out" / "rows.jsonl").read_bytes() == ROWS


def test_its_state_is_kept_when_it_gets_a_topic(tmp_path: Path) -> None:
    write(tmp_path, FILES)
    assert run(tmp_path, "run", "app.py", "--once").code == 0
    write(tmp_path, '"numbers"', rows=ROWS + b'{"number":100}\n')
    ended = run(tmp_path, "run", "app.py", "--once")
    assert ended.code == 0, ended.err
    assert "running on the embedded broker" in ended.err
    assert run(tmp_path, "consume", "numbers", "-B", "-d").out == b'{"number":100}\n'


def test_dead_letters_need_a_broker(tmp_path: Path) -> None:
    write(tmp_path, FILES)
    ended = run(tmp_path, "run", "app.py", "--once", "--on-crash-loop", "dead-letter")
    assert ended.code == 0, ended.err
    assert "running on the embedded broker" in ended.err


def test_the_client_is_not_loaded(tmp_path: Path) -> None:
    """The client and the protocol would be a third of the start of a job."""
    write(tmp_path, FILES, rows=b"{}\n")
    with (tmp_path / "app.py").open("a") as job:
        job.write("import sys\n")
        job.write("rows.map(lambda row: print(*sys.modules)).to(FileSink('more.jsonl'))\n")
    ended = run(tmp_path, "run", "app.py", "--once")
    loaded = ended.out.decode().split()
    assert "streamkit.run.run" in loaded, ended.err
    clients = {"streamkit.client.client", "streamkit.protocol.apis", "streamkit.connectors.topics"}
    assert not clients & set(loaded)


def write(folder: Path, end: str, *, rows: bytes = ROWS) -> None:
    (folder / "in.jsonl").write_bytes(rows)
    (folder / "app.py").write_text(JOB.format(end=end))
