from __future__ import annotations

import fcntl
import gzip
import json
import os
import pty
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from streamkit.client import SmartModule
from streamkit.protocol.apis import PRODUCE
from streamkit.protocol.connection import IncomingRequest
from streamkit.protocol.data_plane import (
    ACKS_ALL,
    PartitionProduceResponse,
    ProduceResponse,
    TopicProduceResponse,
)
from streamkit.protocol.error_codes import NO_ERROR, Code, ErrorCode
from tests.cli.conftest import Run
from tests.cli.processes import (
    COMMAND,
    WAIT_S,
    Ended,
    environment,
    read_until,
    run,
    started,
)
from tests.client.stock_cluster import TOPIC, StockSpu, stock_cluster

MANY = 100_000
PAGE_BYTES = 4_096


def read(on_cluster: Run, topic: str, *options: str) -> bytes:
    return on_cluster("consume", topic, "-B", "-d", *options).out


def test_a_hundred_thousand_lines_from_a_pipe_are_stored_unchanged(on_cluster: Run) -> None:
    lines = b"".join(b'{"number":%d}\n' % number for number in range(MANY))
    produced = on_cluster("produce", "many", "--create-topics", given=lines)
    assert produced.code == 0
    assert "100,000 records produced to many in " in produced.err
    assert read(on_cluster, "many") == lines


def test_the_last_line_needs_no_line_end_and_an_empty_line_is_a_record(on_cluster: Run) -> None:
    on_cluster("topic", "create", "ends")
    assert on_cluster("produce", "ends", given=b"a\r\n\nb").code == 0
    assert read(on_cluster, "ends") == b"a\n\nb\n"


def test_empty_input_produces_no_record(on_cluster: Run) -> None:
    produced = on_cluster("produce", "nothing", "--create-topics")
    assert produced.code == 0
    assert "0 records produced to nothing" in produced.err


def test_files_are_read_in_order_and_decompressed(on_cluster: Run, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"1\n2")
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"3\n4\n"))
    produced = on_cluster(
        "produce", "files", "--create-topics", "-f", "a.txt", "-f", "b.txt.gz", given=b"ignored"
    )
    assert produced.code == 0
    assert read(on_cluster, "files") == b"1\n2\n3\n4\n"


def test_lines_before_a_damaged_part_of_a_file_are_stored_and_counted(
    on_cluster: Run, tmp_path: Path
) -> None:
    lines = b"".join(b"%d\n" % number for number in range(300_000))
    (tmp_path / "cut.gz").write_bytes(gzip.compress(lines)[:-2_000])
    produced = on_cluster("produce", "damaged", "--create-topics", "-f", "cut.gz")
    assert produced.code == 1
    count, error = produced.err.splitlines()[-2:]
    assert error.startswith("error: cannot read cut.gz: ")
    stored = len(read(on_cluster, "damaged").splitlines())
    assert stored > 1_000
    assert count.startswith(f"{stored:,} records produced to damaged in ")


def test_rejected_lines_are_reported_and_the_others_are_stored(on_cluster: Run) -> None:
    on_cluster("topic", "create", "pairs")
    produced = on_cluster(
        "produce", "pairs", "--key-separator", "=", given=b"a=1\nnone\nb=2=3\nneither\n"
    )
    assert produced.code == 1
    reported = produced.err.splitlines()
    assert reported[0] == "rejected standard input line 2: no separator '='"
    assert reported[1] == "rejected standard input line 4: no separator '='"
    assert reported[2].startswith("2 records produced to pairs in ")
    assert reported[2].endswith("; 2 lines rejected")
    assert read(on_cluster, "pairs", "-k") == b"[a] 1\n[b] 2=3\n"


def test_only_the_first_hundred_rejected_lines_are_reported(on_cluster: Run) -> None:
    on_cluster("topic", "create", "mostly-wrong")
    produced = on_cluster("produce", "mostly-wrong", "--key-separator", "=", given=b"x\n" * 1_000)
    assert produced.err.count("rejected standard input line") == 100
    assert "... and 900 more lines rejected" in produced.err


