"""Stages whose function is called outside of a slice: async, in threads, in processes, in batches.

The graph is divided at such a stage: a slice ends there, and each result begins a slice of its own.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal, TypedDict, cast

from streamkit.dataflow.context import Context
from streamkit.dataflow.operators import refuse_unfinished, without_none
from streamkit.dataflow.pending_columns import values_of
from streamkit.dataflow.steps import Operator, Room, RowFailed
from streamkit.dataflow.topology import Node
from streamkit.errors import UsageError
from streamkit.frames.column_rows import ColumnRows
from streamkit.frames.functions import gets_frames
from streamkit.policies import Policy
from streamkit.record import Chunk
from streamkit.state.pending import PendingRecord
from streamkit.windows import duration_ms

How = Literal["async", "thread", "process", "plain"]
Ordered = bool | Literal["key"]

_CONCURRENCY: Final[dict[How, int]] = {"async": 16, "thread": 4, "process": 2, "plain": 1}
_CONCURRENCY_MAX: Final = 100_000
_MAX_WAIT_MS: Final = 100
# The most rows of one write of a sink object whose writes are tried again.
_OBJECT_ROWS: Final = 500
# The result of a record whose batch has given its results to another record.
NOTHING: Final[Sequence[Any]] = ()


class CallingOptions(TypedDict, total=False):
    """Options of calls that take time.

    Attributes:
        concurrency: How many calls are in progress at most: 16 of an async function, 4 threads,
            2 processes, unless set.
        timeout: A call that takes longer fails with `TimeoutError`, in seconds or as a timedelta.
        ordered: ``True`` gives results in the order of the input, ``"key"`` in the order of each
            key, with one call of a key at a time, ``False`` as they come. By default ``True``, of
            a sink with several calls at a time ``"key"``.
        rate_limit: How many calls begin per second at most.
        blocking: The function runs in threads, because it waits for something.
        process: The function runs in processes, because it computes. It must be importable.
        max_wait: How long a batch waits for more records, in seconds or as a timedelta; 0.1 s by
            default.
    """

    concurrency: int | None
    timeout: float | timedelta | None
    ordered: Ordered | None
    rate_limit: float | None
    blocking: bool
    process: bool
    max_wait: float | timedelta | None


@dataclass(frozen=True, slots=True)
class CallSpec:
    """How the calls of a stage are made."""

    how: How
    concurrency: int = 1
    timeout_s: float | None = None
    order: Literal["input", "key", "none"] = "input"
    rate_per_s: float | None = None
    batch: int | None = None
    max_wait_s: float = 0.0

    def __str__(self) -> str:
        what = {
            "async": "awaits {} at a time",
            "thread": "runs in {} threads",
            "process": "runs in {} processes",
            "plain": "is called outside of slices",
        }[self.how].format("one call" if self.concurrency == 1 else f"up to {self.concurrency}")
        order = {
            "input": "results in the order of the input",
            "key": "one call of a key at a time",
            "none": "results as they come",
        }[self.order]
        batch = "" if self.batch is None else f", in batches of up to {self.batch}"
        late = "" if self.timeout_s is None else f", each for at most {self.timeout_s:g} s"
        return f"{what}{batch}{late}, {order}"


@dataclass(frozen=True, slots=True)
class Called:
    """Calls ``function`` outside of slices; its operator replaces records by their results.

    ``expands``: a call gives any number of values. ``yields``: the function is a generator.
    ``is_sink``: what it returns does not count. ``key_of`` shows keys in a context, for a function
    that gets one.
    """

    function: Callable[..., Any]
    spec: CallSpec
    expands: bool = False
    yields: bool = False
    is_sink: bool = False
    key_of: Callable[[bytes | None], Any] | None = None

    def open(self, room: Room) -> Operator:
        return _Results(self, room)

    def arguments(self, call: Sequence[PendingRecord], lifespan: Any) -> tuple[Any, ...]:
        """Return the arguments of a call."""
        if self.spec.batch is not None:
            values = values_of(call)
            return (values if gets_frames(self.function) else list(values),)
        record = call[0]
        if self.key_of is None:
            return (record.value,)
        context = Context(
            record.topic,
            record.partition,
            record.offset,
            self.key_of(record.key),
            record.timestamp_ms,
            None,
            None if self.spec.how == "process" else lifespan,
        )
        return record.value, context

    def results(self, call: Sequence[PendingRecord], result: Any) -> Sequence[Any]:
        """Return one result for each record of a call.

        Raises:
            TypeError: The function returned something else than it should.
        """
        if self.spec.batch is None:
            if self.expands:
                return (list(result),)
            return (refuse_unfinished(result),)
        if self.is_sink:
            refuse_unfinished(result)
            return [None] * len(call)
        if self.expands:
            return [*(NOTHING for _ in call[1:]), _listed(result)]
        return one_for_each(result, len(call))


def one_for_each(result: Any, count: int) -> Sequence[Any]:
    """Return the results of a batch of ``count`` records.

    Raises:
        TypeError: The function returned something else than one result for each record.
    """
    found = _listed(result)
    if len(found) != count:
        raise TypeError(
            f"a batch of {count} records returned {len(found)} results: a function with "
            "-> list[...] returns one for each record; annotate Iterator[...] for any number"
        )
    return found


def _listed(result: Any) -> Sequence[Any]:
    if type(result) is ColumnRows:
        return result
    if isinstance(result, str | bytes) or not isinstance(result, Iterable):
        raise TypeError(f"a batch returned {type(result).__name__}, not a list of results")
    return list(result)


def called_step(node: Node) -> Called | None:
    """Return the step of a node that is called outside of slices."""
    return next((step for step in node.steps if isinstance(step, Called)), None)


class _Results:
    """The operator of `Called`: the values of its chunks are records with results."""

    def __init__(self, step: Called, room: Room) -> None:
        self._step = step
        self._room = room

    def on_chunk(self, chunk: Chunk) -> Chunk:
        records: Sequence[PendingRecord] = chunk.values
        errors = [record.error for record in records]
        for row, error in enumerate(errors):
            if error is not None:
                raise RowFailed(row, self._finished(chunk.slice(0, row))) from error
        return self._finished(chunk)

    def _finished(self, chunk: Chunk) -> Chunk:
        if self._step.is_sink:
            return chunk.with_values(values_of(chunk.values))
        results = [record.result for record in chunk.values]
        if not self._step.expands:
            return without_none(chunk.with_values(results))
        if not all(results):
            empty = zip(chunk.offsets, results, strict=True)
            self._room.dropped([at for at, group in empty if not group and group is not NOTHING])
        return chunk.expand(results)


def call_spec(
    options: CallingOptions,
    name: str,
    *,
    is_async: bool,
    batch: int | None,
    is_sink: bool = False,
    has_retries: bool = False,
) -> CallSpec | None:
    """Return how the calls of a function are made; None if the task calls it in each slice.

    A sink that is called in each slice cannot be tried again, so with retries it has calls.

    Raises:
        UsageError: An option is not valid, or not with the others.
    """
    how = _how(options, name, is_async=is_async)
    if how == "plain" and batch is None:
        for option in ("concurrency", "timeout", "ordered", "rate_limit", "max_wait"):
            if options.get(option) is not None:
                raise UsageError(
                    f"{option}= of {name!r} is for calls that take time",
                    hint="make the function async, or set blocking=True, process=True or batch=",
                )
        return CallSpec("plain") if is_sink and has_retries else None
    if batch is None and options.get("max_wait") is not None:
        raise UsageError(f"max_wait= of {name!r} is for batches", hint="set batch= too")
    concurrency = options.get("concurrency")
    if concurrency is None:
        concurrency = 1 if batch is not None else _CONCURRENCY[how]
    _check_numbers(options, name, concurrency, batch)
    if how == "plain" and (concurrency > 1 or options.get("timeout") is not None):
        raise UsageError(
            f"{name!r} is a plain function, which is called once at a time and to its end",
            hint="make it async, or set blocking=True or process=True",
        )
    timeout, rate, wait = options.get("timeout"), options.get("rate_limit"), options.get("max_wait")
    return CallSpec(
        how,
        concurrency,
        None if timeout is None else duration_ms(timeout, "timeout") / 1_000,
        _order(options, name, is_by_key=is_sink and concurrency > 1),
        None if rate is None else float(rate),
        batch,
        (_MAX_WAIT_MS if wait is None else duration_ms(wait, "max_wait", least=0)) / 1_000,
    )


def has_calls(options: Mapping[str, Any], policy: Policy) -> bool:
    """Return whether an option of a function, or its retries, need calls outside of slices."""
    given = {each for each, value in options.items() if value not in (None, False)}
    return policy.retry is not None or bool(given & CallingOptions.__annotations__.keys())


def called_sink(
    function: Callable[..., Any],
    name: str,
    options: Mapping[str, Any],
    batch: int | None,
    policy: Policy,
    *,
    needs_calls: bool = False,
) -> Called | None:
    """Return the step of a function that is a sink; None if each slice calls it.

    With ``needs_calls`` it always has calls, whose batches are not cut where a slice ends.

    Raises:
        UsageError: An option is not valid, or not with the others.
    """
    if not has_calls(options, policy) and not needs_calls:
        return None
    spec = call_spec(
        calling_options(options),
        name,
        is_async=inspect.iscoroutinefunction(inspect.unwrap(function)),
        batch=batch,
        is_sink=True,
        has_retries=policy.retry is not None,
    )
    return None if spec is None else Called(function, spec, is_sink=True)


def called_object(target: Any, policy: Policy) -> Called | None:
    """Return the step of a sink object whose writes are tried again; None if they are not."""
    is_object = hasattr(target, "flush") and not hasattr(target, "writer")
    if policy.retry is None or not is_object:
        return None
    return Called(target.write, CallSpec("async", batch=_OBJECT_ROWS), is_sink=True)


def calling_options(options: Mapping[str, Any]) -> CallingOptions:
    """Return the options of calls among those of a decorated function."""
    names = CallingOptions.__annotations__
    return cast("CallingOptions", {name: options[name] for name in names if name in options})


def _how(options: CallingOptions, name: str, *, is_async: bool) -> How:
    blocking, process = options.get("blocking", False), options.get("process", False)
    for option, value in (("blocking", blocking), ("process", process)):
        if type(value) is not bool:
            raise UsageError(f"{option}={value!r} must be True or False")
    if is_async and (blocking or process):
        raise UsageError(
            f"{name!r} is async, which needs no {'process' if process else 'thread'}",
            hint="make it a plain function, or leave the option out",
        )
    if blocking and process:
        raise UsageError(f"{name!r} has both blocking= and process=", hint="use one of them")
    if is_async:
        return "async"
    return "process" if process else "thread" if blocking else "plain"


def _check_numbers(options: CallingOptions, name: str, concurrency: Any, batch: int | None) -> None:
    for option, number in (("concurrency", concurrency), ("batch", batch)):
        if number is None:
            continue
        if type(number) is not int or not 1 <= number <= _CONCURRENCY_MAX:
            raise UsageError(
                f"{option}={number!r} of {name!r} must be a whole number from 1 to "
                f"{_CONCURRENCY_MAX}"
            )
    rate = options.get("rate_limit")
    if rate is not None and not (isinstance(rate, int | float) and 0 < rate < float("inf")):
        raise UsageError(f"rate_limit={rate!r} of {name!r} must be a number of calls above 0")


def _order(
    options: CallingOptions, name: str, *, is_by_key: bool
) -> Literal["input", "key", "none"]:
    ordered = options.get("ordered")
    if ordered is None:
        return "key" if is_by_key else "input"
    if ordered not in (True, False, "key"):
        raise UsageError(
            f"ordered={ordered!r} of {name!r} is not valid", hint='use True, False or "key"'
        )
    return "key" if ordered == "key" else "input" if ordered else "none"
