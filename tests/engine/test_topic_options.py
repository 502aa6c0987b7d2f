"""Options of topics reach the client, in runs against the embedded broker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streamkit import App, Topic

LARGE = b"x" * (3 << 20)


def job_of(app: App, *values: bytes) -> Any:
    @app.source
    def made() -> Iterator[bytes]:
        yield from values

    return made


def test_a_record_may_be_as_large_as_its_sink_allows(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    small, large = App("small"), App("large")
    job_of(small, LARGE).to("out")
    made = job_of(large, LARGE)
    made.to("out", max_request_size=4 << 20)

    @large.sink(made, to="shaped", max_request_size=4 << 20)
    def shaped(value: bytes) -> bytes:
        return value

    assert small.run(embedded=True, once=True, data_dir=tmp_path) == 1
    assert large.run(embedded=True, once=True, data_dir=tmp_path) == 0
    reading = App("reading")
    found: list[int] = []

    @reading.sink(reading.stream("out", bytes, max_bytes=8 << 20))
    def sizes(value: bytes) -> None:
        found.append(len(value))

    assert reading.run(embedded=True, once=True, data_dir=tmp_path) == 0
    assert found == [len(LARGE)]


def test_a_partition_count_that_differs_from_the_declared_one_is_reported(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first = App("first")
    made = job_of(first, b"1")
    made.to(Topic("one"))
    made.to(Topic("four", partitions=4))
    made.to("plain")
    assert first.run(embedded=True, once=True, data_dir=tmp_path) == 0
    assert "but the app declares" not in capfd.readouterr().err

    second = App("second")
    made = job_of(second, b"1")
    made.to(Topic("one", partitions=4))
    made.to(Topic("four", partitions=1))
    made.to("plain")
    second.stream(Topic("four", bytes, partitions=2)).merge(
        second.stream(Topic("one", bytes)), second.stream(Topic("plain", bytes, partitions=1))
    ).to(Topic("new", partitions=3))
    assert second.run(embedded=True, once=True, data_dir=tmp_path) == 0
    notes = [line for line in capfd.readouterr().err.splitlines() if "but the app declares" in line]
    assert sorted(notes) == [
        "topic 'four' has 4 partition(s), but the app declares 1",
        "topic 'four' has 4 partition(s), but the app declares 2",
        "topic 'one' has 1 partition(s), but the app declares 4",
    ]


def test_a_missing_source_topic_is_created_with_the_declared_partitions(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    app = App("reading")
    app.stream(Topic("rows", bytes, partitions=3)).to("out")
    assert app.run(embedded=True, once=True, data_dir=tmp_path, create_topics=True) == 0
    assert "created topic 'rows' with 3 partition(s)" in capfd.readouterr().err