def test_a_line_larger_than_a_request_is_rejected_and_the_others_are_stored(
    on_cluster: Run,
) -> None:
    on_cluster("topic", "create", "large")
    lines = b"small\n" + b"x" * 3_000_000 + b"\n" + b"y" * 5_000 + b"\nlast\n"
    produced = on_cluster("produce", "large", "--max-request-size", "4KiB", given=lines)
    assert produced.code == 1
    assert "rejected standard input line 2: larger than --max-request-size (4,096" in produced.err
    assert "rejected standard input line 3: " in produced.err
    assert read(on_cluster, "large") == b"small\nlast\n"


def test_a_raw_input_is_stored_unchanged_as_one_record(on_cluster: Run, tmp_path: Path) -> None:
    value = bytes(range(256)) * 10 + b"\r\n\n"
    (tmp_path / "blob.gz").write_bytes(value)
    on_cluster("topic", "create", "blobs")
    assert on_cluster("produce", "blobs", "--raw", "--key", "k", given=value).code == 0
    assert on_cluster("produce", "blobs", "--raw", "-f", "blob.gz").code == 0
    assert read(on_cluster, "blobs", "-O", "raw") == (value + b"\n") * 2


def test_keys_come_from_an_option_or_from_a_field(on_cluster: Run) -> None:
    on_cluster("topic", "create", "keyed")
    on_cluster("produce", "keyed", "--key", "all", given=b"1\n")
    wrong = on_cluster("produce", "keyed", "--key-field", "c", given=b'{"c":"UA"}\n{"d":1}\n')
    assert wrong.code == 1
    assert "line 2: no field 'c'" in wrong.err
    assert read(on_cluster, "keyed", "-k") == b'[all] 1\n[UA] {"c":"UA"}\n'


def test_json_that_consume_prints_can_be_produced_again(on_cluster: Run) -> None:
    on_cluster("topic", "create", "first")
    on_cluster("topic", "create", "second")
    lines: list[dict[str, Any]] = [
        {"key": "k", "value": {"a": 1}, "timestamp": "2013-01-01T05:00:00.123Z"},
        {"key": None, "value": "text", "timestamp": "2013-01-01T05:00:01.000Z"},
        {"key": "", "value": "/w==", "timestamp": None, "value_encoding": "base64"},
    ]
    given = "\n".join(map(json.dumps, lines)).encode()
    assert on_cluster("produce", "first", "--input", "json", given=given).code == 0
    printed = read(on_cluster, "first", "-O", "json")
    assert on_cluster("produce", "second", "--input", "json", given=printed).code == 0
    assert read(on_cluster, "second", "-O", "json") == printed
    shown = [json.loads(line) for line in printed.splitlines()]
    assert [each["timestamp"] for each in shown[:2]] == [each["timestamp"] for each in lines[:2]]
    assert [each["key"] for each in shown] == ["k", None, ""]


def test_partition_and_offset_of_stored_records_can_be_printed(on_cluster: Run) -> None:
    on_cluster("topic", "create", "placed", "-p", "2")
    produced = on_cluster("produce", "placed", "-p", "1", "--print-metadata", given=b"a\nb\n")
    assert produced.lines == [b"partition=1 offset=0", b"partition=1 offset=1"]


def test_batches_are_compressed_as_the_topic_requires(on_cluster: Run) -> None:
    on_cluster("topic", "create", "packed", "--compression-type", "lz4")
    assert on_cluster("produce", "packed", given=b"a\n" * 1_000).code == 0
    other = on_cluster("produce", "packed", "--compression", "zstd", given=b"a\n")
    assert other.code == 2
    assert "topic 'packed' requires lz4 compression, but the producer is set to zstd" in other.err


