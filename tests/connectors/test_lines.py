"""Lines of files: how they are read in blocks, and where a reader resumes."""

from __future__ import annotations

import io
import random
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamkit import App
from streamkit.connectors import ConnectorEnv
from streamkit.connectors.files import Files, Jsonl, lines
from streamkit.connectors.files.lines import LineReader, Mark
from streamkit.env import SystemClock
from streamkit.line_block import LineBlock

TEXTS = st.lists(
    st.sampled_from([b"", b"a", b"bc\r", b"\r", b"d" * 30, b"\xef\xbb\xbf"]), max_size=30
).map(b"\n".join)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def expected_of(data: bytes, *, has_empty: bool) -> list[tuple[int, bytes]]:
    found = data.removeprefix(lines.BOM).split(b"\n")
    if data.endswith(b"\n") or not data:
        found.pop()
    numbered = [(n, each.removesuffix(b"\r")) for n, each in enumerate(found, 1)]
    return [(n, each) for n, each in numbered if each or has_empty]


@given(
    data=TEXTS,
    rows_max=st.integers(1, 5),
    block_bytes=st.sampled_from([1, 7, 40, 1_000]),
    has_empty=st.booleans(),
)
def test_lines_are_those_of_the_text_and_resume_after_every_read(
    data: bytes, rows_max: int, block_bytes: int, has_empty: bool
) -> None:
    expected = expected_of(data, has_empty=has_empty)
    found: list[tuple[int, bytes]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "BLOCK_BYTES", block_bytes)
        reader = LineReader(io.BytesIO(data), Mark(), has_empty=has_empty)
        while rows := reader.read(rows_max, is_complete=True):
            assert 0 < len(rows.values) <= rows_max
            found += zip(rows.numbers, rows.values, strict=True)
            file = io.BytesIO(data)
            file.seek(rows.end.byte)
            rest = LineReader(file, rows.end, has_empty=has_empty).read(1_000, is_complete=True)
            first = [] if rest is None else [(rest.numbers[0], rest.values[0])]
            assert first == expected[len(found) : len(found) + 1]
    assert found == expected


@pytest.mark.anyio
@pytest.mark.parametrize("seed", range(4))
async def test_a_reader_that_reads_ahead_loses_no_row(tmp_path: Path, seed: int) -> None:
    chosen = random.Random(seed)
    count = 0
    for number in range(20):
        size = chosen.choice([0, 1, 3_000, 30_000])
        rows = b"".join(b'{"n":%d}\n' % each for each in range(count, count + size))
        (tmp_path / f"{number:02}.jsonl").write_bytes(rows)
        count += size
    env = ConnectorEnv("rows", "app", tmp_path, SystemClock(), until_end=True)
    reader = Files(tmp_path / "*.jsonl", Jsonl()).reader(env)
    found: list[bytes] = []
    try:
        await reader.open({})
        while True:
            with anyio.move_on_after(chosen.choice([0.0, 0.001, 1.0])):  # the engine may cancel
                chunk = await reader.next()
                if chunk is None:
                    break
                found += chunk.values
            await anyio.sleep(chosen.choice([0.0, 0.0, 0.003]))
    finally:
        await reader.close()
    assert found == [b'{"n":%d}' % each for each in range(count)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'{"n":1}\n{"n":2}', True),
        (b'{"n":1}', True),
        (b'{"n":1}\n\n{"n":2}', False),
        (b'{"n":1}{"n":\n2}', False),
        (b'{"n":1\n}', False),
        (b' {"n":1}\n{"n":2}', False),
        (b"", False),
    ],
)
def test_lines_are_braced_only_if_each_of_them_is(text: bytes, expected: bool) -> None:
    assert LineBlock(text, text.count(b"\n") + 1).are_braced is expected


@given(st.lists(st.sampled_from([b'{"n":1}', b'{"m":2}', b"{}", b"{", b"}", b"", b"[]", b" {}"])))
def test_braced_lines_are_found_as_one_by_one(lines: list[bytes]) -> None:
    expected = bool(lines) and all(each[:1] == b"{" and each[-1:] == b"}" for each in lines)
    assert LineBlock(b"\n".join(lines), max(1, len(lines))).are_braced is expected


def test_values_that_cross_lines_are_errors_and_empty_lines_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"n":1}{"n":\n2}\n\n{"n":3}\n')
    app = App("lines")
    rows = app.stream(Files(path, Jsonl()), dict[str, int], on_error="skip")
    with app.test() as job:
        job.read(rows)
        assert job.output(rows) == [{"n": 3}]
    path.write_bytes(b'{"n":1}\n\n{"n":3}\n')
    with app.test() as job:
        job.read(rows)
        assert job.output(rows) == [{"n": 1}, {"n": 3}]
