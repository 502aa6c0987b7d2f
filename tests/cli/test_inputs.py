"""Inputs of produce: pipes, named pipes, devices, compressed and damaged files."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamkit.cli.inputs import BLOCK_BYTES, Stop, open_file
from streamkit.errors import DataError, UsageError
from tests.cli.conftest import Run
from tests.cli.processes import COMMAND, WAIT_S, environment, read_until, run, started


def read_all(path: Path) -> bytes:
    async def read() -> bytes:
        source, stop = open_file(path), Stop()
        try:
            parts = []
            while block := await source.read(stop):
                assert len(block) <= BLOCK_BYTES
                parts.append(block)
            return b"".join(parts)
        finally:
            source.close()

    return anyio.run(read)


@pytest.mark.parametrize(
    ("command", "stored"),
    [
        ("{streamkit} produce t -f <(printf 'a\\nb\\n')", b"a\nb\n"),
        ("printf 'a\\nb\\n' | {streamkit} produce t -f /dev/stdin", b"a\nb\n"),
        ("printf 'a\\nb\\n' > x; {streamkit} produce t -f /dev/stdin < x", b"a\nb\n"),
        ("{streamkit} produce t -f /dev/null", b""),
        ("{streamkit} produce t < /dev/null", b""),
        ("printf 'a\\n' > x; {streamkit} produce t -f x -f <(printf 'b\\n') -f x", b"a\nb\na\n"),
        ("{streamkit} produce t --raw -f <(printf 'a\\nb')", b"a\nb\n"),
    ],
)
def test_pipes_files_and_devices_can_be_read(tmp_path: Path, command: str, stored: bytes) -> None:
    line = command.format(streamkit=" ".join(COMMAND))
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        timeout=WAIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert run(tmp_path, "consume", "t", "-B", "-d").out == stored


def test_a_named_pipe_is_read_until_its_writer_closes_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with started(tmp_path, "produce", "t", "-f", "pipe") as producer:
        read_until(producer, b"created topic")
        with (tmp_path / "pipe").open("wb") as writer:
            for number in range(3):
                writer.write(b"%d\n" % number)
                writer.flush()
        assert producer.wait(WAIT_S) == 0
    assert run(tmp_path, "consume", "t", "-B", "-d").out == b"0\n1\n2\n"


def test_ctrl_c_ends_the_wait_for_a_writer_and_keeps_earlier_lines(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "lines").write_bytes(b"a\n")
    with started(tmp_path, "produce", "t", "-f", "lines", "-f", "pipe") as producer:
        read_until(producer, b"created topic")
        assert run(tmp_path, "consume", "t", "-B", "-n", "1").lines == [b"a"]
        producer.send_signal(signal.SIGINT)
        _, err = producer.communicate(timeout=WAIT_S)
    assert producer.returncode == 130
    assert b"stopped: " in err
    assert b"1 record produced to t" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-f", "."), "cannot read .: it is a folder"),
        (("-f", "none"), "cannot read none: No such file or directory"),
        (("-f", "socket"), "cannot read socket: No such device or address"),
        (("-f", "good", "-f", "none"), "cannot read none"),
    ],
)
def test_an_unreadable_file_is_refused_before_anything_is_sent(
    tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    import socket

    (tmp_path / "good").write_bytes(b"a\n")
    with socket.socket(socket.AF_UNIX) as listener:
        before = Path.cwd()
        os.chdir(tmp_path)  # the path of a socket has a maximum length
        listener.bind("socket")
        os.chdir(before)
        ended = run(tmp_path, "produce", "t", *arguments)
    assert ended.code == 2
    assert words in ended.err
    assert not (tmp_path / ".streamkit").exists()


def test_a_file_name_with_a_null_byte_is_refused() -> None:
    with pytest.raises(UsageError, match="embedded null byte"):
        open_file(Path("a\0b"))


@given(parts=st.lists(st.binary(max_size=300_000), max_size=4), padding=st.integers(0, 100_000))
def test_a_file_of_several_gzip_members_is_read_completely(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], padding: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "members.gz"
    path.write_bytes(b"".join(map(gzip.compress, parts)) + b"\0" * padding)
    assert read_all(path) == b"".join(parts)


def test_blocks_stay_small_even_if_a_file_is_highly_compressed(tmp_path: Path) -> None:
    (tmp_path / "zeros.gz").write_bytes(gzip.compress(bytes(20 * BLOCK_BYTES)))
    assert len(read_all(tmp_path / "zeros.gz")) == 20 * BLOCK_BYTES


@pytest.mark.parametrize(
    "data",
    [
        b"no gzip at all",
        gzip.compress(b"x" * 100, mtime=0)[:-1],
        gzip.compress(b"x" * 100, mtime=0)[:5],
        gzip.compress(b"x" * 100, mtime=0)[:-8] + bytes(8),
        gzip.compress(b"x", mtime=0) + b"rest",
    ],
)
def test_a_damaged_gzip_file_is_an_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "bad.gz").write_bytes(data)
    with pytest.raises(DataError, match=r"cannot read .*bad\.gz"):
        read_all(tmp_path / "bad.gz")


def test_a_byte_order_mark_is_not_part_of_the_first_line(on_cluster: Run, tmp_path: Path) -> None:
    on_cluster("topic", "create", "marked")
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b'\xef\xbb\xbf{"c":"%b"}\n' % name.encode())
    files = ("-f", "a", "-f", "b")
    assert on_cluster("produce", "marked", "--key-field", "c", *files).code == 0
    assert on_cluster("produce", "marked", "--raw", "-f", "a").code == 0
    printed = on_cluster("consume", "marked", "-B", "-d")
    assert printed.out == b'{"c":"a"}\n{"c":"b"}\n\xef\xbb\xbf{"c":"a"}\n\n'
