"""Reads back and checks the records that a producer wrote."""

from __future__ import annotations

from streamkit.bench.environment import Environment
from streamkit.bench.result import WrongOutput
from streamkit.bench.workload import checksum, keys_of, values_of


def verify_written(
    environment: Environment, topic: str, records: int, *, not_before_ms: int
) -> None:
    """Check that a topic contains exactly the rows of `workload`, in order.

    Raises:
        WrongOutput: Records are missing, changed, in another order, or too old.
    """
    values: list[bytes] = []
    keys: list[bytes | None] = []
    offsets: list[int] = []
    earliest_ms = not_before_ms
    with environment.client.consumer(topic, until_end=True) as consumer:
        for chunk in consumer.chunks():
            values += chunk.values
            keys += chunk.keys
            offsets += chunk.offsets
            earliest_ms = min(earliest_ms, *chunk.timestamps_ms)
    if len(values) != records:
        raise WrongOutput(f"{records:,} records were sent, {len(values):,} are stored")
    expected = checksum(values_of(records), keys_of(records), range(records), [])
    if checksum(values, keys, offsets, []) != expected:
        raise WrongOutput("the stored records differ from those that were sent")
    if earliest_ms < not_before_ms:
        raise WrongOutput("records have timestamps earlier than the time of sending")
