"""Where a job starts: with its state, without it, and with a log that does not match."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

from streamkit.sync import Client
from tests.small_disk import fill
from tests.stop.broker import BrokerProcess
from tests.stop.job_environment import Place, assert_each_once_in_order, next_offsets
from tests.stop.running import Job, run_to_end

STATE = "data/state/copying"


def once(place: Place, *options: str) -> Job:
    job = place.run("copying.py", "--once", *options)
    assert job.process.returncode == 0, job.words
    return job


def test_a_second_run_of_an_app_is_refused_with_exit_code_4(place: Place) -> None:
    place.produce_rows("numbers", lanes=1, count=10)
    with place.job("copying.py") as first:
        first.wait_for(lambda event: event["event"] == "started")
        second = place.run("copying.py")
        assert second.process.returncode == 4, second.words
        assert "another run of 'copying' is in progress" in second.error_text
        first.wait_for_records(10)
        first.signal(signal.SIGTERM)
        assert first.wait() == 0


def test_fresh_state_starts_over(place: Place) -> None:
    place.produce_rows("numbers", lanes=2, count=10)
    assert once(place).ended["records_in"] == 20
    assert once(place).ended["records_in"] == 0
    again = once(place, "--fresh-state")
    assert again.ended["records_in"] == 20
    assert "started over" in again.events[0]["state"]
    assert once(place).ended["records_in"] == 0


def test_a_lost_store_is_replaced_by_the_offsets_of_the_broker(place: Place) -> None:
    place.produce_rows("numbers", lanes=2, count=10)
    once(place)
    shutil.rmtree(place.folder / STATE)
    place.produce_rows("numbers", lanes=2, first=10, count=5)
    job = once(place)
    assert next_offsets(job) == {0: 10, 1: 10}
    assert "the offsets the broker has for this app" in job.events[0]["sources"][0]
    assert job.ended["records_in"] == 10
    assert_each_once_in_order(place.rows_of_file("copies.jsonl"), lanes=2, count=15)


def test_fresh_state_ignores_the_offsets_of_the_broker(place: Place) -> None:
    place.produce_rows("numbers", lanes=1, count=10)
    once(place)
    shutil.rmtree(place.folder / STATE)
    assert once(place, "--fresh-state").ended["records_in"] == 10


def test_an_offset_beyond_the_end_is_refused(place: Place) -> None:
    place.produce_rows("numbers", lanes=1, count=10)
    once(place)
    with Client.connect(place.address) as client:
        client.admin.delete_topic("numbers")
    place.produce_rows("numbers", lanes=1, count=5)
    job = place.run("copying.py", "--once")
    assert job.process.returncode == 1, job.words
    assert "offset 10 of numbers-0 is committed, but the log ends at 5" in job.error_text
    assert "--fresh-state" in job.error_text
    assert once(place, "--fresh-state").ended["records_in"] == 5


def test_a_recreated_topic_is_refused(place: Place) -> None:
    """The new topic has the same offsets but other records."""
    place.produce_rows("numbers", lanes=1, count=10)
    once(place)
    with Client.connect(place.address) as client:
        client.admin.delete_topic("numbers")
    place.produce_rows("numbers", lanes=1, count=20, first=100)
    job = place.run("copying.py", "--once")
    assert job.process.returncode == 1, job.words
    assert "is not the one that was read" in job.error_text
    assert "--fresh-state" in job.error_text
    assert once(place, "--fresh-state").ended["records_in"] == 20


def test_a_topic_with_fewer_partitions_than_are_committed_is_refused(place: Place) -> None:
    place.produce_rows("numbers", lanes=2, count=10)
    once(place)
    with Client.connect(place.address) as client:
        client.admin.delete_topic("numbers")
    place.produce_rows("numbers", lanes=1, count=50)
    job = place.run("copying.py", "--once")
    assert job.process.returncode == 1, job.words
    assert "offset 10 of numbers-1 is committed, but the topic has only 1" in job.error_text


def test_the_state_of_another_cluster_is_refused(place: Place) -> None:
    place.produce_rows("numbers", lanes=1, count=10)
    once(place)
    options = ("--data-dir", str(place.folder / "data"), "--cluster")
    with BrokerProcess(place.folder / "other") as other:
        Place(place.folder, other).produce_rows("numbers", lanes=1, count=10)
        job = run_to_end(
            "copying.py", place.folder, "--once", "--create-topics", *options, other.address
        )
        assert job.process.returncode == 1, job.words
        assert "belongs to the cluster 'embedded'" in job.error_text
        assert other.address in job.error_text


def test_new_partitions_are_read_from_their_beginning_by_the_next_run(place: Place) -> None:
    place.produce_rows("numbers", lanes=1, count=10)
    once(place)
    with Client.connect(place.address) as client:
        client.admin.add_partitions("numbers", 2)
    place.produce_rows("numbers", lanes=3, first=10, count=5)
    job = once(place)
    assert next_offsets(job) == {0: 10, 1: 0, 2: 0}
    assert job.ended["records_in"] == 15


def test_the_error_for_an_unknown_source_topic_suggests_a_similar_one(place: Place) -> None:
    place.produce_rows("number", lanes=1, count=1)
    job = place.run("copying.py", "--once")
    assert job.process.returncode == 1, job.words
    assert "topic not found: numbers" in job.error_text
    assert "did you mean 'number'" in job.error_text
    assert not (place.folder / STATE).exists()


def test_a_missing_source_topic_is_created_with_create_topics(place: Place) -> None:
    job = once(place, "--create-topics")
    assert job.ended["records_in"] == 0


def test_a_missing_sink_topic_is_created_on_the_embedded_broker(place: Place) -> None:
    place.produce_rows("numbers", lanes=1, count=1)
    assert "created topic 'copies' with 3 partition(s)" in once(place).notes
    with Client.connect(place.address) as client:
        assert client.admin.describe_topic("copies").partitions == 3


def test_a_missing_sink_topic_on_a_cluster_is_an_error_with_the_command(place: Place) -> None:
    place.produce_rows("numbers", lanes=1, count=1)
    job = run_to_end("copying.py", place.folder, "--once", "--cluster", place.address)
    assert job.process.returncode == 1, job.words
    assert "topic not found: copies" in job.error_text
    assert "streamkit topic create copies -p 3" in job.error_text
    assert "--create-topics" in job.error_text


def test_a_commit_on_a_full_disk_is_reported_and_retried(place: Place, small_disk: Path) -> None:
    place.produce_rows("numbers", lanes=1, count=10)
    options = ("--cluster", place.address, "--create-topics", "--data-dir", str(small_disk))
    with Job("copying.py", place.folder, *options, "--commit-interval", "50ms") as job:
        job.wait_for(lambda event: event.get("commits"))
        fill(small_disk / "used")
        total = 10
        while not any("the commit failed and is retried" in note for note in job.notes):
            place.produce_rows("numbers", lanes=1, first=total, count=10)
            total += 10
            job.wait_for_records(total)
        before = job.commits
        (small_disk / "used").unlink()
        job.wait_until(lambda: job.commits > before)
        job.signal(signal.SIGTERM)
        assert job.wait() == 0, job.words
    rest = run_to_end("copying.py", place.folder, *options, "--once")
    assert next_offsets(rest) == {0: total}
