"""The end report: what a run did, and why it ended."""

from __future__ import annotations

from streamkit.dataflow.endpoints import TopicSink
from streamkit.dataflow.topology import Topology
from streamkit.observe.facts import Ended, StageCounts, StateSize, TimeReport
from streamkit.runtime.failures import error_text
from streamkit.runtime.shutdown import EXIT_LATE
from streamkit.runtime.worker import Worker
from streamkit.state.states import PENDING, TIME_STATE, memory_bytes, waits
from streamkit.target import Target
from streamkit.units import shown_time

# Each part that comes from user code is cut already; this is the limit of the whole text.
_ERROR_CHARACTERS_MAX = 10_000


def records_of(topology: Topology, worker: Worker) -> tuple[int, int]:
    """Return the numbers of records read from all sources and written to all sinks."""
    counts = worker.progress.counts
    return (
        sum(counts[node].taken for node in topology.of_kind("source")),
        sum(counts[node].given for node in topology.of_kind("sink") if not node.takes_letters),
    )


def time_report(worker: Worker) -> TimeReport:
    """Return the sizes of the states of a run, and its watermarks."""
    sizes = [
        StateSize(state.name, len(state), memory_bytes(state))
        for state in worker.progress.states()
        if state.name != TIME_STATE and not state.name.endswith(PENDING)
    ]
    marks = {name: shown_time(mark_ms) for name, mark_ms in worker.progress.watermarks().items()}
    waiting = sum(len(each) for each in worker.progress.states() if waits(each))
    return TimeReport(sizes, marks, waiting)


def ended_report(
    app: str, topology: Topology, worker: Worker, target: Target, code: int, elapsed_s: float
) -> Ended:
    """Return the end report of a run, from the counts and the failure of its worker."""
    records_in, records_out = records_of(topology, worker)
    stages = _stage_counts(worker)
    sinks = [each for each in topology.of_kind("sink") if isinstance(each.endpoint, TopicSink)]
    topics = [each.endpoint.topic for each in sinks if not each.takes_letters]
    letter_topics = [each.endpoint.topic for each in sinks if each.takes_letters]
    failure = worker.failure
    return Ended(
        app=app,
        exit_code=code,
        reason=_reason(worker, code),
        records_in=records_in,
        records_out=records_out,
        dropped=sum(stage.dropped for stage in stages),
        skipped=sum(stage.skipped for stage in stages),
        elapsed_s=elapsed_s,
        rate=records_in / elapsed_s if elapsed_s > 0 else 0.0,
        p99_ms=worker.progress.p99_ms(),
        commits=worker.progress.commits,
        unacknowledged=worker.unacknowledged,
        stages=stages,
        look=_look_command(topics, target),
        lag=worker.lag(),
        error="" if failure is None else error_text(failure, _ERROR_CHARACTERS_MAX),
        hint=getattr(failure, "hint", "") if failure is not None else "",
        sink_topics=topics,
        time=time_report(worker),
        dead_lettered=sum(stage.dead_lettered for stage in stages),
        pending=sum(stage.pending for stage in stages),
        letter_topics=letter_topics,
        letter_looks=[f"streamkit{_options(target)} dlq list {topic}" for topic in letter_topics],
        replayed=sum(
            counts.taken for node, counts in worker.progress.counts.items() if node.is_replay
        ),
    )


def _stage_counts(worker: Worker) -> list[StageCounts]:
    waits = worker.progress.waits()
    lookups = worker.lookups()
    return [
        StageCounts(
            node.name,
            node.kind,
            counts.taken,
            counts.handled,
            counts.dropped,
            counts.skipped,
            counts.dead_lettered,
            counts.pending,
            counts.given,
            counts.late,
            waits.get(node.name),
            lookups.get(node.name),
        )
        for node, counts in sorted(
            worker.progress.counts.items(), key=lambda each: each[0].takes_letters
        )
    ]


def _reason(worker: Worker, code: int) -> str:
    if worker.failure is not None:
        return "failed"
    if code == EXIT_LATE:
        return "stopped at the deadline"
    if code:
        return "stopped by force"
    return "reached the end" if worker.cause == "finished" else "stopped"


def _look_command(topics: list[str], target: Target) -> str:
    return f"streamkit{_options(target)} consume {topics[0]} -B -d" if topics else ""


def _options(target: Target) -> str:
    """Return the options with which other commands find the same broker and folder."""
    options = ""
    if target.kind == "embedded":
        if str(target.data_dir) != ".streamkit":
            options = f" --data-dir {target.data_dir}"
    elif target.kind == "cluster":
        options = f" --cluster {target.address}"
    return options