def test_a_missing_topic_is_created_on_a_cluster_only_with_the_option(on_cluster: Run) -> None:
    refused = on_cluster("produce", "fresh", given=b"x\n")
    assert refused.code == 1
    assert "`streamkit topic create fresh`" in refused.err
    assert "--create-topics" in refused.err
    created = on_cluster("produce", "fresh", "--create-topics", given=b"x\n")
    assert created.code == 0
    assert "created topic 'fresh'" in created.err


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_ctrl_c_loses_no_line_that_was_read(cluster: str, on_cluster: Run, tmp_path: Path) -> None:
    on_cluster("topic", "create", "stopped")
    with started(
        tmp_path, "--cluster", cluster, "produce", "stopped", "--linger", "1h", "--print-metadata"
    ) as producer:
        write_and_wait(producer, b"a\nb\n" * 10_000 + b"half")
        producer.send_signal(signal.SIGINT)
        _, err = producer.communicate(timeout=WAIT_S)
    assert producer.returncode == 130
    assert b"stopped: 20,001 records produced to stopped" in err
    assert len(read(on_cluster, "stopped").splitlines()) == 20_001


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_ctrl_c_drops_a_raw_record_that_is_not_complete(
    cluster: str, on_cluster: Run, tmp_path: Path
) -> None:
    on_cluster("topic", "create", "halves")
    with started(tmp_path, "--cluster", cluster, "produce", "halves", "--raw") as producer:
        write_and_wait(producer, b"half of a file")
        producer.send_signal(signal.SIGINT)
        _, err = producer.communicate(timeout=WAIT_S)
    assert producer.returncode == 130
    assert b"0 records produced to halves" in err
    assert read(on_cluster, "halves") == b""


def write_and_wait(process: subprocess.Popen[bytes], data: bytes) -> None:
    """Write to the standard input of a process, and wait until it has read everything."""
    assert process.stdin is not None
    fcntl.fcntl(process.stdin, fcntl.F_SETPIPE_SZ, PAGE_BYTES)
    process.stdin.write(data)
    process.stdin.flush()
    # A pipe of one page is writable again when it is empty.
    assert select.select([], [process.stdin], [], WAIT_S)[1]


def test_each_line_typed_at_a_terminal_is_confirmed(
    cluster: str, on_cluster: Run, tmp_path: Path
) -> None:
    on_cluster("topic", "create", "typed")
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, "--cluster", cluster, "produce", "typed"],
        cwd=tmp_path,
        stdin=theirs,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment(),
    ) as process:
        os.close(theirs)
        read_until(process, b"> ")
        os.write(ours, b"hello\n")
        read_until(process, b"Ok!\n> ")
        os.write(ours, b"\x04")
        _, err = process.communicate(timeout=WAIT_S)
    os.close(ours)
    assert process.returncode == 0
    assert b"1 record produced to typed" in err
    assert read(on_cluster, "typed") == b"hello\n"


def test_all_lines_are_stored_even_if_the_output_pipe_is_closed(
    cluster: str, on_cluster: Run, tmp_path: Path
) -> None:
    on_cluster("topic", "create", "unread")
    with started(
        tmp_path, "--cluster", cluster, "produce", "unread", "--print-metadata"
    ) as producer:
        assert producer.stdout is not None
        producer.stdout.close()
        assert producer.stdin is not None
        for _ in range(4):
            producer.stdin.write(b"line\n" * 50_000)
        producer.stdin.close()
        assert producer.wait(WAIT_S) == 0
        assert producer.stderr is not None
        assert b"200,000 records produced" in producer.stderr.read()


def test_keys_and_values_of_stored_records_can_be_printed(on_cluster: Run) -> None:
    on_cluster("topic", "create", "shown", "-p", "2")
    options = ("--key-separator", "=", "-v", "--print-metadata", "-p", "1")
    produced = on_cluster("produce", "shown", *options, given=b"a=1\n=\xff\n")
    assert produced.code == 0
    assert produced.lines == [
        b"[a] 1",
        b"[] \xff",
        b"partition=1 offset=0",
        b"partition=1 offset=1",
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("-v", "--verbose prints keys"),
        ("-m home", "mirrored topics are not supported"),
        ("--delivery-semantic exactly-once", "is not one of at-least-once, at-most-once"),
        ("--isolation dirty", "is not one of read_committed, read_uncommitted"),
        ("-e a=b", "--params needs --smartmodule"),
        ("--aggregate-initial 0 --transforms t.yaml", "under `with`"),
        ("--smartmodule a --smartmodule-path b", "each select SmartModules"),
        ("--transforms-line {", "step 1 is not valid JSON"),
    ],
)
def test_invalid_options_are_refused_before_anything_is_read(
    tmp_path: Path, options: str, words: str
) -> None:
    ended = run(tmp_path, "produce", "any", *options.split())
    assert ended.code == 2
    assert words in ended.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("isolation", ["read_committed", "ReadCommitted", "readcommitted"])
