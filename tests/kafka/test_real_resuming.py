"""Whole jobs that resume, also after Kafka has removed records, against a real broker."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamkit import App
from streamkit.connectors.kafka import KafkaSource
from streamkit.errors import ConfigError
from tests.kafka.conftest import QUICK
from tests.kafka.server import KafkaServer


class Copy:
    """A job that copies a topic to a Fluvio topic; each run goes to the end."""

    def __init__(self, kafka: KafkaServer, topic: str, folder: Path, **options: str) -> None:
        self.app = App("copy")
        config = {**QUICK, "fetch.wait.max.ms": 10}
        source = KafkaSource(kafka.servers, topic, config=config, **options)  # type: ignore[arg-type]  # the literals are checked at run time
        self.app.stream(source, bytes).to("copied")
        self._folder = folder

    def run(self, capfd: pytest.CaptureFixture[str]) -> str:
        """Run it and return what it reports."""
        assert self.app.run(embedded=True, once=True, data_dir=self._folder / "data") == 0
        return capfd.readouterr().err


def test_a_job_resumes_although_the_last_marker_of_a_transaction_was_removed(
    kafka: KafkaServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    topic = kafka.topics.new()
    kafka.topics.transaction(topic, [(0, b"1"), (0, b"2")], commits=True)
    job = Copy(kafka, topic, tmp_path)
    assert "2 records in, 2 out" in job.run(capfd)
    kafka.topics.transaction(topic, [(0, b"aborted")], commits=False)
    assert "0 records in, 0 out" in job.run(capfd)
    end = kafka.topics.ends(topic)[0]
    assert end == 5
    kafka.topics.delete_records(topic, 0, end)  # retention removes all of a quiet topic
    assert "0 records in, 0 out" in job.run(capfd)
    kafka.topics.write(topic, [(0, b"3")])
    assert "1 records in, 1 out" in job.run(capfd)


def test_a_job_whose_records_were_removed_is_not_started_or_skips_them(
    kafka: KafkaServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    topic = kafka.topics.new()
    kafka.topics.write(topic, [(0, b"1")])
    job = Copy(kafka, topic, tmp_path)
    assert "1 records in, 1 out" in job.run(capfd)
    kafka.topics.write(topic, [(0, b"2"), (0, b"3"), (0, b"4")])
    kafka.topics.delete_records(topic, 0, 3)
    with pytest.raises(ConfigError, match="offset 1 of partition 0 was removed") as refused:
        job.run(capfd)
    assert 'removed="skip"' in refused.value.hint
    skipping = Copy(kafka, topic, tmp_path, removed="skip")
    report = skipping.run(capfd)
    assert "the offsets 1 to 2 of partition 0 were removed before the job has read them" in report
    assert "1 records in, 1 out" in report
    assert "were removed" not in skipping.run(capfd)


def test_a_partition_whose_records_were_all_removed_ends_at_once(
    kafka: KafkaServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    topic = kafka.topics.new(2)
    kafka.topics.write(topic, [(0, b"1"), (0, b"2"), (1, b"3")])
    kafka.topics.delete_records(topic, 0, 2)
    job = Copy(kafka, topic, tmp_path)
    assert "1 records in, 1 out" in job.run(capfd)
    kafka.topics.delete_records(topic, 1, 1)
    assert "0 records in, 0 out" in job.run(capfd)


def test_a_job_that_has_read_nothing_resumes_where_it_has_started(
    kafka: KafkaServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    topic = kafka.topics.new(2)
    kafka.topics.write(topic, [(0, b"old")])
    job = Copy(kafka, topic, tmp_path, start="end")
    assert "0 records in, 0 out" in job.run(capfd)
    kafka.topics.add_partitions(topic, 3)
    kafka.topics.write(topic, [(0, b"new"), (1, b"new"), (2, b"new")])
    assert "3 records in, 3 out" in job.run(capfd)
    kafka.topics.delete(topic)
    kafka.topics.create(topic, 3)
    kafka.topics.write(topic, [(0, b"another")] * 5)
    with pytest.raises(ConfigError, match="was deleted and created again"):
        job.run(capfd)
