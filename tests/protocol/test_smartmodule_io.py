"""SmartModule data and stored consumer offsets: cases that the vectors do not contain."""

from __future__ import annotations

from typing import Any, Final

import pytest

from streamkit.errors import RemoteProtocolError
from streamkit.protocol.codec import decode_records, encode_records, fit_rows
from streamkit.protocol.consumer_offset_log import (
    ENTRY,
    Checkpoint,
    Deleted,
    OffsetKey,
    StoredOffset,
    Updated,
)
from streamkit.protocol.data_plane import ReplicaKey
from streamkit.protocol.schema import decode, encode
from streamkit.protocol.smartmodule_io import (
    AGGREGATE_INPUT,
    LOOK_BACK_OUTPUT,
    RECORD,
    RECORDS,
    AggregateInput,
    LookBackOutput,
    ModuleRecord,
    SmartModuleInput,
)

KEY: Final = OffsetKey(ReplicaKey("t1", 0), "cons-1")
ENTRIES: Final[dict[str, Any]] = {
    "000000001000027431000000000006636f6e732d31000000100000000000000001000000006b04b0fb": Updated(
        KEY, StoredOffset(1, 1_795_469_563)
    ),
    "010000001000027431000000000006636f6e732d31": Deleted(KEY),
    "02": Checkpoint(),
}


@pytest.mark.parametrize("length", ["14", "18"])  # one byte too short and one too long
def test_a_record_with_a_wrong_length_is_refused(length: str) -> None:
    data = bytes.fromhex(f"{length} 000a02 01026b 067a7a7a 00 00")
    with pytest.raises(RemoteProtocolError, match=r"announced length|bytes announced"):
        decode(RECORD, data, 25)


def test_smartmodule_records_have_the_format_of_a_batch_payload() -> None:
    values, keys, stamps = rows = [b"a", b"b"], [None, b"k"], [1_000, 1_005]
    end, size = fit_rows(values, keys, stamps, 0, 1_000, 10)
    payload = encode_records(values, keys, stamps, 0, end, size)
    records = decode(RECORDS, payload, 25)
    assert records == (
        ModuleRecord(0, 0, 0, None, b"a"),
        ModuleRecord(0, 5, 1, b"k", b"b"),
    )
    assert encode(RECORDS, records, 25) == payload
    assert decode_records(payload, 0, len(payload), 1_000) == rows


def test_the_accumulator_of_an_aggregate_follows_the_records() -> None:
    value = AggregateInput(SmartModuleInput(7, bytes(4), base_timestamp_ms=9), b"sum")
    data = bytes.fromhex("0000000000000007 00000004 00000000 0000000000000009 00000003 73756d")
    assert encode(AGGREGATE_INPUT, value, 25) == data
    assert decode(AGGREGATE_INPUT, data, 25) == value


def test_a_look_back_error_contains_the_failed_record() -> None:
    value = LookBackOutput("no", 8, b"k", b"v")
    data = bytes.fromhex("00026e6f 0000000000000008 01 02 6b 02 76")
    assert encode(LOOK_BACK_OUTPUT, value, 25) == data
    assert decode(LOOK_BACK_OUTPUT, data, 25) == value


@pytest.mark.parametrize(("data", "entry"), ENTRIES.items())
def test_a_stored_offset_entry_is_read_and_written(data: str, entry: Any) -> None:
    assert decode(ENTRY, bytes.fromhex(data), 0) == entry
    assert encode(ENTRY, entry, 0).hex() == data
    for end in range(len(data) // 2):
        with pytest.raises(RemoteProtocolError):
            decode(ENTRY, bytes.fromhex(data)[:end], 0)
