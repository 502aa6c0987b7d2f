"""The producer against a server with random faults, compared with a simple model.

A plan has the steps of the application and a fault for each request. With any plan, handles report
the true outcome, records keep their order, and only records with an unknown outcome may be stored
twice.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamkit import Client
from streamkit.client import BatchReport
from streamkit.client.produce.handles import RecordHandle, RecordsHandle
from streamkit.errors import BrokerError, StreamKitError, TransportError
from tests.client.scripted import BAD, Scripted, Write
from tests.client.test_cuts import NoPauses

SOON_S: Final = 60.0
FOREVER_S: Final = 3_600
PARTITIONS: Final = 2
REFUSED: Final = 10
Delivery = Literal["at-least-once", "at-most-once"]

WRITES: Final = (
    Write(),
    Write(stores=False, answers=False),  # the connection is lost before the write
    Write(answers=False),  # the connection is lost after the write
    Write(6, stores=False),
    Write(3001, stores=False),
    Write(7, stores=True),
    Write(7, stores=False),
    Write(56, stores=True),
    Write(56, stores=False),
)
# The steps of the application. A bad record is refused permanently.
Step = tuple[str, int, int]
STEPS: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.just("send"), st.integers(0, PARTITIONS - 1), st.integers(0, 6)),
    st.tuples(st.just("many"), st.integers(0, 40), st.integers(1, 12)),
    st.tuples(st.just("flush"), st.just(0), st.just(0)),
    st.tuples(st.just("await"), st.integers(0, 1_000), st.just(0)),
    st.tuples(st.just("yield"), st.integers(1, 5), st.just(0)),
)


@dataclass
class Run:
    """One producer, its calls, and their results."""

    server: Scripted
    delivery: Delivery
    sent: list[tuple[bytes, int | None]] = field(default_factory=list)
    handles: list[RecordHandle] = field(default_factory=list)
    columns: list[RecordsHandle] = field(default_factory=list)
    reports: list[BatchReport] = field(default_factory=list)
    flushed_refused: int = 0

    async def play(self, steps: list[Step]) -> None:
        options: dict[str, Any] = {
            "linger": FOREVER_S,
            "batch_size": 100,
            "delivery_timeout": None,
            "close_timeout": SOON_S,
        }
        async with Client(self.server.address, clock=NoPauses()) as client:
            producer = client.producer(
                "t",
                delivery=self.delivery,
                on_batch=self.reports.append,
                on_retry=lambda error, attempt: None,
                **options,
            )
            await producer.open()
            with anyio.fail_after(SOON_S):
                for step in steps:
                    await self._step(producer, step)
                await self._flush(producer)
                try:
                    await producer.flush()
                except StreamKitError as error:
                    raise AssertionError("a refusal was raised before") from error
                await producer.close()
            assert producer.unacknowledged == 0
            self.metrics = producer.metrics

    async def _step(self, producer: Any, step: Step) -> None:
        name, first, second = step
        match name:
            case "send":
                value = self._value(first, is_bad=second == 0)
                self.handles.append(await producer.send(value, partition=first))
            case "many":
                values = [self._value(None, is_bad=first == row) for row in range(second)]
                handle = await producer.send_many(values)
                self.columns.append(handle)
                self.handles += [handle.record(row) for row in range(second)]
            case "flush":
                await self._flush(producer)
            case "await" if self.handles:
                try:
                    await self.handles[first % len(self.handles)]
                except StreamKitError:
                    pass  # checked by `judge`, which reads every handle
            case "yield":
                for _ in range(first):
                    await anyio.lowlevel.checkpoint()

    def _value(self, partition: int | None, *, is_bad: bool) -> bytes:
        value = (BAD if is_bad else b"good") + b" %06d" % len(self.sent)
        self.sent.append((value, partition))
        return value

    async def _flush(self, producer: Any) -> None:
        """Flush, which raises if and only if a record was refused since the last flush."""
        raised = None
        try:
            await producer.flush()
        except StreamKitError as error:
            raised = error
        refused = [handle for handle in self.handles if _error_of(handle) is not None]
        assert (raised is not None) == (len(refused) > self.flushed_refused)
        if raised is not None:
            assert any(_error_of(handle) is raised for handle in refused)
        self.flushed_refused = len(refused)


def _error_of(handle: RecordHandle) -> Exception | None:
    try:
        handle.result()
    except StreamKitError as error:
        return error
    return None


def judge(run: Run) -> Counter[str]:
    """Compare the handles with the actions of the server; count what happened."""
    server, counts = run.server, Counter[str]()
    stores = Counter(v for entry in server.entries if entry.base >= 0 for v in entry.values)
    spoilt = {
        value
        for entry in server.entries
        for batch in entry.batches
        if any(each.startswith(BAD) for each in batch)
        for value in batch
    }
    order = {value: number for number, (value, _) in enumerate(run.sent)}
    for partition, log in enumerate(server.logs):
        firsts = list(dict.fromkeys(log.values))
        assert firsts == sorted(firsts, key=order.__getitem__), "the order is wrong"
        assert all(run.sent[order[value]][1] in (None, partition) for value in firsts)
    for (value, _), handle in zip(run.sent, run.handles, strict=True):
        error = _error_of(handle)
        if error is None:
            stored = handle.result()
            there = server.logs[stored.partition].values
            assert there[stored.offset : stored.offset + 1] == [value], (
                "the record is not at the reported offset"
            )
            assert value not in there[stored.offset + 1 :], (
                "the record was sent again after its response"
            )
            counts["acknowledged"] += 1
        elif isinstance(error, BrokerError) and error.code == REFUSED:
            assert value in spoilt, "a record was refused because of another batch"
            assert not stores[value]
            counts["refused"] += 1
        else:
            assert run.delivery == "at-most-once", f"given up: {error}"
            if isinstance(error, TransportError) and not error.sent:
                assert not stores[value], "the record is reported as not sent"
            counts["unknown"] += 1
        if run.delivery == "at-most-once":
            assert stores[value] <= 1, "the record is stored twice"
        else:
            told = {
                (entry.code, entry.answered) for entry in server.entries if value in entry.values
            }
            assert stores[value] == 1 or value.startswith(BAD) or told != {(0, True)}
        counts["stored again"] += max(0, stores[value] - 1)
    _judge_metrics(run, counts)
    return counts


def _judge_metrics(run: Run, counts: Counter[str]) -> None:
    metrics, good = run.metrics, [report for report in run.reports if report.error is None]
    assert metrics.records == counts["acknowledged"] == sum(each.record_count for each in good)
    assert metrics.failed_records == counts["refused"] + counts["unknown"]
    assert sum(each.record_count for each in run.reports) == len(run.sent)
    assert metrics.batches == len(good)
    assert metrics.wire_bytes == sum(report.wire_bytes for report in good)
    # Some written requests never arrived.
    assert metrics.requests >= run.server.requests
    for report in good:
        log = run.server.logs[report.partition].values
        told = log[report.base_offset : report.base_offset + report.record_count]
        assert len(told) == report.record_count


async def scenario(delivery: Delivery, steps: list[Step], writes: list[Write]) -> Counter[str]:
    server = Scripted(PARTITIONS)
    server.writes.extend(writes)
    async with server.running():
        run = Run(server, delivery)
        await run.play(steps)
    return judge(run) + Counter(server.fired)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("delivery", ["at-least-once", "at-most-once"])
def test_a_producer_reports_true_outcomes_with_any_server_fault(
    delivery: Delivery, capsys: pytest.CaptureFixture[str]
) -> None:
    counts: Counter[str] = Counter()

    @given(
        steps=st.lists(STEPS, max_size=30), writes=st.lists(st.sampled_from(WRITES), max_size=12)
    )
    def play(steps: list[Step], writes: list[Write]) -> None:
        counts.update(anyio.run(scenario, delivery, steps, writes))

    play()
    for write in WRITES:
        assert counts[str(write)], f"{write} never happened"
    assert counts["acknowledged"]
    assert counts["refused"]
    assert counts["stored again" if delivery == "at-least-once" else "unknown"]
    with capsys.disabled():
        print(f"\n{delivery}: {dict(counts)}")  # noqa: T201
