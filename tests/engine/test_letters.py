"""The envelope of dead letters: what is one, and what is not."""

from __future__ import annotations

import json

import pytest

from streamkit.dataflow.dead_letters import decode_letter, replay_source, text_fields
from streamkit.errors import DataError

LETTER = {
    "app": "orders",
    "stage": "parse",
    "topic": "orders",
    "partition": 0,
    "offset": 7,
    "error_type": "ValueError",
    "error": "ValueError: bad",
    "attempts": 1,
    "failed_at_ms": 1_700_000_000_000,
}


@pytest.mark.parametrize("data", [b"text", "ü".encode(), b"\x00\xff", b""])
def test_keys_and_values_are_read_as_they_were_written(data: bytes) -> None:
    fields = LETTER | text_fields("key", data) | text_fields("value", data)
    letter = decode_letter(json.dumps(fields).encode())
    assert (letter.key_bytes, letter.value_bytes) == (data, data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text",
        b"\xff\x00",
        b"null",
        b"{}",
        json.dumps(LETTER | {"offset": "7"}).encode(),
        json.dumps(LETTER | {"value_base64": "a"}).encode(),
        json.dumps(LETTER | {"key_base64": "a"}).encode(),
        json.dumps(LETTER | {"value_base64": "ü"}).encode(),
        json.dumps(LETTER).encode()[:-1] + b', "more": ' + b"[" * 100_000,
        json.dumps(LETTER).replace("bad", "\\ud800").encode(),
    ],
    ids=lambda data: repr(data[-20:]),
)
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(DataError, match="not a dead letter"):
        decode_letter(data)


def test_the_source_of_a_replay_has_a_valid_length() -> None:
    assert replay_source("orders-dead") == "replay-orders-dead"
    assert len(replay_source("t" * 63)) == 63
