"""The app whose state is in the snapshots. Do not change it: the snapshots fit only this app."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from streamkit import App, Context, State
from streamkit.aggregates import CollectList, Count, Max, Mean, Sum
from streamkit.dataflow.endpoints import TopicSink
from streamkit.record import Chunk
from streamkit.runtime.task import Task
from streamkit.runtime.work import Work
from streamkit.state.states import States
from streamkit.state.store import Store
from streamkit.windows import CountWindow, Session, Sliding, Tumbling

NAME = "snapshots"
CLUSTER = "embedded"


class Row(msgspec.Struct, frozen=True):
    id: int
    key: str
    at: int
    amount: float = 1.5


class Seen(msgspec.Struct):
    """Can be changed in place."""

    ids: list[int] = []
    last: str | None = None


def pair(left: Row | None, right: Row | None) -> list[int | None]:
    return [None if left is None else left.id, None if right is None else right.id]


def by_key(row: Row) -> str:
    return row.key


def ids() -> CollectList:
    return CollectList(lambda row: row.id)


def app() -> App:
    """Return an app with every kind of state; each stage writes to a topic of its name."""
    found = App(NAME)
    rows = found.stream("rows", Row, event_time=lambda row: row.at, out_of_order=0.005)
    others = found.stream("others", Row, event_time=lambda row: row.at)
    table = found.table("table", Row, event_time=lambda row: row.at)
    keyed, rights = rows.key_by(by_key), others.key_by(by_key)

    @found.stage(keyed, name="listed")
    def listed(row: Row, state: State[Seen]) -> list[int]:
        seen = state.get() or Seen()
        seen.ids.append(row.id)
        state.set(seen)
        return list(seen.ids)

    @found.stage(rights, name="expiring", ttl=0.1)
    def expiring(row: Row, state: State[int]) -> int:
        count = state.get(0) + 1
        state.set(count)
        return count

    @found.stage(keyed, name="timed")
    def timed(row: Row, state: State[int], context: Context[str]) -> int:
        count = state.get(0) + 1
        state.set(count)
        context.timer(row.at + 50, f"after-{row.id % 2}")
        return count

    @timed.on_timer
    def fired(timer: Any, state: State[int]) -> list[Any]:
        return [timer.name, round(timer.time.timestamp() * 1_000), state.get(-1)]

    tumbling = keyed.window(Tumbling(seconds=0.1), late=0.01).aggregate(
        name="tumbling",
        ids=ids(),
        total=Sum(lambda row: row.amount),
        mean=Mean(lambda row: row.amount),
    )
    streams: list[Any] = [
        listed,
        timed,
        expiring,
        tumbling,
        keyed.deduplicate(within=0.1, name="first"),
        keyed.map(by_key).key_by(str).deduplicate(name="ever"),
        keyed.window(Sliding(seconds=0.1, every=0.03)).aggregate(name="sliding", ids=ids()),
        keyed.window(Session(gap=0.03)).aggregate(name="sessions", ids=ids(), n=Count()),
        keyed.window(Session(gap=0.03, max_length=0.05)).aggregate(name="divided", ids=ids()),
        keyed.window(CountWindow(3)).aggregate(name="counted", ids=ids()),
        tumbling.window(Tumbling(seconds=0.5)).aggregate(
            name="again", most=Max(lambda result: result["total"])
        ),
        keyed.join(rights, within=0.04, how="outer", combine=pair, name="interval"),
        keyed.join(rights, window=Tumbling(seconds=0.1), combine=pair, name="windows"),
        rows.lookup(table, on=by_key, how="left", combine=pair, name="now"),
        rows.lookup(table, on=by_key, how="left", combine=pair, name="then", as_of=True, late=0.02),
    ]
    for stream in streams:
        stream.to(stream.name)
    for stream in streams:
        if hasattr(stream, "late") and stream.name not in ("counted", "now"):
            stream.late.to(f"{stream.name}-late")
    return found


def turns(first: int, last: int) -> Iterator[tuple[str, int, list[Row]]]:
    """Return slices of sources: the source, the partition, and the rows."""
    for turn in range(first, last):
        start = turn * 37
        for number, source in enumerate(("table", "rows", "others", "rows")):
            partition = int(number == 3)
            yield (
                source,
                partition,
                [
                    Row(
                        turn * 100 + number * 10 + each,
                        "abcde"[(turn + each * (number + 1)) % 5],
                        1_000 + start + each * 7 - (40 if (turn + each) % 9 == 8 else 0),
                    )
                    for each in range(3)
                ],
            )


class Job:
    """A task of the app over a store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.app = app()
        states = States(store.state_rows, store.state_types())
        self.task = Task(self.app.topology, states=states, never_idle=True)
        self.positions: dict[str, dict[str, str]] = {}
        self.outputs: list[str] = []

    def process(self, source: str, partition: int, rows: list[Row]) -> None:
        first = rows[0].id
        part = Chunk(
            list(map(msgspec.json.encode, rows)),
            [row.key.encode() for row in rows],
            [0] * len(rows),
            range(first, first + len(rows)),
            source,
            partition,
        )
        self._take(self.task.process(self.app.topology.get(source), part))
        self.positions.setdefault(source, {})[str(partition)] = str(part.offsets[-1] + 1)

    def drain(self) -> None:
        work = self.task.drain()
        assert work is not None
        self._take(work)

    def commit(self) -> None:
        self.store.commit(self.positions, {}, self.task.states.prepare())

    def _take(self, work: Work) -> None:
        assert work.failure is None
        for output in work.outputs:
            assert isinstance(output.sink.endpoint, TopicSink)
            topic, chunk = output.sink.endpoint.topic, output.chunk
            columns = zip(chunk.keys, chunk.timestamps_ms, chunk.values, strict=True)
            self.outputs += [
                f"{topic} {(key or b'').decode()} {time_ms} {value.decode()}"
                for key, time_ms, value in columns
            ]
        self.task.account(work, work.end)
        self.task.settle(work, work.end)
