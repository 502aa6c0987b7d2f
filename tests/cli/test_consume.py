from __future__ import annotations

import json
import signal
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import click
import pytest

from streamkit.cli.consume_run import ConsumeOptions
from streamkit.cli.time_option import TIME
from streamkit.client import SmartModule
from streamkit.protocol.apis import STREAM_FETCH
from tests.broker.running import batch_of
from tests.cli.conftest import Run
from tests.cli.processes import (
    COMMAND,
    WAIT_S,
    Ended,
    broker,
    environment,
    read_until,
    run,
    started,
)
from tests.client.stock_cluster import TOPIC, StockSpu, stock_cluster

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
def test_start_and_end_options_select_records(
    on_cluster: Run, ten: str, options: str, numbers: range
) -> None:
    ended = on_cluster("consume", ten, *options.split())
    assert ended.code == 0
    assert [int(line) for line in ended.lines] == list(numbers)


def test_every_partition_is_read_unless_some_are_selected(on_cluster: Run) -> None:
    on_cluster("topic", "create", "wide", "-p", "3")
    on_cluster("produce", "wide", given=b"".join(b"%d\n" % number for number in range(9)))
    assert len(on_cluster("consume", "wide", "-B", "-d", "-A").lines) == 9
    some = on_cluster("consume", "wide", "-B", "-d", "-p", "0", "-p", "2", "-O", "json")
    assert {json.loads(line)["partition"] for line in some.lines} == {0, 2}
    ended = on_cluster("consume", "wide", "-B", "--end", "1")
    assert len(ended.lines) == 6


def test_consume_stops_if_the_end_option_is_the_last_offset_of_the_topic(
    on_cluster: Run, ten: str
) -> None:
    ended = on_cluster("consume", ten, "-B", "--end", "9")
    assert (ended.code, ended.out) == (0, TEN)