@pytest.mark.parametrize("delivery", ["at_most_once", "atMostOnce", "at-most-once"])
async def test_choices_are_accepted_in_every_spelling_of_fluvios_tools(
    tmp_path: Path, isolation: str, delivery: str
) -> None:
    spu = await produced_there(tmp_path, "--isolation", isolation, "--delivery-semantic", delivery)
    assert [body.acks for body in spu.bodies(PRODUCE.key)] == [ACKS_ALL]


async def test_at_most_once_does_not_retry(tmp_path: Path) -> None:
    """While a partition moves, the server refuses records. Only at-least-once sends them again."""
    codes = [ErrorCode(Code.NOT_LEADER_FOR_PARTITION)]

    def answer(request: IncomingRequest) -> ProduceResponse:
        entry = PartitionProduceResponse(0, codes.pop() if codes else NO_ERROR, 5)
        return ProduceResponse((TopicProduceResponse(TOPIC, (entry,)),))

    options = ("--delivery-semantic", "at-most-once")
    without_retry = StockSpu(answers={PRODUCE.key: answer})
    ended = await produce_there(without_retry, tmp_path, *options)
    assert (ended.code, len(without_retry.bodies(PRODUCE.key))) == (1, 1)
    assert "1 line rejected" in ended.err

    codes.append(ErrorCode(Code.NOT_LEADER_FOR_PARTITION))
    with_retry = StockSpu(answers={PRODUCE.key: answer})
    ended = await produce_there(with_retry, tmp_path)
    assert (ended.code, len(with_retry.bodies(PRODUCE.key))) == (0, 2)


async def produce_there(spu: StockSpu, folder: Path, *options: str) -> Ended:
    async with stock_cluster(spu) as address:
        with anyio.fail_after(WAIT_S):
            done = await anyio.run_process(
                [*COMMAND, "--cluster", address, "produce", TOPIC, *options],
                cwd=folder,
                env=environment(),
                input=b"pear\n",
                check=False,
            )
    return Ended(done.returncode, done.stdout, done.stderr.decode())


async def produced_there(folder: Path, *options: str) -> StockSpu:
    """Produce one line on a cluster that stores everything, and check the output."""
    answer = PartitionProduceResponse(0, base_offset=5)
    response = ProduceResponse((TopicProduceResponse(TOPIC, (answer,)),))
    spu = StockSpu(answers={PRODUCE.key: lambda request: response})
    ended = await produce_there(spu, folder, "--print-metadata", *options)
    assert (ended.code, "1 record produced" in ended.err) == (0, True)
    offset = b"unknown" if "--smartmodule" in options else b"5"
    assert ended.out == b"partition=0 offset=%b\n" % offset
    return spu


async def test_a_smartmodule_is_sent_with_the_records(tmp_path: Path) -> None:
    spu = await produced_there(tmp_path, "--smartmodule", "contains", "-e", "key=a")
    (request,) = spu.bodies(PRODUCE.key)
    step = SmartModule("contains", params={"key": "a"})
    assert request.smartmodules == (step.invocation(),)


def test_lines_with_a_smartmodule_are_refused_on_the_embedded_broker(on_cluster: Run) -> None:
    produced = on_cluster(
        "produce", "plain", "--create-topics", "--smartmodule", "any", given=b"a\nb\n"
    )
    assert produced.code == 1
    assert "does not run SmartModules" in produced.err
    assert read(on_cluster, "plain") == b""
