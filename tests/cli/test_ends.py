"""What ends a command and what does not: permanent errors, a broker that stops, signals."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from streamkit.broker.attach import attach
from streamkit.protocol.apis import PRODUCE
from streamkit.protocol.connection import IncomingRequest
from streamkit.protocol.data_plane import (
    PartitionProduceResponse,
    ProduceResponse,
    TopicProduceResponse,
)
from streamkit.protocol.error_codes import Code, ErrorCode
from tests.cli.conftest import Run
from tests.cli.processes import (
    COMMAND,
    WAIT_S,
    environment,
    read_until,
    run,
    started,
)
from tests.cli.test_produce import produce_there
from tests.client.stock_cluster import TOPIC, StockSpu


def write_lines(process: subprocess.Popen[bytes], lines: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(lines)
    process.stdin.flush()


def read_line(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    return process.stdout.readline()


def broker_of(folder: Path) -> int:
    with attach(folder / ".streamkit") as attachment:
        return attachment.pid


# --- errors of the broker --------------------------------------------------------------


def test_produce_ends_with_an_error_when_its_topic_is_deleted(
    cluster: str, on_cluster: Run, tmp_path: Path
) -> None:
    on_cluster("topic", "create", "doomed")
    with started(tmp_path, "--cluster", cluster, "produce", "doomed") as producer:
        write_lines(producer, b"1\n2\n3\n")
        assert len(on_cluster("consume", "doomed", "-B", "-n", "3").lines) == 3
        assert on_cluster("topic", "delete", "doomed").code == 0
        write_lines(producer, b"4\n")  # the pipe stays open, but no more lines follow
        assert producer.wait(WAIT_S) == 1
        assert producer.stderr is not None
        err = producer.stderr.read().decode()
    assert "error: topic not found: doomed" in err
    assert "3 records produced to doomed" in err
    assert "rejected standard input line 4" in err


@pytest.mark.parametrize(
    ("code", "ends"),
    [
        (ErrorCode(Code.PERMISSION_DENIED), True),
        (ErrorCode(Code.SPU_ERROR), True),
        (ErrorCode(Code.MESSAGE_TOO_LARGE), False),
    ],
)
async def test_produce_continues_only_after_an_error_of_a_single_record(
    tmp_path: Path, code: ErrorCode, ends: bool
) -> None:
    def answer(request: IncomingRequest) -> ProduceResponse:
        return ProduceResponse((TopicProduceResponse(TOPIC, (PartitionProduceResponse(0, code),)),))

    ended = await produce_there(StockSpu(answers={PRODUCE.key: answer}), tmp_path)
    assert ended.code == 1
    assert "1 line rejected" in ended.err
    assert ("error: " in ended.err) is ends


# --- the embedded broker ---------------------------------------------------------------


def test_produce_restarts_its_broker_and_loses_no_record(tmp_path: Path) -> None:
    with started(tmp_path, "produce", "t") as producer:
        write_lines(producer, b"1\n2\n")
        read_until(producer, b"created topic")
        assert len(run(tmp_path, "consume", "t", "-B", "-n", "2").lines) == 2
        os.kill(broker_of(tmp_path), signal.SIGKILL)
        read_until(producer, b"the embedded broker runs again")
        write_lines(producer, b"3\n4\n")
        _, err = producer.communicate(timeout=WAIT_S)
    assert producer.returncode == 0, err
    stored = run(tmp_path, "consume", "t", "-B", "-d").lines
    assert sorted(set(stored)) == [b"1", b"2", b"3", b"4"]


def test_consume_restarts_its_broker_and_resumes(tmp_path: Path) -> None:
    run(tmp_path, "produce", "t", given=b"1\n")
    with started(tmp_path, "consume", "t", "-B") as consumer:
        assert read_line(consumer) == b"1\n"
        os.kill(broker_of(tmp_path), signal.SIGKILL)
        read_until(consumer, b"the embedded broker runs again")
        run(tmp_path, "produce", "t", given=b"2\n")
        assert read_line(consumer) == b"2\n"


# --- signals ---------------------------------------------------------------------------


@pytest.mark.parametrize("command", [("produce", "t"), ("consume", "t")])
def test_a_background_command_of_a_script_ignores_ctrl_c_and_ends_on_sigterm(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    run(tmp_path, "topic", "create", "t")
    with subprocess.Popen(
        [*COMMAND, *command],
        cwd=tmp_path,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=ignoring(signal.SIGINT),
    ) as process:
        try:
            if command[0] == "produce":
                write_lines(process, b"1\n")
                assert run(tmp_path, "consume", "t", "-B", "-n", "1").lines == [b"1"]
            else:
                read_until(process, b"waiting for new records")
            caught = Path(f"/proc/{process.pid}/status").read_text()
            ignored = int(caught.partition("SigIgn:")[2].split()[0], 16)
            assert ignored >> (signal.SIGINT - 1) & 1
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=WAIT_S)
        finally:
            process.kill()
    assert process.returncode == (128 + signal.SIGTERM if command[0] == "produce" else 0)


def ignoring(number: int) -> Callable[[], object]:
    return lambda: signal.signal(number, signal.SIG_IGN)


# --- retention -------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--retention-time", "--max-partition-size"])
def test_retention_limits_are_refused_on_the_embedded_broker(tmp_path: Path, option: str) -> None:
    ended = run(tmp_path, "topic", "create", "t", option, "7" if "time" in option else "10GiB")
    assert ended.code == 2
    assert f"{option}: the embedded broker does not remove old records" in ended.err
    assert list(tmp_path.iterdir()) == []


def test_a_topic_file_with_retention_limits_is_refused_on_the_embedded_broker(
    tmp_path: Path,
) -> None:
    topic = tmp_path / "t.json"
    topic.write_text('{"meta": {"name": "t"}, "retention": {"time": "7days"}}')
    ended = run(tmp_path, "topic", "create", "--config", "t.json")
    assert ended.code == 2
    assert "retention.time: the embedded broker does not remove old records" in ended.err
    topic.write_text('{"meta": {"name": "t"}, "retention": {"segment-size": "1MiB"}}')
    assert run(tmp_path, "topic", "create", "--config", "t.json").code == 0


def test_retention_limits_are_accepted_on_a_cluster(on_cluster: Run) -> None:
    limits = ("--retention-time", "7days", "--max-partition-size", "10GiB")
    assert on_cluster("topic", "create", "kept", *limits).code == 0
