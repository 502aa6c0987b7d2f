"""The rules of a correct job, each with cases that have failed for users before."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import pytest

from streamkit import App, Topic
from streamkit.connectors.files import JsonLines
from streamkit.errors import RowError, StreamKitError, UsageError
from streamkit.record import Chunk
from streamkit.run import RunOptions
from streamkit.runtime.shutdown import EXIT_CLEAN, EXIT_FAILED, EXIT_LATE
from streamkit.sync import Client
from tests.hostile.graphs import COUNT, TOPIC
from tests.hostile.running import DEADLINE_S, Outcome, Place

NUMBERS = list(range(COUNT))
ONCE = RunOptions(once=True, create_topics=True, commit_interval_s=0.05, stop_deadline_s=DEADLINE_S)
_names = itertools.count()


def new_app() -> App:
    return App(f"rules-{next(_names)}")


def run(place: Place, app: App, options: RunOptions = ONCE) -> Outcome:
    prepared, reports = place.run(app, options=options)
    return place.finish(prepared, reports)


def stopped_run(place: Place, app: App, stop: list[Callable[[], None]]) -> Outcome:
    """Run an app without --once; a call of ``stop[0]`` stops it in order."""
    prepared, reports = place.run(app, options=replace(ONCE, once=False))
    stop.append(lambda: prepared.signal_from_anywhere(15))
    return place.finish(prepared, reports)


# --- a stop loses no accepted records ---------------------------------------------------


class Buffered:
    """A sink that buffers rows until its flush, which takes a while."""

    def __init__(self, on_flush: Callable[[], None] = lambda: None) -> None:
        self.rows: list[int] = []
        self.inserted: list[int] = []
        self.on_flush = on_flush
        self.depth = 0
        self.overlapped = False

    def open(self) -> None: ...

    async def write(self, rows: list[int]) -> None:
        await self._wait_alone()
        self.rows.extend(rows)

    async def flush(self) -> None:
        rows, self.rows = self.rows, []
        self.on_flush()
        await self._wait_alone()
        self.inserted.extend(rows)

    async def close(self) -> None:
        await self._wait_alone()

    async def _wait_alone(self) -> None:
        self.depth += 1
        self.overlapped = self.overlapped or self.depth > 1
        await anyio.sleep(0.02)
        self.depth -= 1


def test_a_stop_waits_for_a_running_flush(place: Place) -> None:
    app, stop = new_app(), list[Callable[[], None]]()
    table = Buffered(on_flush=lambda: stop.pop()() if stop else None)
    app.stream(TOPIC, int).to(table, name="table")
    assert stopped_run(place, app, stop).code == EXIT_CLEAN
    assert run(place, app).code == EXIT_CLEAN
    assert table.inserted == NUMBERS
    assert not table.overlapped


def test_a_flush_never_overlaps_with_a_write(place: Place) -> None:
    class ClearedLate(Buffered):
        async def flush(self) -> None:
            rows = list(self.rows)
            await self._wait_alone()
            self.inserted.extend(rows)
            self.rows.clear()

    app, table = new_app(), ClearedLate()

    def ticks(resume: int | None) -> Iterator[tuple[int, int]]:
        for number in range(200):
            time.sleep(0.002)
            yield number, number

    app.source(ticks).to(table, name="table")
    assert run(place, app).code == EXIT_CLEAN
    assert table.inserted == list(range(200))
    assert not table.overlapped


def test_a_failed_flush_is_reported_even_if_the_job_stops(place: Place, tmp_path: Path) -> None:
    app, stop = new_app(), list[Callable[[], None]]()

    class Refusing(Buffered):
        async def flush(self) -> None:
            if self.rows:
                stop[0]()
                raise OSError("the table is full")

    app.stream(TOPIC, int).to(Refusing(), name="table")
    app.stream(TOPIC, int, name="again").to(
        Buffered(on_flush=lambda: time.sleep(0.05)), name="slow"
    )
    outcome = stopped_run(place, app, stop)
    assert outcome.code == EXIT_FAILED
    assert "the table is full" in outcome.error
    assert outcome.reports.end is not None
    assert outcome.reports.end.commits == 0


def test_a_job_that_ends_before_the_commit_interval_flushes_once(place: Place) -> None:
    flushes: list[str] = []
    app, table = new_app(), Buffered(on_flush=lambda: flushes.append("flush"))
    app.stream(TOPIC, int).to(table, name="table")
    outcome = run(place, app, replace(ONCE, commit_interval_s=60.0))
    assert outcome.reports.end is not None
    assert (outcome.reports.end.commits, flushes) == (1, ["flush"])
    assert table.inserted == NUMBERS


def test_records_of_a_failed_flush_are_read_again(place: Place) -> None:
    class FailingOnce(Buffered):
        has_failed = False

        async def flush(self) -> None:
            if self.rows and not self.has_failed:
                self.has_failed = True
                self.rows.clear()
                raise OSError("the table is full")
            await super().flush()

    app, table = new_app(), FailingOnce()
    app.stream(TOPIC, int).to(table, name="table")
    # Without --once the job continues, so a commit at the interval gets the error.
    assert stopped_run(place, app, []).code == EXIT_FAILED
    assert run(place, app).code == EXIT_CLEAN
    assert table.inserted == NUMBERS


@pytest.mark.parametrize("kind", ["coroutine", "task", "pool", "async object"])
def test_awaitable_results_of_a_sink_are_awaited(place: Place, kind: str) -> None:
    app = new_app()
    done: list[int] = []
    pool = ThreadPoolExecutor(1)

    async def post(value: int) -> None:
        await anyio.sleep(0.001)
        done.append(value)

    class Poster:
        async def __call__(self, value: int) -> None:
            await post(value)

    def append_slowly(value: int) -> None:
        time.sleep(0.002)
        done.append(value)

    def in_pool(value: int) -> Any:
        return pool.submit(append_slowly, value)

    sinks: dict[str, Callable[[int], Any]] = {
        "coroutine": lambda value: post(value),
        "task": lambda value: asyncio.ensure_future(post(value)),
        "pool": in_pool,
        "async object": Poster(),
    }
    app.sink(app.stream(TOPIC, int), name="posts")(sinks[kind])
    with pool:
        outcome = run(place, app)
        written = list(done)
    assert outcome.code == EXIT_CLEAN
    assert written == NUMBERS


@pytest.mark.parametrize("result", [lambda rows: map(print, rows), lambda rows: (r for r in rows)])
def test_a_sink_that_returns_an_iterator_is_refused(
    place: Place, result: Callable[[list[int]], Any]
) -> None:
    app = new_app()
    app.sink(app.stream(TOPIC, int), batch=10, name="lazy")(result)
    outcome = run(place, app)
    assert outcome.code == EXIT_FAILED
    assert "would never run" in outcome.error


def test_a_stage_that_returns_a_coroutine_for_a_later_record_fails(place: Place) -> None:
    app = new_app()

    async def save(number: int) -> None: ...

    def maybe(number: int) -> Any:
        return save(number) if number == 5 else None

    app.sink(app.stream(TOPIC, int).map(maybe, name="maybe"), name="ignores")(lambda value: None)
    outcome = run(place, app)
    assert outcome.code == EXIT_FAILED
    assert "'ignores' failed on numbers-0 offset 5: " in outcome.error
    assert "never awaited" in outcome.error
    assert outcome.counts("ignores").taken == 5


def test_a_format_that_returns_a_coroutine_for_a_later_record_fails(place: Place) -> None:
    app = new_app()

    async def load(number: int) -> None: ...

    class Lazy:
        def loads(self, data: bytes) -> Any:
            return load(5) if data == b"5" else int(data)

        def dumps(self, value: Any) -> bytes:
            return b"%d" % value

    numbers: Any = app.stream(TOPIC, int, value=Lazy())
    app.sink(numbers, name="ignores")(lambda value: None)
    outcome = run(place, app)
    assert outcome.code == EXIT_FAILED
    assert "never awaited" in outcome.error
    assert outcome.counts("ignores").taken == 5


def test_an_async_source_that_awaits_a_cancelled_task_fails(place: Place) -> None:
    app = new_app()

    async def numbers() -> AsyncIterator[int]:
        yield 1
        task = asyncio.ensure_future(anyio.sleep(60))
        task.cancel()
        await task
        yield 2

    app.source(numbers).to("out-" + app.name)
    outcome = run(place, app)
    assert outcome.code == EXIT_FAILED
    assert "CancelledError" in outcome.error
    assert place.values(f"out-{app.name}") == [1]


@pytest.mark.parametrize("call", ["flush", "close"])
def test_a_hanging_flush_or_close_is_abandoned_at_the_deadline(place: Place, call: str) -> None:
    app = new_app()

    class Hanging(Buffered):
        async def flush(self) -> None:
            await self._hang("flush")

        async def close(self) -> None:
            await self._hang("close")

        async def _hang(self, what: str) -> None:
            if what == call:
                await anyio.sleep_forever()

    app.stream(TOPIC, int).to(Hanging(), name="table")
    outcome = run(place, app, replace(ONCE, stop_deadline_s=0.5, commit_interval_s=60))
    assert outcome.code == EXIT_LATE


def test_a_stop_does_not_wait_for_a_generator_that_blocks(place: Place) -> None:
    app, stop, table = new_app(), list[Callable[[], None]](), Buffered()
    is_released = threading.Event()

    def ticks() -> Iterator[int]:
        yield 1
        stop[0]()
        is_released.wait()
        yield 2

    app.source(ticks).to(table, name="table")
    try:
        outcome = stopped_run(place, app, stop)
    finally:
        is_released.set()
    assert outcome.code == EXIT_CLEAN, outcome.reports.notes
    assert table.inserted == [1]


def test_the_finally_block_of_a_generator_runs_at_a_stop(place: Place) -> None:
    app, stop, ended = new_app(), list[Callable[[], None]](), list[bool]()

    def ticks(resume: int | None) -> Iterator[tuple[int, int]]:
        try:
            for number in itertools.count():
                if number == 3:
                    stop[0]()
                time.sleep(0.001)
                yield number, number
        finally:
            ended.append(True)

    app.source(ticks).to(f"out-{app.name}")
    assert stopped_run(place, app, stop).code == EXIT_CLEAN
    assert ended == [True]


def test_rows_before_the_failed_row_in_a_row_error_count_as_written(place: Place) -> None:
    app, written = new_app(), list[int]()

    def write(rows: list[int]) -> None:
        for index, row in enumerate(rows):
            if row % 10 == 7:
                raise RowError(index, "sevens are refused")
            written.append(row)

    app.sink(app.stream(TOPIC, int), batch=20, name="table", on_error="skip")(write)
    outcome = run(place, app)
    assert outcome.code == EXIT_CLEAN
    assert written == [number for number in NUMBERS if number % 10 != 7]
    assert outcome.counts("table").skipped == 4
    assert "RowError: sevens are refused" not in outcome.error


# --- values of user generators ----------------------------------------------------------


def positions(kind: Any, values: list[Any]) -> tuple[App, list[Any], list[int]]:
    """Create an app whose source yields a position for each number."""
    app, resumed, got = new_app(), list[Any](), list[int]()

    def source(resume: Any) -> Iterator[tuple[Any, int]]:
        resumed.append(resume)
        first = 0 if resume is None else values.index(resume) + 1
        for number in range(first, len(values)):
            yield values[number], number

    source.__annotations__["resume"] = kind
    untyped: Any = source
    app.sink(app.source(untyped), name="got")(lambda number: got.append(number))
    return app, resumed, got


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (int | None, [1, 2, 3]),
        (str | None, ["a", "b"]),
        (datetime | None, [datetime(2024, 1, day, tzinfo=UTC) for day in (1, 2)]),
        (Decimal | None, [Decimal("1.10"), Decimal("2")]),
        (tuple[str, int] | None, [("a", 1), ("a", 2)]),
        (dict[int, str] | None, [{3: "x"}, {4: "y"}]),
        (list[int] | None, [[1], [2]]),
        (Any, [{"line": 1}, {"line": 2}]),
    ],
)
def test_a_position_is_restored_with_the_same_value_and_type(
    place: Place, kind: Any, values: list[Any]
) -> None:
    app, resumed, got = positions(kind, values)
    assert run(place, app).code == EXIT_CLEAN
    assert run(place, app).code == EXIT_CLEAN
    assert resumed == [None, values[-1]]
    assert got == list(range(len(values)))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Any, datetime(2024, 1, 1, tzinfo=UTC)),
        (Any, ("a", 1)),
        (Any, {3: "x"}),
        (Any, float("nan")),
        (Any, object()),
        (int | None, "text"),
        (tuple[str, int] | None, ["a", 1]),
    ],
)
def test_a_position_that_cannot_be_restored_is_refused_when_it_is_yielded(
    place: Place, kind: Any, value: Any
) -> None:
    app, _, got = positions(kind, [value])
    outcome = run(place, app)
    assert outcome.code == EXIT_FAILED
    assert "cannot be stored" in outcome.error
    assert "resume" in outcome.error
    assert "test_rules.py" in outcome.error
    assert got == []


def test_a_position_changed_in_place_later_is_stored_as_it_was_yielded(place: Place) -> None:
    app, stop, got = new_app(), list[Callable[[], None]](), list[int]()

    def lines(resume: dict[str, int] | None) -> Iterator[tuple[dict[str, int], int]]:
        at = resume or {"line": 0}
        while at["line"] < 5_000:
            at["line"] += 1
            yield at, at["line"]

    def sink(line: int) -> None:
        got.append(line)
        if line == 100:
            stop[0]()
        time.sleep(0.0001)

    app.sink(app.source(lines), name="got")(sink)
    assert stopped_run(place, app, stop).code == EXIT_CLEAN
    assert len(got) < 5_000, "the test proves nothing, because the job has read everything"
    assert run(place, app).code == EXIT_CLEAN
    assert got == list(range(1, 5_001))


def test_a_generator_that_yields_the_same_object_twice_is_refused(place: Place) -> None:
    app = new_app()

    def rows() -> Iterator[dict[str, int]]:
        row: dict[str, int] = {}
        for number in range(10):
            row["number"] = number
            yield row

    app.source(rows).to(f"out-{app.name}")
    outcome = run(place, app)
    assert outcome.code == EXIT_FAILED
    assert "the same dict object twice" in outcome.error


def test_the_buffer_of_a_generator_is_limited_in_bytes(place: Place) -> None:
    app, ahead = new_app(), list[int]()
    yielded = 0

    def large() -> Iterator[dict[str, bytes]]:
        nonlocal yielded
        for _ in range(1_000):
            yielded += 1
            yield {"body": bytes(60_000)}

    taken = 0

    def sink(value: object) -> None:
        nonlocal taken
        taken += 1
        ahead.append(yielded - taken)
        if taken == 1:
            time.sleep(0.3)

    app.sink(app.source(large), name="slow")(sink)
    assert run(place, app).code == EXIT_CLEAN
    assert taken == 1_000
    assert max(ahead) * 60_000 < 40_000_000


# --- where a source starts -------------------------------------------------------------


def failing_copy(app: App, bad: int | None, out: str) -> None:
    def checked(number: int) -> int:
        if number == bad:
            raise ValueError("bad")
        return number

    app.stream(TOPIC, int, name="numbers").map(checked, name="checked").to(out)


def test_a_fresh_start_that_fails_early_is_not_repeated_by_the_next_run(place: Place) -> None:
    name, out = f"rules-{next(_names)}", f"out-rules-{next(_names)}"
    runs = []
    for bad, options in ((None, ONCE), (0, replace(ONCE, fresh_state=True)), (None, ONCE)):
        app = App(name)
        failing_copy(app, bad, out)
        runs.append(run(place, app, options).code)
    assert runs == [EXIT_CLEAN, EXIT_FAILED, EXIT_CLEAN]
    assert place.values(out) == NUMBERS * 2


def test_a_fresh_start_deletes_the_offsets_on_the_broker(place: Place) -> None:
    name, out = f"rules-{next(_names)}", f"out-rules-{next(_names)}"
    for bad, options in ((None, ONCE), (0, replace(ONCE, fresh_state=True))):
        app = App(name)
        failing_copy(app, bad, out)
        run(place, app, options)
    lose_state(place, name)
    app = App(name)
    failing_copy(app, None, out)
    assert run(place, app).code == EXIT_CLEAN
    assert place.values(out) == NUMBERS * 2


def lose_state(place: Place, name: str) -> None:
    for path in (place.folder / "state" / name).iterdir():
        path.unlink()


def test_two_sources_of_one_topic_lose_no_records_if_their_state_is_lost(
    place: Place, tmp_path: Path
) -> None:
    name = f"rules-{next(_names)}"

    def job(is_bad: bool) -> App:
        app = App(name)

        def checked(number: int) -> int:
            if is_bad:
                time.sleep(0.2)  # the other source finishes in the meantime
                raise ValueError("bad")
            return number

        app.stream(TOPIC, int, name="two").to(JsonLines(tmp_path / "two"), name="f2")
        app.stream(TOPIC, int, name="one").map(checked).to(JsonLines(tmp_path / "one"), name="f1")
        return app

    assert run(place, job(is_bad=True)).code == EXIT_FAILED
    lose_state(place, name)
    assert run(place, job(is_bad=False)).code == EXIT_CLEAN
    assert [int(line) for line in (tmp_path / "one").read_text().split()] == NUMBERS


def test_a_partition_without_new_records_keeps_its_start_position(place: Place) -> None:
    name, topic = f"rules-{next(_names)}", f"two-{next(_names)}"
    got: list[int] = []
    with Client.connect(place.address) as client:
        client.admin.create_topic(topic, 2)

        def produce(partition: int, values: list[bytes]) -> None:
            with client.producer(topic, partition=partition) as producer:
                producer.send_many(values)

        for partition in range(2):
            produce(partition, [b"%d" % number for number in range(10)])
        for new in ([], [b"100"], []):
            if new:
                produce(0, new)
            app = App(name)
            app.sink(app.stream(topic, int, start="end"), name="got")(lambda n: got.append(n))
            assert run(place, app).code == EXIT_CLEAN
    assert got == [100]


def test_positions_of_unknown_sources_are_reported(place: Place) -> None:
    name = f"rules-{next(_names)}"
    for source in ("flights", "arrivals", "flights"):
        app = App(name)
        app.stream(TOPIC, int, name=source).to(f"out-{name}")
        outcome = run(place, app)
        notes = [note for note in outcome.reports.notes if "does not have" in note]
        if source == "arrivals":
            assert "'flights'" in notes[0]
            assert 'name="flights"' in notes[0]
    assert outcome.counts("flights").taken == 0  # it resumes from its committed positions


# --- records that cannot be written ---------------------------------------------------------


@pytest.mark.parametrize("policy", ["fail", "skip"])
def test_only_a_record_above_the_limit_fails_or_is_skipped(place: Place, policy: Any) -> None:
    app = new_app()
    out = f"out-{app.name}"
    app.stream(TOPIC, int).map(
        lambda number: b"x" * 2_000_000 if number == 3 else b"%d" % number, name="grown"
    ).to(out, name="large", on_error=policy)
    outcome = run(place, app)
    others = [number for number in NUMBERS if number != 3]
    if policy == "skip":
        assert outcome.code == EXIT_CLEAN
        assert outcome.counts("large").skipped == 1
        assert place.values(out) == others
    else:
        assert outcome.code == EXIT_FAILED
        assert "stage 'large' failed on numbers-0 offset 3: " in outcome.error
        assert place.values(out) == [0, 1, 2]


@pytest.mark.parametrize("chosen", [7, -1, "0", None, True, 0.0])
def test_an_invalid_partition_is_an_error_of_one_record_only(place: Place, chosen: Any) -> None:
    app = new_app()

    def choose(keys: list[bytes | None], count: int) -> list[Any]:
        return [chosen if key == b"3" else 0 for key in keys]

    app.stream(TOPIC, int).to(
        f"out-{app.name}",
        key=lambda number: b"%d" % number,
        partitioner=choose,
        on_error="skip",
        name="hostile",
    )
    outcome = run(place, app)
    assert outcome.code == EXIT_CLEAN
    assert outcome.counts("hostile").skipped == 1
    assert place.values(f"out-{app.name}") == [number for number in NUMBERS if number != 3]


# --- shared files and event loops -----------------------------------------------------------


def test_check_refuses_two_sinks_for_one_file(tmp_path: Path) -> None:
    app = new_app()
    numbers = app.stream(TOPIC, int)
    numbers.to(JsonLines(tmp_path / "both"), name="a")
    numbers.to(JsonLines(tmp_path / "both"), name="b")
    with pytest.raises(StreamKitError, match="both"):
        app.check()


def test_run_in_a_running_loop_suggests_run_async(place: Place) -> None:
    async def main() -> None:
        app = new_app()
        app.stream(TOPIC, int).to(f"out-{app.name}")
        with pytest.raises(UsageError, match="an event loop already runs") as caught:
            app.run(cluster=place.address)
        assert "await app.run_async()" in caught.value.hint

    asyncio.run(main())


def test_run_async_runs_a_job_in_a_running_loop(place: Place, tmp_path: Path) -> None:
    app = new_app()
    app.stream(TOPIC, int).to(Topic(f"out-{app.name}", int))

    async def main() -> int:
        return await app.run_async(
            cluster=place.address, once=True, create_topics=True, data_dir=tmp_path
        )

    assert asyncio.run(main()) == EXIT_CLEAN
    assert place.values(f"out-{app.name}") == NUMBERS


def test_cancelling_run_async_stops_in_order(place: Place, tmp_path: Path) -> None:
    app, table = new_app(), Buffered()
    numbers = app.stream(TOPIC, int)
    numbers.to(table, name="table")

    async def main() -> None:
        has_all = asyncio.Event()
        app.sink(numbers, name="last")(lambda n: has_all.set() if n == COUNT - 1 else None)
        options: Any = {"cluster": place.address, "data_dir": tmp_path, "commit_interval": 60}
        task = asyncio.ensure_future(app.run_async(**options))
        await asyncio.wait_for(has_all.wait(), 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert table.inserted == NUMBERS
    again = run(place, app, replace(ONCE, data_dir=tmp_path))
    assert again.code == EXIT_CLEAN


def test_several_jobs_run_in_one_loop(place: Place, tmp_path: Path) -> None:
    apps = [new_app() for _ in range(3)]
    for app in apps:
        app.stream(TOPIC, int).to(f"out-{app.name}")

    async def main() -> list[int]:
        runs: list[Awaitable[int]] = [
            app.run_async(cluster=place.address, once=True, create_topics=True, data_dir=tmp_path)
            for app in apps
        ]
        return await asyncio.gather(*runs)

    assert asyncio.run(main()) == [EXIT_CLEAN] * 3
    assert [place.values(f"out-{app.name}") for app in apps] == [NUMBERS] * 3


def test_slices_are_limited_in_bytes() -> None:
    from streamkit.runtime.runner import _rows_within

    large = Chunk([bytes(100_000)] * 1_000, [None] * 1_000, [0] * 1_000, range(1_000))
    assert _rows_within(large, 1 << 20) == 10
