"""Measures encoding records into batches and decoding them, without a socket.

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
# About 1 MiB, the default size of a fetch.
_ROWS_OF_A_RESPONSE = 8_000


def main(*, rows: int = _ROWS_OF_A_RESPONSE, rounds: int = 30) -> list[str]:
    """Measure each operation; return a line for each."""
    values, keys = values_of(rows), list[bytes | None](keys_of(rows))
    columns = Columns(values, keys, [_NOW_MS] * rows)
    response = joined(packed(columns))
    fetched = FetchablePartition(0, records=response)
    chunk = records_from("t", 0, 0, fetched)
    assert chunk is not None
    assert (chunk.values, chunk.keys, len(chunk.offsets)) == (values, keys, rows)
    few = rows // 10
    operations: list[tuple[str, int, Callable[[], object], str]] = [
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
            lambda: records_from("t", 0, 0, fetched),
            "budget 60 ns",
        ),
        ("keys to 8 partitions", rows, lambda: codec.partition_rows(keys, 8, 0), "budget 60 ns"),
    ]
    return [
        f"{name:<34} {min(ns_per_record(run, count) for _ in range(rounds)):7.1f} ns ({budget})"
        for name, count, run, budget in operations
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
    """Concatenate batches as a log does."""
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
