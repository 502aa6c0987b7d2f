"""The records codec: its behaviour, which is the same in both builds."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from siphash24 import siphash24

import streamkit.protocol
from streamkit.errors import RemoteProtocolError
from streamkit.limits import RECORDS_PER_BATCH_MAX
from streamkit.protocol import codec as installed
from streamkit.protocol.batch import OVERHEAD_BYTES, Columns, encode_batch, read_batch_header
from tests.lanes import examples
from tests.protocol.recorded import SEGMENTS, segment_folder, vectors

SOURCE: Final = Path(streamkit.protocol.__file__).parent / "codec.py"
I64_MAX: Final = 2**63 - 1
PLENTY: Final = 1 << 40


def interpreted() -> ModuleType:
    """Load the codec from its source, even where the compiled one is installed."""
    spec = importlib.util.spec_from_file_location("interpreted_codec", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BUILDS: Final = {"interpreted": interpreted(), "installed": installed}
each_build = pytest.mark.parametrize("codec", BUILDS.values(), ids=BUILDS)

Rows = tuple[list[bytes], list[bytes | None], list[int]]
NO_ROWS: Final[Rows] = ([], [], [])
row = st.tuples(
    st.binary(max_size=200), st.none() | st.binary(max_size=70), st.integers(1, 2**31 - 1)
)


def as_columns(found: list[tuple[bytes, bytes | None, int]]) -> Rows:
    return [v for v, _, _ in found], [k for _, k, _ in found], [stamp for *_, stamp in found]


rows = st.lists(row, max_size=40).map(as_columns)


def outcome(function: Any, *arguments: Any) -> Any:
    """Return the result, or the position and the text of the error."""
    try:
        return function(*arguments)
    except RemoteProtocolError as error:
        return error.at, str(error)


def agreed(name: str, *arguments: Any) -> Any:
    """Call both builds, check that they agree and return the result."""
    results = [outcome(getattr(codec, name), *arguments) for codec in BUILDS.values()]
    assert results[0] == results[1]
    return results[0]


def one_record(body: bytes) -> bytes:
    return (1).to_bytes(4, "big") + varint(len(body)) + body


def varint(number: int) -> bytes:
    """Encode a zigzag number in the simplest way."""
    bits = abs(number) * 2 - (number < 0)
    out = b""
    while bits > 127:
        out += bytes([bits % 128 + 128])
        bits //= 128
    return out + bytes([bits])


def record_bytes(row: int, delta_ms: int, key: bytes | None, value: bytes) -> int:
    """Compute the size as in docs/protocol/batches.md, "Size of a record"."""
    length = 1 + len(varint(delta_ms)) + len(varint(row))
    length += 1 if key is None else 1 + len(varint(len(key))) + len(key)
    length += len(varint(len(value))) + len(value) + 1
    return len(varint(length)) + length


PAYLOADS: Final = [
    *(vector.data for vector in vectors("data_plane.json") if vector.kind == "records_payload"),
    *(
        log.data[at + 57 : at + 12 + batch["len"]]
        for name in SEGMENTS
        for log in segment_folder(name)[0]
        for at, batch in zip(
            [sum(12 + b["len"] for b in log.batches[:n]) for n in range(len(log.batches))],
            log.batches,
            strict=True,
        )
        if batch["attrs"] == 0
    ),
]


def test_the_tested_builds_are_the_interpreted_and_the_installed_one() -> None:
    assert BUILDS["interpreted"].COMPILED is False
    is_extension = not str(installed.__file__).endswith(".py")
    assert installed.COMPILED is is_extension


# --- Reading ---------------------------------------------------------------


@each_build
def test_the_reference_record_is_decoded(codec: ModuleType) -> None:
    data = bytes.fromhex("00000001 16 000a02 01026b 067a7a7a 00")
    assert codec.decode_records(data, 0, len(data), 1_000) == ([b"zzz"], [b"k"], [1_005])
    assert codec.check_records(data, 0, len(data)) == 1


@each_build
def test_rows_of_a_batch_without_a_timestamp_have_no_timestamp(codec: ModuleType) -> None:
    data = bytes.fromhex("00000001 16 000a02 01026b 067a7a7a 00")
    for first_timestamp_ms in (0, -1, -I64_MAX):
        assert codec.decode_records(data, 0, len(data), first_timestamp_ms)[2] == [-1]


@each_build
@pytest.mark.parametrize("length", ["14", "18"])  # one byte too short and one too long
def test_a_record_with_a_wrong_length_is_refused(codec: ModuleType, length: str) -> None:
    data = bytes.fromhex(f"00000001 {length} 000a02 01026b 067a7a7a 00 00")
    for function in (codec.check_records, lambda *where: codec.decode_records(*where, 1)):
        with pytest.raises(RemoteProtocolError, match="does not have the announced length"):
            function(data, 0, len(data))


@each_build
def test_record_headers_are_ignored(codec: ModuleType) -> None:
    data = one_record(bytes.fromhex("0000000000 0e"))
    assert codec.decode_records(data, 0, len(data), 1) == ([b""], [None], [1])


@each_build
@pytest.mark.parametrize("flag", [2, 0x80, 0xFF])
def test_a_key_flag_is_0_or_1(codec: ModuleType, flag: int) -> None:
    data = one_record(bytes([0, 0, 0, flag, 0, 0, 0]))
    with pytest.raises(RemoteProtocolError, match=f"key flag {flag}") as caught:
        codec.decode_records(data, 0, len(data), 1)
    assert caught.value.at == 8


@each_build
def test_bytes_after_the_last_record_are_refused(codec: ModuleType) -> None:
    data = one_record(bytes(6)) + b"x"
    with pytest.raises(RemoteProtocolError, match="1 bytes after the last record") as caught:
        codec.decode_records(data, 0, len(data), 1)
    assert caught.value.at == len(data) - 1


@each_build
def test_a_number_has_at_most_ten_bytes_and_64_bits(codec: ModuleType) -> None:
    longest = bytes([0xFF] * 9 + [0x01])
    data = one_record(b"\0" + longest + b"\0\0\0\0")
    assert codec.check_records(data, 0, len(data)) == 1
    for too_long in (bytes([0xFF] * 9 + [0x02]), bytes([0x80] * 10 + [0x00])):
        data = one_record(b"\0" + too_long + b"\0\0\0\0")
        with pytest.raises(RemoteProtocolError, match="more than 64 bits") as caught:
            codec.decode_records(data, 0, len(data), 1)
        assert caught.value.at == 4 + 1 + 1 + 9


@each_build
def test_a_timestamp_above_64_bits_is_read_as_no_timestamp(codec: ModuleType) -> None:
    data = one_record(b"\0" + varint(1) + b"\0\0\0\0")
    assert codec.decode_records(data, 0, len(data), I64_MAX - 1)[2] == [I64_MAX]
    assert codec.decode_records(data, 0, len(data), I64_MAX)[2] == [-1]


@each_build
def test_timestamps_may_decrease_within_a_batch(codec: ModuleType) -> None:
    values, keys, stamps = [b"a"] * 5, [None] * 5, [100, 90, 100, 90, 110]
    end, size = codec.fit_rows(values, keys, stamps, 0, PLENTY, 10)
    data = codec.encode_records(values, keys, stamps, 0, end, size)
    assert codec.decode_records(data, 0, len(data), 100)[2] == stamps


@each_build
def test_records_that_end_after_the_data_are_refused(codec: ModuleType) -> None:
    data = one_record(bytes(6))
    for end in (len(data) + 1, len(data) + 4_096):
        with pytest.raises(RemoteProtocolError, match="cut short"):
            codec.decode_records(data, 0, end, 1)
        with pytest.raises(RemoteProtocolError, match="cut short"):
            codec.check_records(data, 0, end)


@each_build
@pytest.mark.parametrize("count", [2, RECORDS_PER_BATCH_MAX, 2**31 - 1, 2**32 - 1])
def test_a_record_count_too_large_for_the_bytes_is_refused(codec: ModuleType, count: int) -> None:
    data = count.to_bytes(4, "big") + bytes(13)
    with pytest.raises(RemoteProtocolError, match=f"{count} records announced"):
        codec.decode_records(data, 0, len(data), 1)


@examples(300)
@given(data=st.binary(max_size=64) | st.binary(max_size=63).map(one_record), first=st.integers())
@example(data=one_record(b"\0" + b"\xff" * 9 + b"\x02"), first=1)
@example(data=one_record(b"\0" + varint(I64_MAX) + bytes(4)), first=I64_MAX)
@example(data=one_record(b"\0" + varint(-I64_MAX - 1) + bytes(4)), first=1)
def test_both_builds_give_the_same_result_for_any_bytes(data: bytes, first: int) -> None:
    first = max(-I64_MAX - 1, min(first, I64_MAX))
    read = agreed("decode_records", data, 0, len(data), first)
    checked = agreed("check_records", data, 0, len(data))
    assert checked == (len(read[0]) if isinstance(read[0], list) else read)


@examples(300)
@given(data=st.data())
def test_both_builds_give_the_same_result_for_changed_records(data: st.DataObject) -> None:
    payload = bytearray(data.draw(st.sampled_from(PAYLOADS)))
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(payload)))
    for stop in (end, len(payload)):
        read = agreed("decode_records", bytes(payload), 0, stop, 1_700_000_000_000)
        checked = agreed("check_records", bytes(payload), 0, stop)
        assert checked == (len(read[0]) if isinstance(read[0], list) else read)


@pytest.mark.parametrize("number", range(len(PAYLOADS)))
def test_both_builds_refuse_truncated_records_alike(number: int) -> None:
    payload = PAYLOADS[number]
    for end in range(len(payload)):
        at, _ = agreed("decode_records", payload, 0, end, 1)
        assert at <= end


# --- Writing ---------------------------------------------------------------


@given(columns=rows)
def test_both_builds_read_what_they_write(columns: Rows) -> None:
    values, keys, stamps = columns
    if not values:
        return
    end, size = agreed("fit_rows", values, keys, stamps, 0, PLENTY, 1_000)
    assert end == len(values)
    data = agreed("encode_records", values, keys, stamps, 0, end, size)
    assert len(data) == 4 + size
    assert agreed("decode_records", data, 0, len(data), stamps[0]) == columns
    assert agreed("check_records", data, 0, len(data)) == len(values)


@given(columns=rows, start=st.integers(0, 39), budget=st.integers(0, 3_000), most=st.integers(1, 9))
def test_a_batch_gets_as_many_rows_as_fit(
    columns: Rows, start: int, budget: int, most: int
) -> None:
    values, keys, stamps = columns
    if start >= len(values):
        return
    end, size = agreed("fit_rows", values, keys, stamps, start, budget, most)
    sizes = [
        record_bytes(row - start, stamps[row] - stamps[start], keys[row], values[row])
        for row in range(start, len(values))
    ]
    count = end - start
    assert size == sum(sizes[:count])
    assert 1 <= count <= most
    assert count == 1 or size <= budget
    assert count in (most, len(sizes)) or size + sizes[count] > budget
    data = agreed("encode_records", values, keys, stamps, start, end, size)
    assert agreed("decode_records", data, 0, len(data), stamps[start]) == (
        values[start:end],
        keys[start:end],
        stamps[start:end],
    )


@each_build
def test_rows_may_fill_a_batch_to_the_last_byte(codec: ModuleType) -> None:
    two = [b"aa", b"bb"], [None, None], [1, 1]
    _, size = codec.fit_rows(*two, 0, PLENTY, 10)
    assert codec.fit_rows(*two, 0, size, 10) == (2, size)
    assert codec.fit_rows(*two, 0, size - 1, 10) == (1, size // 2)


@given(
    row=st.integers(0, RECORDS_PER_BATCH_MAX),
    delta_ms=st.integers(-(2**31), 2**31 - 1),
    key=st.none() | st.binary(max_size=200),
    value=st.binary(max_size=300),
)
@example(row=63, delta_ms=-64, key=None, value=bytes(63))
@example(row=64, delta_ms=-65, key=bytes(64), value=bytes(64))
@example(row=8_192, delta_ms=-(2**31), key=bytes(8_191), value=bytes(8_192))
def test_record_sizes_match_the_client_reference(
    row: int, delta_ms: int, key: bytes | None, value: bytes
) -> None:
    assert agreed("record_bytes", row, delta_ms, key, value) == record_bytes(
        row, delta_ms, key, value
    )


@pytest.mark.parametrize("value_bytes", [928, 929])
def test_batch_sizes_match_the_official_client(value_bytes: int) -> None:
    columns = Columns([bytes(value_bytes)], [b"k"], [1])
    _, size = agreed("fit_rows", columns.values, columns.keys, columns.timestamps_ms, 0, 1, 1)
    batch = encode_batch(columns, 0, 1, size)
    assert OVERHEAD_BYTES + size == len(batch) == 1_000 + value_bytes - 928
    assert read_batch_header(batch).size_bytes == len(batch)


@each_build
@pytest.mark.parametrize("jump", [2**31, -(2**31) - 1, 2**40])
def test_a_timestamp_delta_above_32_bits_ends_the_batch(codec: ModuleType, jump: int) -> None:
    stamps = [2**41, 2**41 + jump]
    assert codec.fit_rows([b"", b""], [None, None], stamps, 0, PLENTY, 10)[0] == 1
    within = [2**41, 2**41 + (2**31 - 1 if jump > 0 else -(2**31))]
    assert codec.fit_rows([b"", b""], [None, None], within, 0, PLENTY, 10)[0] == 2


@each_build
def test_columns_of_different_length_are_an_assertion_error(codec: ModuleType) -> None:
    for columns in (
        ([b"a", b"b"], [None], [1, 1]),
        ([b"a", b"b"], [None, None], [1]),
        ([], [], []),
    ):
        with pytest.raises(AssertionError):
            codec.fit_rows(*columns, 0, PLENTY, 10)
    with pytest.raises(AssertionError):
        codec.encode_records([b"a"], [None], [1], 0, 2, 100)


@each_build
def test_a_batch_may_have_no_rows(codec: ModuleType) -> None:
    data = codec.encode_records([], [], [], 0, 0, 0)
    assert data == bytes(4)
    assert codec.decode_records(data, 0, 4, 1) == NO_ROWS


# --- Partitions ------------------------------------------------------------


@given(key=st.binary(max_size=300))
def test_both_builds_compute_the_hashes_of_an_independent_siphash(key: bytes) -> None:
    reference = siphash24(len(key).to_bytes(8, "little") + key, key=bytes(16)).digest()
    assert agreed("siphash", key) == int.from_bytes(reference, "little")


@given(
    keys=st.lists(st.none() | st.binary(max_size=20), max_size=50),
    partitions=st.integers(1, 1_000),
    turn=st.integers(0, 2**32 - 1),
)
def test_both_builds_choose_the_same_partitions(
    keys: list[bytes | None], partitions: int, turn: int
) -> None:
    chosen, after = agreed("partition_rows", keys, partitions, turn)
    assert after == (turn + keys.count(None)) % 2**32
    unkeyed = [where for where, key in zip(chosen, keys, strict=True) if key is None]
    assert unkeyed == [(turn + n) % 2**32 % partitions for n in range(len(unkeyed))]
    for where, key in zip(chosen, keys, strict=True):
        assert key is None or where == installed.siphash(key) % partitions


@each_build
def test_choosing_among_zero_partitions_is_an_assertion_error(codec: ModuleType) -> None:
    with pytest.raises(AssertionError, match="partitions"):
        codec.partition_rows([None], 0, 0)


odd_value = st.binary(max_size=5) | st.text(max_size=2) | st.none() | st.integers(0, 3)
odd_stamp = st.integers(-2, 2**64) | st.none() | st.booleans() | st.floats(0, 9)


@each_build
@given(
    st.lists(st.tuples(odd_value, odd_value, odd_stamp), max_size=5),
    st.sampled_from([-1, 0]),
)
def test_columns_with_invalid_values_are_detected(
    codec: Any, given_rows: list[tuple[Any, Any, Any]], lowest_ms: int
) -> None:
    is_valid = all(
        type(value) is bytes
        and (key is None or type(key) is bytes)
        and type(stamp) is int
        and lowest_ms <= stamp <= I64_MAX
        for value, key, stamp in given_rows
    )
    expected = (
        max((len(value) + len(key or b"") for value, key, _ in given_rows), default=0)
        if is_valid
        else -1
    )
    columns = [list(each) for each in zip(*given_rows, strict=True)] or [[], [], []]
    assert codec.scan_columns(*columns, lowest_ms) == expected


@each_build
@given(st.lists(st.integers(-5, 2**62), min_size=1, max_size=9), st.data())
def test_the_highest_timestamp_of_a_range_of_rows_is_found(
    codec: Any, stamps: list[int], data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(stamps) - 1))
    stop = data.draw(st.integers(start + 1, len(stamps)))
    assert codec.highest_of(stamps, start, stop) == max(stamps[start:stop])
