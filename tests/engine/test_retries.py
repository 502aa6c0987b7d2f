"""Retries, dead letters and the circuit breaker of plain functions, sources, sinks and calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from streamkit import App, Record, State
from streamkit.aggregates import Count
from streamkit.dataflow.dead_letters import Letter, decode_letter
from streamkit.dataflow.stream import Stream
from streamkit.errors import StageError, TopologyError
from streamkit.policies import dead_letter, retry
from streamkit.testing.job import TestJob
from streamkit.windows import Tumbling, Window

ONCE_MORE = retry(attempts=2, delay=1)


class Order(msgspec.Struct):
    number: int
    customer: str


class Fails:
    """Raises for some numbers, each so many times."""

    def __init__(self, times: dict[int, int], error: type[Exception] = OSError) -> None:
        self.left = Counter(times)
        self.error = error
        self.calls: list[int] = []

    def __call__(self, number: int) -> None:
        self.calls.append(number)
        if self.left[number]:
            self.left[number] -= 1
            raise self.error(f"number {number}")


def app_of() -> tuple[App, Stream[int]]:
    app = App("retries", version="3")
    return app, app.stream("numbers", int)


def letters(job: TestJob, topic: str = "dead") -> list[Letter]:
    return [decode_letter(data) for data in job.output(topic)]


def keyed(*pairs: tuple[int, str]) -> list[Record[int]]:
    return [Record(number, key.encode()) for number, key in pairs]


def test_later_records_of_the_key_wait_and_others_go_on() -> None:
    app, numbers = app_of()
    fails = Fails({1: 1})

    @app.stage(numbers, on_error=ONCE_MORE)
    def called(number: int) -> int:
        fails(number)
        return number

    with app.test() as job:
        job.send(numbers, *keyed((0, "a"), (1, "a"), (2, "b"), (3, "a"), (4, "b")))
        job.send(numbers, *keyed((5, "a"), (6, "b")))
        assert job.output(called) == [0, 2, 4, 6]
        job.advance(seconds=2)
        assert job.output(called) == [0, 2, 4, 6, 1, 3, 5]
        counts = job._task.counts[called.node]
        assert (counts.taken, counts.handled, counts.pending) == (7, 7, 0)
    assert fails.calls == [0, 1, 2, 4, 6, 1, 3, 5]


def test_records_without_a_key_wait_for_their_partition() -> None:
    app, numbers = app_of()
    fails = Fails({1: 1})

    @app.stage(numbers, on_error=ONCE_MORE)
    def called(number: int) -> int:
        fails(number)
        return number

    with app.test() as job:
        job.send(numbers, 0, 1, 2)
        job.send(numbers, 10, partition=1)
        assert job.output(called) == [0, 10]
        job.advance(seconds=2)
        assert job.output(called) == [0, 10, 1, 2]


def test_a_record_that_still_fails_gets_the_last_policy() -> None:
    app, numbers = app_of()
    fails = Fails({1: 9})

    @app.stage(numbers, on_error=retry(attempts=3, delay=1).then("skip"))
    def called(number: int) -> int:
        fails(number)
        return number

    with app.test() as job:
        job.send(numbers, 1, 2)
        for _ in range(5):
            job.advance(seconds=4)
        assert job.output(called) == [2]
        counts = job._task.counts[called.node]
        assert (counts.taken, counts.handled, counts.skipped, counts.pending) == (2, 1, 1, 0)
    assert fails.calls == [1, 1, 1, 2]


def test_without_another_policy_the_job_fails_and_keeps_the_record() -> None:
    app, numbers = app_of()
    fails = Fails({1: 2})

    @app.stage(numbers, on_error=ONCE_MORE)
    def called(number: int) -> int:
        fails(number)
        return number

    with app.test() as job:
        job.send(numbers, 1, 2)
        with pytest.raises(StageError, match="number 1"):
            job.advance(seconds=2)
        job.restart()
        assert job.output(called) == [1, 2]


@pytest.mark.parametrize("is_async", [False, True])
def test_the_next_run_has_all_attempts_for_a_record_at_which_the_job_stopped(
    is_async: bool,
) -> None:
    app, numbers = app_of()
    fails = Fails({1: 5})
    policy = retry(attempts=3, delay=1)

    if is_async:

        @app.stage(numbers, on_error=policy)
        async def called(number: int) -> int:
            fails(number)
            return number
    else:

        @app.stage(numbers, on_error=policy)
        def called(number: int) -> int:
            fails(number)
            return number

    with app.test() as job:
        job.send(numbers, 1)
        job.advance(seconds=2)
        with pytest.raises(StageError, match="number 1"):
            job.advance(seconds=4)
        job.restart()
        for _ in range(2):
            job.advance(seconds=4)
        assert job.output(called) == [1]


def test_other_errors_are_not_retried() -> None:
    app, numbers = app_of()
    fails = Fails({1: 1}, ValueError)

    @app.stage(numbers, on_error=retry(attempts=3, on=OSError).then("skip"))
    def called(number: int) -> int:
        fails(number)
        return number

    with app.test() as job:
        job.send(numbers, 1, 2)
        assert job.output(called) == [2]


def test_what_waits_survives_a_restart() -> None:
    app, numbers = app_of()
    fails = Fails({1: 2})

    @app.stage(numbers, on_error=retry(attempts=3, delay=1).then("skip"))
    def called(number: int) -> int:
        fails(number)
        return number

    with app.test() as job:
        job.send(numbers, *keyed((1, "a"), (2, "a"), (3, "b")))
        assert job.output(called) == [3]
        job.restart()  # it is due at once, fails once more, and waits again
        assert job.output(called) == [3]
        job.restart()
        assert job.output(called) == [3, 1, 2]
    assert fails.calls == [1, 3, 1, 1, 2]


def test_a_failed_call_leaves_the_state_of_its_key_as_it_was() -> None:
    app, numbers = app_of()
    fails = Fails({2: 1, 5: 9})

    @app.stage(numbers.key_by(lambda number: str(number % 2)), on_error=ONCE_MORE.then("skip"))
    def summed(number: int, state: State[int]) -> int:
        state.set(state.get(0) + number)
        fails(number)
        return state.get(0)

    with app.test() as job:
        job.send(numbers, 1, 2, 3, 4, 5, 6, 7)
        assert job.output(summed) == [1, 4]
        for _ in range(3):
            job.advance(seconds=2)
        assert sorted(job.output(summed)) == [1, 2, 4, 6, 11, 12]
        assert job.state(summed, "0") == 12
        assert job.state(summed, "1") == 11


def test_rows_of_one_record_are_told_apart() -> None:
    app, numbers = app_of()
    fails = Fails({21: 1})

    @app.stage(numbers)
    def parts(number: int) -> Iterator[int]:
        yield from (10 * number, 10 * number + 1, 10 * number + 2)

    @app.stage(parts, on_error=ONCE_MORE)
    def called(number: int) -> int:
        fails(number)
        return number

    with app.test() as job:
        job.send(numbers, *keyed((1, "a"), (2, "b"), (3, "a")))
        assert job.output(called) == [10, 11, 12, 20, 30, 31, 32]
        job.advance(seconds=2)
        assert job.output(called) == [10, 11, 12, 20, 30, 31, 32, 21, 22]


def test_a_sink_of_ones_own_is_tried_again_in_the_order_of_each_key() -> None:
    app, numbers = app_of()
    fails = Fails({1: 1})
    written: list[int] = []

    @app.sink(numbers, on_error=ONCE_MORE)
    def write(number: int) -> None:
        fails(number)
        written.append(number)

    with app.test() as job:
        job.send(numbers, *keyed((1, "a"), (2, "b"), (3, "a")))
        assert written == [2]
        job.advance(seconds=2)
        assert written == [2, 1, 3]
        counts = job._task.counts[write.node]
        assert (counts.taken, counts.given, counts.pending) == (3, 3, 0)


def test_the_writes_of_a_sink_object_are_tried_again() -> None:
    app, numbers = app_of()
    fails = Fails({1: 1})
    written: list[list[int]] = []
    steps: list[str] = []

    class Rows:
        def open(self) -> None:
            steps.append("open")

        def write(self, rows: list[int]) -> None:
            for row in rows:
                fails(row)
            written.append(rows)

        def flush(self) -> None:
            steps.append("flush")

        def close(self) -> None:
            steps.append("close")

    numbers.to(Rows(), on_error=ONCE_MORE)
    with app.test() as job:
        job.send(numbers, 0, 1, 2)
        assert written == []
        job.advance(seconds=2)
        assert written == [[0, 1, 2]]
        job.commit()
    assert steps == ["open", "flush", "flush", "close"]


# --- dead letters -----------------------------------------------------------------


def test_a_letter_has_the_record_the_error_and_where_it_came_from() -> None:
    app = App("orders", version="1.4")
    orders = app.stream("orders", Order)

    @app.stage(orders, on_error=dead_letter("dead"))
    def checked(order: Order) -> Order:
        if order.number == 1:
            raise ValueError("no customer")
        return order

    with app.test() as job:
        values = [Order(number, "c") for number in range(3)]
        job.send(orders, *(Record(each, b"k%d" % each.number) for each in values))
        assert job.output(checked) == [values[0], values[2]]
        (letter,) = letters(job)
        (record,) = job.records("dead")
        counts = job._task.counts[checked.node]
        assert (counts.taken, counts.handled, counts.dead_lettered) == (3, 2, 1)
    assert (letter.app, letter.version, letter.stage) == ("orders", "1.4", "checked")
    assert (letter.topic, letter.partition, letter.offset) == ("orders", 0, 1)
    assert (letter.error_type, letter.error) == ("ValueError", "ValueError: no customer")
    assert (letter.key_bytes, record.key, letter.attempts) == (b"k1", b"k1", 1)
    assert msgspec.json.decode(letter.value_bytes, type=Order) == values[1]
    assert 'raise ValueError("no customer")' in letter.stack
    assert "streamkit/runtime" not in letter.stack


def test_bytes_that_cannot_be_decoded_are_put_aside_as_they_are() -> None:
    app = App("orders")
    orders = app.stream("orders", Order, on_error=dead_letter("dead"))
    orders.to("copies")
    with app.test() as job:
        job.send("orders", b"\xff\x00", b'{"number": 1, "customer": "c"}', b"{}")
        assert len(job.output("copies")) == 1
        first, second = letters(job)
    assert (first.value_bytes, second.value_bytes) == (b"\xff\x00", b"{}")
    assert (first.value, second.value) == (None, "{}")


def test_attempts_are_counted_in_the_letter() -> None:
    app, numbers = app_of()

    @app.stage(numbers, on_error=retry(attempts=3, delay=1).then(dead_letter("dead")))
    def called(number: int) -> int:
        raise OSError

    @app.stage(numbers, on_error=retry(attempts=4, delay=1).then(dead_letter("dead-2")))
    async def awaited(number: int) -> int:
        raise OSError

    with app.test() as job:
        job.send(numbers, 1)
        for _ in range(6):
            job.advance(seconds=10)
        assert [each.attempts for each in letters(job)] == [3]
        assert [each.attempts for each in letters(job, "dead-2")] == [4]


def test_sinks_put_records_aside_too() -> None:
    app, numbers = app_of()
    fails = Fails({2: 9})
    written: list[int] = []

    @app.sink(numbers, on_error=dead_letter("dead"))
    def write(number: int) -> None:
        fails(number)
        written.append(number)

    @app.sink(numbers, to="texts", on_error=dead_letter("dead"))
    def text(number: int) -> Iterator[Any]:
        yield number
        yield object() if number == 3 else -number

    with app.test() as job:
        job.send(numbers, 1, 2, 3)
        assert written == [1, 3]
        found = letters(job)
        counts = job._task.counts[write.node]
        assert (counts.taken, counts.given, counts.dead_lettered) == (3, 2, 1)
    assert [(each.stage, each.value) for each in found] == [("text", "3"), ("write", "2")]


def test_a_value_that_cannot_be_read_back_is_shown_only() -> None:
    app, numbers = app_of()

    @app.stage(numbers)
    def odd(number: int) -> Any:
        return {number, number + 1}

    @app.stage(odd, on_error=dead_letter("dead"))
    def called(numbers: Any) -> int:
        raise ValueError

    with app.test() as job:
        job.send(numbers, 1)
        (letter,) = letters(job)
    assert (letter.is_replayable, letter.value) == (False, "{1, 2}")


def test_a_result_of_a_window_is_put_aside() -> None:
    app = App("windows")
    orders = app.stream("orders", Order)

    def labelled(window: Window[str], rows: list[Order]) -> str:
        if len(rows) > 1:
            raise ValueError("too many")
        return window.key

    by_customer = orders.key_by(lambda order: order.customer)
    found = by_customer.window(Tumbling(seconds=10)).apply(labelled, on_error=dead_letter("dead"))
    with app.test() as job:
        job.send(orders, *(Record(Order(n, c), None, 1_000) for n, c in enumerate("aab")))
        job.drain()
        assert job.output(found) == ["b"]
        (letter,) = letters(job)
    assert (letter.stage, letter.is_replayable) == ("apply", False)


def test_a_window_cannot_be_tried_again() -> None:
    _, numbers = app_of()
    windows = numbers.key_by(str).window(Tumbling(seconds=10))
    with pytest.raises(TopologyError, match="waits for other records"):
        windows.aggregate(count=Count(), on_error=retry())


def test_one_sink_takes_the_letters_of_several_stages() -> None:
    app, numbers = app_of()
    for name in ("one", "two"):
        numbers.map(lambda number: 1 // number, name=name, on_error=dead_letter("dead")).to(name)
    with app.test() as job:
        job.send(numbers, 0, 1)
        assert sorted(each.stage for each in letters(job)) == ["one", "two"]
    assert [node.name for node in app.topology.of_kind("sink")].count("to-dead") == 1


# --- circuit breaker --------------------------------------------------------------


def test_only_errors_of_an_outage_open_the_circuit() -> None:
    app, numbers = app_of()
    calls = 0
    policy = retry(attempts=2, delay=1, open_circuit_after=3, open_circuit_on=ConnectionError)

    @app.stage(numbers, on_error=policy.then("skip"))
    def called(number: int) -> int:
        nonlocal calls
        calls += 1
        if number < 100:
            raise OSError("a bad record")
        raise ConnectionError("down")

    with app.test() as job:
        job.send(numbers, *keyed(*((number, f"k{number}") for number in range(10))))
        job.advance(seconds=5)
        assert calls == 20
        assert job._task.counts[called.node].skipped == 10
        job.send(numbers, *keyed(*((number, f"k{number}") for number in range(100, 110))))
        assert calls == 23


@pytest.mark.parametrize("is_async", [False, True])
def test_an_open_circuit_pauses_the_stage_and_uses_up_no_attempts(is_async: bool) -> None:
    app, numbers = app_of()
    is_down = True
    calls = 0
    policy = retry(attempts=3, delay=1, max_delay=8, open_circuit_after=4).then("skip")

    def work(number: int) -> int:
        nonlocal calls
        calls += 1
        if is_down:
            raise OSError("down")
        return number

    if is_async:

        @app.stage(numbers, ordered="key", concurrency=2, on_error=policy)
        async def called(number: int) -> int:
            return work(number)
    else:

        @app.stage(numbers, on_error=policy)
        def called(number: int) -> int:
            return work(number)

    with app.test() as job:
        job.send(numbers, *keyed(*((number, f"k{number}") for number in range(20))))
        assert 4 <= calls <= 5
        for _ in range(30):
            job.advance(seconds=10)
        assert calls <= 40
        assert job.output(called) == []
        is_down = False
        for _ in range(3):
            job.advance(seconds=10)
        assert sorted(job.output(called)) == list(range(20))
        counts = job._task.counts[called.node]
        assert (counts.taken, counts.handled, counts.skipped) == (20, 20, 0)