def test_without_a_start_consume_waits_and_suggests_how_to_read_stored_records(
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


def test_a_named_consumer_resumes_where_it_stopped(on_cluster: Run, ten: str) -> None:
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


def test_ctrl_c_stores_the_offset_of_the_last_printed_record(
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
def test_a_closed_pipe_ends_consume_with_exit_code_0(
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


def test_a_closed_pipe_ends_consume_even_while_no_records_arrive(
    cluster: str, ten: str, tmp_path: Path
) -> None:
    with started(tmp_path, "--cluster", cluster, "consume", ten) as process:
        read_until(process, b"-B reads from the beginning\n")
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(WAIT_S) == 0


def test_an_offset_after_the_end_is_an_error(on_cluster: Run, ten: str) -> None:
    ended = on_cluster("consume", ten, "--start", "99", "-n", "1")
    assert ended.code == 1
    assert ended.err.startswith("error: ")


def test_a_command_that_waits_for_records_retries_when_the_broker_stops(tmp_path: Path) -> None:
    with ExitStack() as stack:
        with broker(tmp_path) as address:
            run(tmp_path, "produce", "words", given=b"word\n")
            process = stack.enter_context(
                started(tmp_path, "--cluster", address, "consume", "words", "-T", "1")
            )
            assert process.stdout is not None
            assert process.stdout.readline() == b"word\n"
        read_until(process, b"retrying: ")
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 0


# --- Times ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def years(cluster: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A topic with a partition for 2024 and one for 2025, and a record for each month."""
    folder = tmp_path_factory.mktemp("years")
    run(folder, "--cluster", cluster, "topic", "create", "years", "-p", "2")
    for partition, year in enumerate((2024, 2025)):
        lines = [
            json.dumps({"value": f"{year}-{month}", "timestamp": f"{year}-{month:02}-01T00:00:00Z"})
            for month in range(1, 13)
        ]
        given = "".join(f"{line}\n" for line in lines).encode()
        options = ("--input", "json", "-p", str(partition))
        run(folder, "--cluster", cluster, "produce", "years", *options, given=given)
    return "years"


@pytest.mark.parametrize(
    ("options", "months"),
    [
        ("--since 2025-11-15 -d", ["2025-12"]),
        ("--since 2024-12-01 -d -p 0", ["2024-12"]),
        ("--since 2024-12-01T00:00:00.001Z -d -p 0", []),
        ("-B --until 2024-02-01", ["2024-1", "2024-2"]),
        ("--since 2024-03-01 --until 2024-04-30T23:00:00-05:00", ["2024-3", "2024-4", "2024-5"]),
        ("--since 2024-12-15 --until 2025-01-15T00:00", ["2025-1"]),
        ("--since 2024-12-15 --until 1s -n 2", ["2025-1", "2025-2"]),
    ],
)
def test_time_options_select_records(
    on_cluster: Run, years: str, options: str, months: list[str]
) -> None:
    ended = on_cluster("consume", years, *options.split())
    assert (ended.code, ended.err) == (0, "")
    found = [line.decode() for line in ended.lines]
    assert sorted(found) == sorted(months)


@pytest.mark.parametrize(
    ("until", "stops"), [(None, False), (timedelta(hours=-1), True), (timedelta(hours=1), False)]
)
def test_consume_stops_at_the_end_if_the_time_limit_is_in_the_past(
    until: timedelta | None, stops: bool
) -> None:
    moment = None if until is None else datetime.now(UTC) + until
    options = ConsumeOptions(
        "t",
        beginning=True,
        head=None,
        tail=None,
        start=None,
        since=None,
        end=None,
        until=moment,
        disable_continuous=False,
        count=None,
        partitions=(),
        consumer=None,
        key_value=False,
        template=None,
        output=None,
        suppress_unknown=False,
        truncate=False,
        maxbytes=1,
        isolation="read_committed",
        smartmodules=(),
    )
    assert options.stops_at_the_end == stops


def test_a_time_limit_in_the_future_ends_consume_when_it_is_reached(
    on_cluster: Run, ten: str
) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=1)
    ended = on_cluster("consume", ten, "-B", "--until", soon.isoformat())
    assert (ended.code, len(ended.lines)) == (0, 10)
    assert datetime.now(UTC) > soon


def test_a_named_consumer_stores_its_offset_at_a_time_limit(on_cluster: Run, years: str) -> None:
    once = ("consume", years, "-p", "0", "-B", "-c", "dated")
    assert len(on_cluster(*once, "--until", "2024-02-01").lines) == 2
    assert len(on_cluster(*once, "-d").lines) == 10
    on_cluster("consumer", "delete", "dated")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--since yesterday", "is not a valid time"),
        ("--since 1714567890", "is not a valid time"),
        ("--until 2024-13-01", "is not a valid time"),
        ("--since 2h -B", "--beginning and --since contradict each other"),
        ("--since 1h --until 2h", "is before --since"),
        ("--until 1h --smartmodule m", "has no timestamps"),
        ("-O table -k", "contradict each other"),
        ("--table-format wide", "are not supported"),
        ("-m home", "mirrored topics are not supported"),
        ("-e a=b", "--params needs --smartmodule"),
        ("--smartmodule a --transforms-line {}", "each select SmartModules"),
        ("--smartmodule a -e b", "'b' is not key=value"),
        ("--smartmodule a -e b=1 -e b=2", "sets 'b' twice"),
        ("--smartmodule-path absent.wasm", "absent.wasm: No such file"),
        ("--transforms absent.yaml", "absent.yaml"),
        ("--isolation dirty", "is not one of read_committed, read_uncommitted"),
    ],
)
def test_invalid_options_are_refused_before_anything_starts(
    tmp_path: Path, options: str, words: str
) -> None:
    ended = run(tmp_path, "consume", "any", *options.split())
    assert ended.code == 2
    assert words in ended.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-05-01", datetime(2024, 5, 1, tzinfo=UTC)),
        ("2024-05-01T12:30:00.250Z", datetime(2024, 5, 1, 12, 30, 0, 250_000, tzinfo=UTC)),
        ("2024-05-01 12:30", datetime(2024, 5, 1, 12, 30, tzinfo=UTC)),
        ("2024-05-01T02:00:00+02:00", datetime(2024, 5, 1, tzinfo=UTC)),
    ],
)
def test_a_time_without_a_zone_is_utc(text: str, moment: datetime) -> None:
    assert TIME.convert(text, None, None) == moment


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("2h", 7_200), ("1h 30m", 5_400), ("2 days", 172_800)]
)
def test_an_age_is_counted_back_from_now(text: str, seconds: int) -> None:
    ago = datetime.now(UTC) - TIME.convert(text, None, None)
    assert abs(ago - timedelta(seconds=seconds)) < timedelta(seconds=5)


