"""The sync client in its own process: Ctrl-C, the end of a program, and forks."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from streamkit import sync
from tests.broker_process import BrokerProcess
from tests.client.sync.program import RECORDS
from tests.proxy import Proxy, Stall

ROOT: Final = Path(__file__).parent.parent.parent.parent
END_S_MAX: Final = 60.0
# The time limits of the end of an interpreter (5 s) and of a block after Ctrl-C (2 s), plus the
# start and end of a process on a busy machine.
BOUNDED_S_MAX: Final = 30.0


class Program:
    """A scenario of `program` in its own process."""

    def __init__(self, scenario: str, address: str, topic: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.client.sync.program", scenario, address, topic],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.errors = ""

    def read_line(self) -> str:
        """Wait for a line of its output."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline().rstrip()
        if not line:
            self.end()
        return line

    def send_line(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def end(self) -> int:
        """Wait for its end; return its exit code."""
        _, self.errors = self._process.communicate(timeout=END_S_MAX)
        return self._process.returncode

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextmanager
def running(scenario: str, address: str, topic: str) -> Iterator[Program]:
    program = Program(scenario, address, topic)
    try:
        yield program
    finally:
        program.kill()


def stored(client: sync.Client, topic: str) -> list[bytes]:
    return [record.value for record in client.consumer(topic, until_end=True)]


@contextmanager
def stalled(cluster: BrokerProcess, fault: Stall) -> Iterator[Proxy]:
    with Proxy(cluster.sc_port, cluster.spu_port, fault) as proxy:
        yield proxy


PRODUCING: Final[dict[str, Callable[[list[bytes]], bool]]] = {
    "handle": lambda found: found == [b"first", b"second"],
    "handle_of_many": lambda found: found == [b"first", b"second"],
    "flush": lambda found: found == [b"first", b"second"],
    "close": lambda found: found == [b"first", b"second"],
    "full_queue_of_many": lambda found: found[-1] == b"last" and len(found) % 4 == 1,
}


@pytest.mark.parametrize("wait", PRODUCING)
def test_ctrl_c_ends_a_wait_for_the_broker_and_the_producer_still_works(
    cluster: BrokerProcess, client: sync.Client, topic: str, wait: str
) -> None:
    stall = Stall("spu up")
    with (
        stalled(cluster, stall) as proxy,
        running(f"interrupt_{wait}", proxy.address, topic) as program,
    ):
        assert program.read_line() == "interrupted", program.errors
        assert not stored(client, topic)
        stall.release()
        program.send_line()
        assert program.end() == 0, program.errors
    assert PRODUCING[wait](stored(client, topic))


def test_ctrl_c_ends_a_wait_for_queue_space_without_lost_or_duplicate_records(
    cluster: BrokerProcess, client: sync.Client, topic: str
) -> None:
    stall = Stall("spu up")
    with (
        stalled(cluster, stall) as proxy,
        running("interrupt_full_queue", proxy.address, topic) as program,
    ):
        assert program.read_line() == "interrupted", program.errors
        stall.release()
        program.send_line()
        sent = int(program.read_line())
        assert program.end() == 0, program.errors
    assert stored(client, topic) == [*(b"%d" % number for number in range(sent)), b"last"]


@pytest.mark.parametrize("wait", ["records", "chunks"])
def test_ctrl_c_ends_a_wait_for_records_and_the_consumer_still_works(
    cluster: BrokerProcess, client: sync.Client, topic: str, wait: str
) -> None:
    with running(f"interrupt_{wait}", cluster.address, topic) as program:
        assert program.read_line() == "interrupted", program.errors
        with client.producer(topic) as producer:
            producer.send(b"from the test")
        program.send_line()
        assert program.end() == 0, program.errors


def test_a_block_ended_by_ctrl_c_closes_in_time_and_reports_undelivered_records(
    cluster: BrokerProcess, topic: str
) -> None:
    with (
        stalled(cluster, Stall("spu up")) as proxy,
        running("interrupt_block", proxy.address, topic) as program,
    ):
        assert re.search(r"interrupted: 1 record.* were not acknowledged", program.read_line()), (
            program.errors
        )
        program.send_line()
        assert program.end() == 0, program.errors


def numbers(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


@pytest.mark.parametrize(
    ("scenario", "code", "values"),
    [
        ("exit_unclosed", 0, numbers(RECORDS)),
        ("exit_by_error", 1, numbers(RECORDS)),
        ("exit_by_system_exit", 3, numbers(RECORDS)),
        ("exit_by_name", 0, [b"late"]),
        ("fork_by_multiprocessing", 0, [b"child", b"child"]),
    ],
)
def test_records_of_unclosed_producers_are_delivered(
    cluster: BrokerProcess,
    client: sync.Client,
    topic: str,
    scenario: str,
    code: int,
    values: list[bytes],
) -> None:
    with running(scenario, cluster.address, topic) as program:
        assert program.end() == code, program.errors
    assert stored(client, topic) == values
    assert "streamkit" not in program.errors.replace("streamkit/", "")


def test_records_of_garbage_collected_producers_are_delivered(
    cluster: BrokerProcess, client: sync.Client, topic: str
) -> None:
    with running("exit_dropped", cluster.address, topic) as program:
        assert program.end() == 0, program.errors
    assert not program.errors
    assert sorted(stored(client, topic), key=int) == numbers(17)


def test_a_program_without_a_broker_ends_in_time_and_counts_lost_records(
    cluster: BrokerProcess, client: sync.Client, topic: str
) -> None:
    with (
        stalled(cluster, Stall("spu up")) as proxy,
        running("exit_unsent", proxy.address, topic) as program,
    ):
        began_s = time.monotonic()
        assert program.end() == 0
        assert time.monotonic() - began_s < BOUNDED_S_MAX
    # There may also be a warning about a retry.
    expected = f"streamkit: 17 records for {topic!r} were not delivered before the end"
    assert expected in program.errors.splitlines()
    assert not stored(client, topic)


def test_records_refused_at_the_end_are_reported(
    cluster: BrokerProcess, client: sync.Client
) -> None:
    small = "processes-refused"
    client.admin.create_topic(small, segment_size_bytes=1_024)
    with running("exit_refused", cluster.address, small) as program:
        assert program.end() == 0
    assert re.search(f"^streamkit: .*{small}.*too large", program.errors), program.errors


def test_using_a_client_after_the_end_of_its_event_loop_is_refused(
    cluster: BrokerProcess, client: sync.Client, topic: str
) -> None:
    with running("exit_used_after", cluster.address, topic) as program:
        assert "the interpreter is ending" in program.read_line()
        assert program.end() == 0, program.errors
    assert stored(client, topic) == [b"in time"]


def test_records_accepted_while_a_program_ends_are_delivered(
    cluster: BrokerProcess, client: sync.Client, topic: str
) -> None:
    with running("exit_while_sending", cluster.address, topic) as program:
        accepted = int(program.read_line())
        assert program.end() == 0, program.errors
    assert accepted >= RECORDS
    assert len(stored(client, topic)) == accepted


def test_a_forked_child_gets_an_error_and_can_connect_itself(
    cluster: BrokerProcess, client: sync.Client, topic: str
) -> None:
    with running("fork", cluster.address, topic) as program:
        assert program.read_line() == "child"
        assert program.end() == 0, program.errors
    assert stored(client, topic) == [b"parent 1", b"child", b"parent 2"]
