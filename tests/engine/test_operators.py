"""Stages over columns give the same results as a loop over records, for any chunk sizes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamkit.dataflow.operators import AsRecords, Filter, FlatMap, Map, MapOrDrop, SetKeys, Unwrap
from streamkit.dataflow.steps import RowFailed, Step, Unlimited
from streamkit.dataflow.topology import Node, Topology
from streamkit.policies import FAIL, Policy, policy_of
from streamkit.record import Chunk, Record
from streamkit.runtime.task import Task
from streamkit.runtime.work import Output, Skip

Row = Record[Any]


SKIP = policy_of("skip")


class Bad(Exception):
    """The exception that the functions here raise."""


# The same step for one record; it returns the resulting records.
Reference = Callable[[Row], Iterable[Row]]


@dataclass(frozen=True)
class Verb:
    name: str
    step: Step
    reference: Reference

    def on_chunk(self, chunk: Chunk) -> Chunk:
        return self.step.open(Unlimited()).on_chunk(chunk)


def moved(row: Row, value: Any) -> Row:
    return Record(value, row.key, row.timestamp_ms, row.offset, row.partition, row.topic)


def add(by: int) -> Verb:
    return Verb(f"add {by}", Map(lambda x: x + by), lambda row: [moved(row, row.value + by)])


def keep_multiples(of: int) -> Verb:
    return Verb(
        f"keep multiples of {of}",
        Filter(lambda x: x % of == 0),
        lambda row: [row] if row.value % of == 0 else [],
    )


def halve_even() -> Verb:
    def halved(x: int) -> int | None:
        return None if x % 2 else x // 2

    return Verb(
        "halve even, drop odd",
        MapOrDrop(halved),
        lambda row: [] if row.value % 2 else [moved(row, row.value // 2)],
    )


def repeat(times: int) -> Verb:
    def several(x: int) -> Iterator[int]:
        for number in range(x % times):
            yield x + number

    return Verb(
        f"up to {times} of each",
        FlatMap(several),
        lambda row: [moved(row, each) for each in several(row.value)],
    )


def key_by_digit() -> Verb:
    def digit(x: int) -> bytes:
        return str(x % 10).encode()

    return Verb(
        "key by digit",
        SetKeys(digit),
        lambda row: [
            Record(
                row.value,
                digit(row.value),
                row.timestamp_ms,
                row.offset,
                row.partition,
                row.topic,
            )
        ],
    )


def fail_at(remainder: int) -> Verb:
    def failing(x: int) -> int:
        if x % 7 == remainder:
            raise Bad(x)
        return x

    return Verb(
        f"fail at {remainder} of 7", Map(failing), lambda row: [moved(row, failing(row.value))]
    )


CORRECT = st.one_of(
    st.integers(-5, 5).map(add),
    st.integers(1, 4).map(keep_multiples),
    st.builds(halve_even),
    st.integers(1, 4).map(repeat),
    st.builds(key_by_digit),
)
ANY = st.one_of(CORRECT, st.integers(0, 6).map(fail_at))
VALUES = st.lists(st.integers(-100, 100), max_size=30)
CUTS = st.lists(st.integers(0, 30), max_size=5)


def chunk_of(values: list[Any], first: int = 0) -> Chunk:
    return Chunk(
        values,
        [None if each % 3 else b"k%d" % each for each in range(first, first + len(values))],
        [1_000 + each for each in range(first, first + len(values))],
        range(first, first + len(values)),
        "numbers",
        2,
    )


def cut(values: list[Any], cuts: list[int]) -> list[Chunk]:
    edges = sorted({0, len(values), *(each for each in cuts if each < len(values))})
    return [chunk_of(values[start:stop], start) for start, stop in itertools.pairwise(edges)]


def graph_of(verbs: list[Verb], on_error: Policy = FAIL) -> tuple[Topology, Node, list[Node]]:
    topology = Topology()
    node = source = topology.add(Node("source", "source"))
    stages = []
    for number, verb in enumerate(verbs):
        node = topology.add(
            Node(f"s{number}", "stage", (verb.step,), inputs=(node,), on_error=on_error)
        )
        stages.append(node)
    topology.add(Node("sink", "sink", inputs=(node,)))
    return topology, source, stages


def output_rows(task: Task, source: Node, chunks: list[Chunk]) -> list[Row]:
    return [
        record
        for chunk in chunks
        for output in processed(task, source, chunk)
        for record in output.chunk.records()
    ]


def processed(task: Task, source: Node, chunk: Chunk) -> list[Output]:
    work = task.process(source, chunk)
    for reached in range(work.counted_to + 1, work.end + 1):  # in rounds of one record
        task.account(work, reached)
    if work.failure is not None:
        raise work.failure
    return work.outputs


def looped(verbs: list[Verb], rows: list[Row], *, skips: bool = False) -> list[Row]:
    """Process records one by one and stages one by one, as simply as possible."""
    for verb in verbs:
        given: list[Row] = []
        for row in rows:
            try:
                given.extend(verb.reference(row))
            except Bad:
                if not skips:
                    raise
        rows = given
    return rows


@given(st.lists(CORRECT, max_size=5), VALUES, CUTS)
def test_a_chain_equals_a_loop_for_any_division_into_chunks(
    verbs: list[Verb], values: list[int], cuts: list[int]
) -> None:
    topology, source, _ = graph_of(verbs)
    expected = looped(verbs, chunk_of(values).records())
    assert output_rows(Task(topology), source, cut(values, cuts)) == expected


@given(st.lists(ANY, max_size=5), VALUES, CUTS)
def test_a_skipping_chain_omits_failed_rows_and_counts_every_input(
    verbs: list[Verb], values: list[int], cuts: list[int]
) -> None:
    topology, source, stages = graph_of(verbs, SKIP)
    reported: list[Skip] = []
    task = Task(topology, on_skip=reported.append)
    expected = looped(verbs, chunk_of(values).records(), skips=True)
    assert output_rows(task, source, cut(values, cuts)) == expected
    counts = [task.counts[node] for node in stages]
    assert sum(each.skipped for each in counts) == len(reported)
    for before, after in zip([task.counts[source], *counts], counts, strict=False):
        assert after.taken == before.given
        assert after.taken == after.handled + after.dropped + after.skipped
        assert min(after.handled, after.dropped, after.skipped) >= 0


@given(st.lists(ANY, max_size=5), VALUES)
def test_a_failing_chain_reports_the_record_and_keeps_the_records_before_it(
    verbs: list[Verb], values: list[int]
) -> None:
    topology, source, stages = graph_of(verbs)
    task = Task(topology)
    chunk = chunk_of(values)
    work = task.process(source, chunk)
    task.account(work, work.end)
    bad = first_bad(verbs, chunk)
    assert work.end == (len(values) if bad is None else bad)
    if work.failure is not None:
        assert (work.failure.topic, work.failure.partition) == ("numbers", 2)
    assert (None if work.failure is None else work.failure.offset) == bad
    (output,) = work.outputs
    assert output.chunk.records() == looped(verbs, chunk.slice(0, work.end).records())
    counts = [task.counts[node] for node in stages]
    assert task.counts[source].taken == work.end
    for before, after in zip([task.counts[source], *counts], counts, strict=False):
        assert after.taken == before.given == after.handled + after.dropped + after.skipped


def first_bad(verbs: list[Verb], chunk: Chunk) -> int | None:
    for row, record in enumerate(chunk.records()):
        try:
            looped(verbs, [record])
        except Bad:
            return row
    return None


@given(VALUES, st.integers(0, 6))
def test_a_failed_row_is_reported_with_the_results_of_earlier_rows(
    values: list[int], remainder: int
) -> None:
    verb = fail_at(remainder)
    bad = [row for row, value in enumerate(values) if value % 7 == remainder]
    if not bad:
        assert verb.on_chunk(chunk_of(values)) == chunk_of(values)
        return
    with pytest.raises(RowFailed) as caught:
        verb.on_chunk(chunk_of(values))
    assert caught.value.row == bad[0]
    assert caught.value.before.records() == chunk_of(values).records()[: bad[0]]


def test_a_function_that_raises_stop_iteration_fails() -> None:
    numbers = iter([1])
    with pytest.raises(RowFailed) as caught:
        Map(lambda _: next(numbers)).apply(chunk_of([0, 0, 0]), Unlimited())
    assert caught.value.row == 1
    assert "StopIteration" in str(caught.value.__cause__)


def test_a_generator_that_fails_midway_yields_nothing_for_its_record() -> None:
    def halves(x: int) -> Iterator[int]:
        yield x
        if x == 2:
            raise Bad
        yield x

    topology, source, _ = graph_of([Verb("", FlatMap(halves), lambda row: [])], SKIP)
    assert [row.value for row in output_rows(Task(topology), source, [chunk_of([1, 2, 3])])] == [
        1,
        1,
        3,
        3,
    ]


def test_a_record_of_a_sink_function_sets_key_and_timestamp_if_it_has_them() -> None:
    given = chunk_of([Record(b"a"), Record(b"b", b"mine", 7), b"c"])
    assert Unwrap().apply(given, Unlimited()) == Chunk(
        [b"a", b"b", b"c"], [b"k0", b"mine", None], [1_000, 7, 1_002], range(3), "numbers", 2
    )


def test_whole_records_have_all_fields() -> None:
    (record,) = AsRecords().apply(chunk_of([b"x"], 3), Unlimited()).values
    assert record == Record(b"x", b"k3", 1_003, 3, 2, "numbers")
