from __future__ import annotations

import json
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.cli.processes import WAIT_S, broker, read_until, run, started

TEN = b"".join(b"%d\n" % number for number in range(10))


@pytest.fixture(scope="module")
def ten(cluster: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A topic with the numbers 0 to 9."""
    folder = tmp_path_factory.mktemp("ten")
    run(folder, "--cluster", cluster, "produce", "ten", "--create-topics", given=TEN)
    return "ten"


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        ("-B -d", range(10)),
        ("-H 7 -d", range(7, 10)),
        ("-T 2 -d", range(8, 10)),
        ("--start 4 -d", range(4, 10)),
        ("-B --end 3", range(4)),
        ("-T 4 --end 8 -d", range(6, 9)),
        ("-B -n 3", range(3)),
        ("-B -n 3 -p 0", range(3)),
        ("-d", range(0)),
        ("-T 0 -d", range(0)),
    ],
)
def test_start_and_end_choose_the_records(
    on_cluster: Run, ten: str, options: str, numbers: range
) -> None:
    ended = on_cluster("consume", ten, *options.split())
    assert ended.code == 0
    assert [int(line) for line in ended.lines] == list(numbers)


def test_every_partition_is_read_unless_some_are_named(on_cluster: Run) -> None:
    on_cluster("topic", "create", "wide", "-p", "3")
    on_cluster("produce", "wide", given=b"".join(b"%d\n" % number for number in range(9)))
    assert len(on_cluster("consume", "wide", "-B", "-d", "-A").lines) == 9
    some = on_cluster("consume", "wide", "-B", "-d", "-p", "0", "-p", "2", "-O", "json")
    assert {json.loads(line)["partition"] for line in some.lines} == {0, 2}
    ended = on_cluster("consume", "wide", "-B", "--end", "1")
    assert len(ended.lines) == 6


def test_without_a_start_it_waits_and_says_how_to_read_what_is_there(
    cluster: str, on_cluster: Run, tmp_path: Path
) -> None:
    on_cluster("produce", "live", "--create-topics", given=b"before\n")
    with started(tmp_path, "--cluster", cluster, "consume", "live", "-F", "{{value}}!") as process:
        read_until(process, b"waiting for new records; -B reads from the beginning\n")
        on_cluster("produce", "live", given=b"after\n")
        assert process.stdout is not None
        assert process.stdout.readline() == b"after!\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_S) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_a_named_consumer_goes_on_where_it_stopped(on_cluster: Run, ten: str) -> None:
    first = on_cluster("consume", ten, "-B", "-n", "4", "-c", "me")
    second = on_cluster("consume", ten, "-B", "-d", "--consumer", "me")
    assert first.lines + second.lines == TEN.splitlines()
    rows = json.loads(on_cluster("consumer", "list", "-O", "json").out)
    assert [(row["consumer"], row["topic"], row["offset"]) for row in rows] == [("me", ten, 9)]
    unknown = on_cluster("consumer", "delete", "mee")
    assert unknown.code == 1
    assert "did you mean 'me'?" in unknown.err
    assert on_cluster("consumer", "delete", "me", "-t", ten, "-p", "0").code == 0
    assert on_cluster("consumer", "list").err == "no consumers yet\n"


def test_ctrl_c_stores_what_was_printed(
    cluster: str, on_cluster: Run, ten: str, tmp_path: Path
) -> None:
    arguments = ("--cluster", cluster, "consume", ten, "-B", "-c", "interrupted")
    with started(tmp_path, *arguments) as process:
        assert process.stdout is not None
        for _ in range(10):
            process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_S) == 0
    assert on_cluster("consume", ten, "-B", "-d", "-c", "interrupted").out == b""
    on_cluster("consumer", "delete", "interrupted")


@pytest.mark.parametrize("options", [["-B", "-d"], ["-B"]])
def test_a_closed_pipe_is_a_good_end(
    cluster: str, on_cluster: Run, tmp_path: Path, options: list[str]
) -> None:
    on_cluster("produce", "wordy", "--create-topics", given=b"word\n" * 100_000)
    with started(tmp_path, "--cluster", cluster, "consume", "wordy", *options) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(WAIT_S) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_a_reader_that_goes_while_nothing_comes_ends_it_too(
    cluster: str, ten: str, tmp_path: Path
) -> None:
    with started(tmp_path, "--cluster", cluster, "consume", ten) as process:
        read_until(process, b"-B reads from the beginning\n")
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(WAIT_S) == 0


def test_an_offset_behind_the_end_is_told(on_cluster: Run, ten: str) -> None:
    ended = on_cluster("consume", ten, "--start", "99", "-n", "1")
    assert ended.code == 1
    assert ended.err.startswith("error: ")


def test_who_waits_for_records_waits_for_a_broker_that_goes_away_too(
    tmp_path: Path,
) -> None:
    with ExitStack() as stack:
        with broker(tmp_path) as address:
            run(tmp_path, "produce", "words", given=b"word\n")
            process = stack.enter_context(
                started(tmp_path, "--cluster", address, "consume", "words", "-T", "1")
            )
            assert process.stdout is not None
            assert process.stdout.readline() == b"word\n"
        read_until(process, b"trying again: ")
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 0