@pytest.mark.parametrize(
    "text", ["", "5", "1714567890000", "soon", "1969-01-01", "90 years", "-2h"]
)
def test_an_invalid_time_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a valid time"):
        TIME.convert(text, None, None)


# --- SmartModules --------------------------------------------------------------------------

FRUIT = batch_of(b"apple", b"kiwi", b"banana") + batch_of(b"grape", base_offset=3)


def containing_a(value: bytes, key: bytes | None) -> list[tuple[bytes, bytes | None]]:
    return [(value, key)] if b"a" in value else []


async def consume_there(spu: StockSpu, folder: Path, *options: str) -> Ended:
    async with stock_cluster(spu) as address:
        with anyio.fail_after(WAIT_S):
            done = await anyio.run_process(
                [*COMMAND, "--cluster", address, "consume", TOPIC, *options],
                cwd=folder,
                env=environment(),
                check=False,
            )
    return Ended(done.returncode, done.stdout, done.stderr.decode())


async def test_a_smartmodule_filters_the_printed_records(tmp_path: Path) -> None:
    spu = StockSpu(FRUIT, containing_a)
    options = ("--smartmodule", "contains", "-e", "key=a", "-e", "b==", "--aggregate-initial", "0")
    ended = await consume_there(spu, tmp_path, "-B", "-d", "-F", "{{offset}} {{value}}", *options)
    assert (ended.code, ended.err) == (0, "")
    assert ended.lines == [b"0 apple", b"2 banana", b"3 grape"]
    step = SmartModule("contains", params={"key": "a", "b": "="}, initial="0")
    assert spu.bodies(STREAM_FETCH.key)[0].smartmodules == (step.invocation(),)


@pytest.mark.parametrize(
    ("count", "stored"), [(4, {"me": 1}), (3, {"me": 0}), (2, {"me": 0}), (1, {})]
)
async def test_a_record_is_not_processed_before_its_last_row_is_printed(
    tmp_path: Path, count: int, stored: dict[str, int]
) -> None:
    """The SmartModule turns each record into two rows with the same offset."""
    log = b"".join(batch_of(value, base_offset=at) for at, value in enumerate((b"a", b"b", b"c")))
    spu = StockSpu(log, lambda value, key: [(value, key), (value.upper(), key)])
    options = ("--consumer", "me", "--smartmodule", "twice", "-n", str(count))
    ended = await consume_there(spu, tmp_path, "-B", *options)
    assert ended.lines == [b"a", b"A", b"b", b"B"][:count]
    assert spu.stored == stored


async def test_a_chain_is_read_from_a_file_or_from_options(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text("transforms: [{uses: a, with: {k: v}}, {uses: b}]")
    lines = ('{"uses": "a", "with": {"k": "v"}}', '{"uses": "b"}')
    chain = (SmartModule("a", params={"k": "v"}).invocation(), SmartModule("b").invocation())
    for options in (
        ("-t", str(path)),
        ("--transforms-line", lines[0], "--transforms-line", lines[1]),
    ):
        spu = StockSpu(FRUIT, containing_a)
        ended = await consume_there(spu, tmp_path, "-B", "-d", *options)
        assert ended.lines == [b"apple", b"banana", b"grape"]
        assert spu.bodies(STREAM_FETCH.key)[0].smartmodules == chain


async def test_nothing_is_printed_if_a_smartmodule_drops_every_record(tmp_path: Path) -> None:
    spu = StockSpu(FRUIT, lambda value, key: [])
    ended = await consume_there(spu, tmp_path, "-B", "-d", "--smartmodule", "none")
    assert (ended.code, ended.out, ended.err) == (0, b"", "")


def test_a_smartmodule_on_the_embedded_broker_is_an_error(on_cluster: Run, ten: str) -> None:
    ended = on_cluster("consume", ten, "-B", "-d", "--smartmodule", "any")
    assert ended.code == 1
    assert "does not run SmartModules" in ended.err
