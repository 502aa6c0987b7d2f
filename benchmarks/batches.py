"""What records cost on their way into batches and out of them, without a socket.

python benchmarks/batches.py
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns

from streamkit.bench.workload import keys_of, values_of
from streamkit.client.consume.positions import records_from
from streamkit.client.produce.accumulator import Accumulator
from streamkit.limits import BATCH_BYTES_DEFAULT, REQUEST_BYTES_DEFAULT
from streamkit.protocol import codec
from streamkit.protocol.batch import Columns, with_base_offset
from streamkit.protocol.compression import Codec
from streamkit.protocol.data_plane import FetchablePartition

_NOW_MS = 1_700_000_000_000
# About 1 MiB, which is what a fetch brings unless it is told otherwise.
_ROWS_OF_A_RESPONSE = 8_000


def main(*, rows: int = _ROWS_OF_A_RESPONSE, rounds: int = 30) -> list[str]:
    """Return a line for each way."""
    values, keys = values_of(rows), list[bytes | None](keys_of(rows))
    columns = Columns(values, keys, [_NOW_MS] * rows)
    response = joined(packed(columns))
    answer = FetchablePartition(0, records=response)
    chunk = records_from("t", 0, 0, answer)
    assert chunk is not None
    assert (chunk.values, chunk.keys, len(chunk.offsets)) == (values, keys, rows)
    few = rows // 10
    ways: list[tuple[str, int, Callable[[], object], str]] = [
        ("columns into batches", rows, lambda: packed(columns), "budget 30 ns"),
        (
            "records into batches, one by one",
            few,
            lambda: packed_singly(values[:few], keys[:few]),
            "no budget",
        ),
        (
            "batches into columns",
            rows,
            lambda: records_from("t", 0, 0, answer),
            "budget 60 ns",
        ),
        ("keys to 8 partitions", rows, lambda: codec.partition_rows(keys, 8, 0), "budget 60 ns"),
    ]
    return [
        f"{name:<34} {min(ns_per_record(run, count) for _ in range(rounds)):7.1f} ns ({budget})"
        for name, count, run, budget in ways
    ]


def packed(columns: Columns) -> list[bytes]:
    accumulator = _accumulator()
    accumulator.add_rows(columns)
    accumulator.close_batch()
    return [batch.data for batch in accumulator.ready]


def packed_singly(values: list[bytes], keys: list[bytes | None]) -> list[bytes]:
    accumulator = _accumulator()
    for value, key in zip(values, keys, strict=True):
        accumulator.add(value, key, _NOW_MS)
    accumulator.close_batch()
    return [batch.data for batch in accumulator.ready]


def joined(batches: list[bytes]) -> bytes:
    """Put batches behind each other as a log does."""
    log = bytearray()
    offset = 0
    for batch in batches:
        log += with_base_offset(batch, offset)
        offset += int.from_bytes(batch[23:27], "big") + 1
    return bytes(log)


def ns_per_record(run: Callable[[], object], rows: int) -> float:
    started_ns = perf_counter_ns()
    run()
    return (perf_counter_ns() - started_ns) / rows


def _accumulator() -> Accumulator:
    return Accumulator(
        batch_bytes=BATCH_BYTES_DEFAULT,
        request_bytes=REQUEST_BYTES_DEFAULT,
        codec_used=Codec.NONE,
        now_s=lambda: 0.0,
        on_change=lambda: None,
    )


if __name__ == "__main__":
    print("\n".join(main()))
