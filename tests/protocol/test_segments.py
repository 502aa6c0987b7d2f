"""Log files written by a stock SPU, read as batches and as records."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from streamkit.protocol.batch import decode_batch, whole_batches
from streamkit.protocol.compression import Codec
from streamkit.protocol.consumer_offset_log import ENTRY, Deleted, Updated
from streamkit.protocol.schema import decode, encode
from tests.protocol.recorded import SEGMENTS, segment_folder

WORDS = {
    "base": "base_offset",
    "len": "batch_len",
    "epoch": "leader_epoch",
    "magic": "magic",
    "crc": "crc",
    "attrs": "attributes",
    "lod": "last_offset_delta",
    "ft": "first_timestamp_ms",
    "mt": "max_timestamp_ms",
    "pid": "producer_id",
    "pe": "producer_epoch",
    "seq": "first_sequence",
}

each_folder = pytest.mark.parametrize("name", SEGMENTS)


def records_of(name: str) -> list[dict[str, Any]]:
    found = []
    for log in segment_folder(name)[0]:
        for header, at in whole_batches(log.data):
            columns = decode_batch(log.data, at, header)
            rows = zip(columns.values, columns.keys, columns.timestamps_ms, strict=True)
            for offset, (value, key, timestamp_ms) in enumerate(rows, header.base_offset):
                found.append((offset, key, value, None if timestamp_ms < 0 else timestamp_ms))
    return [
        dict(zip(("offset", "key", "value", "timestamp_ms"), row, strict=True)) for row in found
    ]


def test_all_recorded_folders_are_present() -> None:
    assert SEGMENTS == ("codecs", "consumer-offset-topic", "gap", "rolled")


@each_folder
def test_a_log_file_contains_only_complete_batches(name: str) -> None:
    for log in segment_folder(name)[0]:
        headers = [header for header, _ in whole_batches(log.data)]
        assert sum(header.size_bytes for header in headers) == len(log.data)
        assert [
            {word: msgspec.structs.asdict(header)[field] for word, field in WORDS.items()}
            for header in headers
        ] == list(log.batches)


@each_folder
def test_the_records_of_a_folder_match_what_a_consumer_reads(name: str) -> None:
    found = records_of(name)
    expected = segment_folder(name)[1]
    assert len(found) == len(expected) > 0
    for record, wanted in zip(found, expected, strict=True):
        assert record["offset"] == wanted["offset"]
        assert record["key"] == (None if wanted["key"] is None else wanted["key"].encode())
        assert record["timestamp_ms"] == wanted.get("timestamp_ms")
        if "value" in wanted:
            assert record["value"].decode() == wanted["value"]
        else:
            assert record["value"].hex() == wanted["value_hex"]


def test_the_codecs_folder_has_a_batch_of_every_codec() -> None:
    (log,) = segment_folder("codecs")[0]
    assert [header.codec_number for header, _ in whole_batches(log.data)] == list(Codec)


def test_a_batch_may_occupy_more_offsets_than_it_has_records() -> None:
    (log,) = segment_folder("gap")[0]
    headers = [header for header, _ in whole_batches(log.data)]
    assert [(header.base_offset, header.end_offset) for header in headers] == [
        (0, 1),
        (1, 7),
        (7, 8),
    ]


def test_stored_consumer_offsets_are_read_and_written() -> None:
    live: dict[tuple[str, int, str], int] = {}
    for record in records_of("consumer-offset-topic"):
        entry = decode(ENTRY, record["value"], 0)
        assert encode(ENTRY, entry, 0) == record["value"]
        key = (entry.key.replica.topic, entry.key.replica.partition, entry.key.consumer_id)
        match entry:
            case Updated(value=stored):
                live[key] = stored.offset
            case Deleted():
                live.pop(key, None)
    assert live == {}, "the recorded session deleted all that it stored"
