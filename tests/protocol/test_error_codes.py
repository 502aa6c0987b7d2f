"""Error codes: the table, its payloads, and the errors an application catches."""

from __future__ import annotations

from typing import Any

import pytest

from streamkit import errors
from streamkit.errors import LocalProtocolError, RemoteProtocolError
from streamkit.protocol.error_codes import (
    CODES,
    ERROR_CODE,
    NO_ERROR,
    RETRYABLE_CODES,
    ErrorCode,
    ExportsPayload,
    InvalidModulePayload,
    MemoryPayload,
    ReplicaPayload,
    SystemPayload,
    TextPayload,
    TimeoutPayload,
    TransformErrorPayload,
    evicted,
    other,
    partition_full,
)
from streamkit.protocol.schema import decode, encode
from streamkit.protocol.server_errors import as_exception

# docs/protocol/error-codes.md, "Codes".
TAGS = """
-1 0 1 2 6 7 10 13 56 60 61 71 72 73 1000 1001 1002 1003 1004 2000 2001 2002 2003 2004 2005 2006
2007 2008 3000 3001 3002 3003 3004 3005 5000 5001 5002 6000 6001 6002 6003 6004 6005 6006 6007 6008
7000 7001 7002 8000 8001 8002 8003 9000 10000 10001 11001 11002 11003 11004 11005 11006 12001 12002
"""
WITH_TEXT = (2, 3003, 6001, 6005, 6006, 6007, 8001, 8003, 10001)
PAYLOADS: dict[int, Any] = {
    **dict.fromkeys(WITH_TEXT, TextPayload("why")),
    7: TimeoutPayload(1_500, 0),
    71: evicted(5, 9).payload,
    72: ReplicaPayload("t", 3),
    6002: InvalidModulePayload("bad", "m"),
    6003: ExportsPayload("missing", "map"),
    6004: TransformErrorPayload("why", 7, 2, b"k", b"v"),
    6008: MemoryPayload(2, 1),
    12001: SystemPayload("topic", "consumer-offset"),
    12002: SystemPayload("topic", "consumer-offset"),
}


def code_of(number: int) -> ErrorCode:
    return ErrorCode(number, PAYLOADS.get(number))


def test_the_codes_are_those_of_the_reference() -> None:
    assert sorted(CODES) == [int(tag) for tag in TAGS.split()]
    assert {number for number, code in CODES.items() if code.payload} == set(PAYLOADS)


@pytest.mark.parametrize("number", CODES)
def test_every_code_is_read_and_written_with_its_payload(number: int) -> None:
    code = code_of(number)
    data = encode(ERROR_CODE, code, 0)
    assert data[:2] == number.to_bytes(2, "big", signed=True)
    assert decode(ERROR_CODE, data, 0) == code
    for end in range(len(data)):
        with pytest.raises(RemoteProtocolError):
            decode(ERROR_CODE, data[:end], 0)


@pytest.mark.parametrize("number", CODES)
def test_every_error_has_a_text_and_a_name(number: int) -> None:
    code = code_of(number)
    assert bool(code) == (number != 0)
    assert code.name
    assert "{" not in code.text
    assert bool(code.text) == bool(code)


@pytest.mark.parametrize("number", [-2, 3, 2009, 32_767])
def test_an_unknown_code_is_neither_read_nor_written(number: int) -> None:
    with pytest.raises(RemoteProtocolError, match=f"unknown error code {number}"):
        decode(ERROR_CODE, number.to_bytes(2, "big", signed=True), 0)
    with pytest.raises(LocalProtocolError, match=f"unknown error code {number}"):
        encode(ERROR_CODE, ErrorCode(number), 0)


@pytest.mark.parametrize("number", [number for number in CODES if number])
def test_every_code_becomes_an_error_with_its_number(number: int) -> None:
    error = as_exception(code_of(number), about="t")
    assert isinstance(error, errors.BrokerError)
    assert error.code == number
    assert error.retryable == (number in RETRYABLE_CODES)


def test_errors_that_callers_handle_have_their_own_class() -> None:
    classes = {
        2001: errors.TopicNotFound,
        2002: errors.TopicAlreadyExists,
        2007: errors.TopicDeleted,
        6: errors.NotLeader,
        3001: errors.NotLeader,
        1: errors.OffsetOutOfRange,
        71: errors.OffsetEvicted,
    }
    for number, cls in classes.items():
        assert type(as_exception(code_of(number), about="t")) is cls
    assert type(as_exception(code_of(9000))) is errors.BrokerError


def test_an_offset_after_the_end_is_recognised_by_the_text_of_the_server() -> None:
    error = as_exception(other("start offset: 11 is greater than leo: 10"), about="t-0")
    assert type(error) is errors.OffsetOutOfRange
    assert str(error) == "t-0: start offset: 11 is greater than leo: 10"
    assert type(as_exception(other("stream without consumer id"))) is errors.BrokerError


def test_the_error_for_an_evicted_offset_has_the_next_available_offset() -> None:
    error = as_exception(evicted(3, 9))
    assert isinstance(error, errors.OffsetEvicted)
    assert (error.offset, error.next_available) == (3, 9)


def test_the_text_of_the_server_has_priority_over_ours() -> None:
    assert str(as_exception(code_of(2006), about="t!", message="no")) == "t!: no"
    assert str(as_exception(partition_full("t", 1))) == "partition storage is full: t-1"


def test_success_is_not_an_error() -> None:
    assert not NO_ERROR
    assert decode(ERROR_CODE, b"\0\0", 0) is NO_ERROR
