"""The position of a reader: with responses cut anywhere, a log is read completely and once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamkit.client.consume.positions import Position
from streamkit.errors import CorruptBatch, UsageError
from streamkit.protocol.compression import Codec
from streamkit.protocol.data_plane import FetchablePartition
from streamkit.record import Offset
from tests.broker.running import batch_of

SIZES = [3, 1, 4, 1, 5]
CODECS = [Codec.NONE, Codec.GZIP, Codec.LZ4, Codec.NONE, Codec.ZSTD]


def log_of(sizes: list[int], codecs: list[Codec], gap: int = 0) -> tuple[bytes, list[int]]:
    """Return a log with batches of these sizes, and the byte at which each batch ends."""
    log, ends, offset = b"", [0], 0
    for size, codec in zip(sizes, codecs, strict=True):
        values = [b"value %d" % number for number in range(offset, offset + size)]
        log += batch_of(*values, base_offset=offset, codec_used=codec)
        ends.append(len(log))
        offset += size + gap
    return log, ends


def answer(records: bytes, next_filter_offset: int = -1) -> FetchablePartition:
    return FetchablePartition(0, records=records, next_filter_offset=next_filter_offset)


def starts(ends: list[int], sizes: list[int]) -> dict[int, int]:
    """Return the byte at which the batch with each offset begins."""
    found, offset = {}, 0
    for at, size in zip(ends, sizes, strict=False):
        for number in range(offset, offset + size):
            found[number] = at
        offset += size
    return found


LOG, ENDS = log_of(SIZES, CODECS)
AT = starts(ENDS, SIZES)
COUNT = sum(SIZES)


@pytest.mark.parametrize("start", range(COUNT))
def test_a_response_cut_at_any_byte_gives_whole_batches_only(start: int) -> None:
    begin = AT[start]
    for cut in range(begin, len(LOG) + 1):
        whole = max(end for end in ENDS if end <= cut)
        next_offset = next((number for number in range(COUNT) if AT[number] >= whole), COUNT)
        position = Position("t", 0, start)
        headers = position.inspect(answer(LOG[begin:cut]))
        assert position.next_offset == start
        chunk = position.decode(headers)
        assert headers.is_cut == (cut != whole)
        if whole <= begin:
            assert (chunk, headers.next_offset) == (None, None)
            assert (headers.reopen_bytes is None) == (cut == begin)
            assert position.next_offset == start
            continue
        assert chunk is not None
        assert list(chunk.offsets) == list(range(start, next_offset))
        assert chunk.values == [b"value %d" % n for n in range(start, next_offset)]
        assert headers.next_offset == position.next_offset == next_offset
        assert headers.reopen_bytes is None


@given(st.lists(st.integers(1, 4_000), min_size=1, max_size=200))
def test_responses_cut_at_random_lose_and_repeat_nothing(cuts: list[int]) -> None:
    position = Position("t", 0, 0)
    found: list[int] = []
    wanted_bytes = 1
    for size in [*cuts, *[len(LOG)] * len(SIZES)]:
        if position.next_offset == COUNT:
            break
        begin = AT[position.next_offset]
        headers = position.inspect(answer(LOG[begin : begin + max(size, wanted_bytes)]))
        if headers.reopen_bytes is not None:
            assert headers.reopen_bytes > wanted_bytes or size > wanted_bytes
            wanted_bytes = max(wanted_bytes, headers.reopen_bytes)
        elif (chunk := position.decode(headers)) is not None:
            found += chunk.offsets
    assert found == list(range(COUNT))


def test_request_sizes_grow_only_until_the_first_batch_is_complete() -> None:
    log = batch_of(b"x" * 100_000)
    position, asked_bytes, turns = Position("t", 0, 0), 1, 0
    while (headers := position.inspect(answer(log[:asked_bytes]))).reopen_bytes is not None:
        asked_bytes = headers.reopen_bytes
        turns += 1
    assert position.decode(headers) is not None
    assert turns < 12


def test_a_gap_in_the_offsets_of_the_log_is_kept() -> None:
    """A gap may also be a damaged offset, which has no checksum: so it must arrive twice."""
    last = batch_of(b"c", base_offset=7)
    position = Position("t", 0, 1)
    with pytest.raises(CorruptBatch, match="1 was requested, but the batch"):
        position.inspect(answer(batch_of(b"a", b"b") + last))
    headers = position.inspect(answer(batch_of(b"a", b"b") + last))
    assert headers.is_cut
    chunk = position.decode(headers)
    assert chunk is not None
    assert (list(chunk.offsets), headers.next_offset) == ([1], 2)
    with pytest.raises(CorruptBatch, match="2 was requested, but the batch"):
        position.inspect(answer(last))
    chunk = position.decode(position.inspect(answer(last)))
    assert chunk is not None
    assert list(chunk.offsets) == [7]
    assert position.next_offset == 8


@pytest.mark.parametrize("start", range(COUNT))
@pytest.mark.parametrize("bit", range(64))
def test_a_flipped_bit_in_an_offset_moves_or_loses_no_record(start: int, bit: int) -> None:
    """Each of the offsets in a response is damaged in turn, once.

    One case cannot be detected: reading starts inside a batch that arrives alone, and its damaged
    offsets still include the start.
    """
    for at in [at for at in ENDS[:-1] if at >= AT[start]]:
        base = 9 ^ (1 << (63 - (bit // 8 * 8 + 7 - bit % 8)))
        if at == ENDS[-2] and start >= 9 and base <= start < base + SIZES[-1]:
            continue
        byte = at + bit // 8
        damaged = LOG[:byte] + bytes([LOG[byte] ^ (1 << bit % 8)]) + LOG[byte + 1 :]
        position = Position("t", 0, start)
        found: list[int] = []
        logs = [damaged, LOG, LOG]
        while position.next_offset < COUNT:
            begin = AT[position.next_offset]
            try:
                chunk = position.decode(position.inspect(answer(logs.pop(0)[begin:])))
            except CorruptBatch:
                assert not found
                continue
            assert chunk is not None
            assert chunk.values == [b"value %d" % number for number in chunk.offsets]
            found += chunk.offsets
        assert found == list(range(start, COUNT))


@pytest.mark.parametrize("bit", range(64))
def test_a_flipped_bit_in_the_offset_of_a_single_batch_loses_nothing(bit: int) -> None:
    """Each response has one batch; the offset of each is damaged in turn, once.

    A batch must begin where the one before it ended. A reader that only checks that the batch holds
    the next offset accepts offsets 9 to 13 damaged to 8 to 12, and drops a record as already read.
    """
    for row, at in enumerate(ENDS[:-1]):
        byte = at + bit // 8
        damaged = LOG[:byte] + bytes([LOG[byte] ^ (1 << bit % 8)]) + LOG[byte + 1 :]
        position = Position("t", 0, 0)
        found: list[int] = []
        damages = 0
        while position.next_offset < COUNT:
            begin = AT[position.next_offset]
            end = next(end for end in ENDS if end > begin)
            log = damaged if begin == at and not damages else LOG
            damages += log is damaged
            try:
                chunk = position.decode(position.inspect(answer(log[begin:end])))
            except CorruptBatch:
                continue
            assert chunk is not None
            assert chunk.values == [b"value %d" % number for number in chunk.offsets]
            found += chunk.offsets
        assert found == list(range(COUNT)), f"batch {row} was damaged"


def test_a_response_without_records_after_filtering_moves_the_position() -> None:
    position = Position("t", 0, 5)
    headers = position.inspect(answer(b"", next_filter_offset=9))
    assert (position.decode(headers), headers.next_offset, position.next_offset) == (None, 9, 9)


@given(st.integers(57, len(LOG) - 1), st.integers(0, 7))
def test_a_flipped_bit_is_detected_or_has_no_effect(at: int, bit: int) -> None:
    """The checksum does not cover the first 17 bytes of a batch; the others must not change."""
    batch = next(end for end in reversed(ENDS) if end <= at)
    if at - batch < 21:
        return
    damaged = LOG[:at] + bytes([LOG[at] ^ (1 << bit)]) + LOG[at + 1 :]
    position = Position("t", 0, 0)
    with pytest.raises(CorruptBatch, match="t-0 offset") as caught:
        position.decode(position.inspect(answer(damaged)))
    assert AT[caught.value.offset] == batch
    assert position.next_offset == 0


# --- Start offsets: docs/protocol/produce-and-fetch.md, "Where a consumer starts" ----------------


@pytest.mark.parametrize(
    ("offset", "stored_next", "expected"),
    [
        (Offset.absolute(1), None, 1),
        (Offset.absolute(99), None, 99),
        (Offset.absolute(1), 4, 1),
        (Offset.beginning(), None, 2),
        (Offset.beginning(3), None, 5),
        (Offset.beginning(99), None, 10),
        (Offset.beginning(), 4, 4),
        (Offset.beginning(2), 4, 6),
        (Offset.beginning(), 0, 2),
        (Offset.beginning(), 99, 10),
        (Offset.end(), None, 10),
        (Offset.end(3), None, 7),
        (Offset.end(99), None, 2),
        (Offset.end(), 4, 4),
        (Offset.end(2), 4, 2),
        (Offset.end(2), 9, 7),
    ],
)
def test_a_start_is_resolved_as_in_every_fluvio_client(
    offset: Offset, stored_next: int | None, expected: int
) -> None:
    assert offset.resolve(2, 10, stored_next) == expected


@given(st.sampled_from(["beginning", "end"]), st.integers(0, 2**32))
def test_an_offset_can_be_parsed_from_text(word: str, count: int) -> None:
    offset = Offset.beginning(count) if word == "beginning" else Offset.end(count)
    assert Offset.parse(str(offset)) == offset
    assert Offset.parse(str(Offset.absolute(count))) == Offset.absolute(count)


def test_a_negative_offset_is_refused() -> None:
    for make in (Offset.beginning, Offset.end, Offset.absolute):
        with pytest.raises(UsageError):
            make(-1)
