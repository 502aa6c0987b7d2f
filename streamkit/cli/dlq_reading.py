"""Reads what `streamkit dlq` shows: records of a topic, or lines of a file, up to the end."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final

import anyio

from streamkit.cli.session import OPEN_TIMEOUT_S, Session, note
from streamkit.client.consume.offsets import OffsetClient
from streamkit.client.retrying import retrying
from streamkit.dataflow.dead_letters import Letter, decode_letter
from streamkit.errors import ConfigError, DataError, StreamKitError, UsageError
from streamkit.record import Chunk

# Gets the records one chunk after the other, and returns whether it wants more.
Take = Callable[[Chunk], bool]

_LINES_MAX: Final = 1_000
_PLACE: Final = re.compile(r"(?:([0-9]{1,9}):)?([0-9]{1,18})")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record is in a topic. Without a partition, the topic has only one."""

    partition: int | None
    offset: int

    @classmethod
    def parse(cls, text: str) -> Place:
        """Read ``OFFSET`` or ``PARTITION:OFFSET``.

        Raises:
            UsageError: It is neither.
        """
        found = _PLACE.fullmatch(text)
        if found is None:
            raise UsageError(
                f"{text!r} is not a valid place (examples: 12, 0:12)",
                hint="the first column of `streamkit dlq list` has the places",
            )
        return cls(None if found[1] is None else int(found[1]), int(found[2]))

    def partition_of(self, topic: str, partitions: int) -> int:
        """Return the partition in a topic with some partitions.

        Raises:
            UsageError: It does not exist, or the place does not have one and needs it.
        """
        if self.partition is None and partitions > 1:
            raise UsageError(
                f"the topic {topic!r} has {partitions} partitions, so {self.offset} can be a "
                "place in each",
                hint=f"give the partition, too, for example 0:{self.offset}",
            )
        if self.partition is not None and self.partition >= partitions:
            raise UsageError(
                f"the topic {topic!r} has no partition {self.partition} "
                f"(partition count: {partitions})"
            )
        return self.partition or 0


def letters_of(chunk: Chunk) -> list[Letter | None]:
    """Return the letter of each record; None if it is not one."""
    return list(map(_letter_or_none, chunk.values))


def _letter_or_none(value: bytes) -> Letter | None:
    try:
        return decode_letter(value)
    except DataError:
        return None


# --- files --------------------------------------------------------------------------------


def is_file(name: str) -> bool:
    """Return whether a name is the path of a file: names of topics have no dot and no slash."""
    return "." in name or "/" in name


def read_file(path: Path, take: Take) -> None:
    """Read a file of JSON lines. An offset is the number of a line, from 1.

    Raises:
        ConfigError: The file cannot be read.
    """
    try:
        with path.open("rb") as lines:
            _read_lines(lines, take)
    except BrokenPipeError:
        raise  # it is about the output, which `take` writes to
    except OSError as error:
        if isinstance(error, StreamKitError):
            raise
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error


def _read_lines(lines: BinaryIO, take: Take) -> None:
    first = 1
    while found := [line.rstrip(b"\r\n") for line in islice(lines, _LINES_MAX)]:
        offsets = range(first, first + len(found))
        first = offsets.stop
        unknown = [-1] * len(found)
        if not take(Chunk(found, [None] * len(found), unknown, offsets)):
            return


# --- topics -------------------------------------------------------------------------------


class TopicLetters:
    """The records of one topic.

    Raises:
        TopicNotFound: The topic does not exist.
        StreamKitError: The broker did not respond within OPEN_TIMEOUT_S.
    """

    def __init__(self, session: Session, topic: str) -> None:
        self.session = session
        self.topic = topic
        self._retries = _Retries()

    async def partitions(self) -> int:
        """Return the number of partitions."""
        cluster = self.session.client.cluster
        return await retrying(
            cluster,
            partial(cluster.partition_count, self.topic),
            self.topic,
            open_timeout_s=OPEN_TIMEOUT_S,
            on_retry=self._retries.report,
        )

    async def bounds(self, partition: int) -> tuple[int, int]:
        """Return the first stored offset of a partition, and its end offset."""
        cluster = self.session.client.cluster
        return await retrying(
            cluster,
            partial(OffsetClient(cluster).bounds, self.topic, partition),
            self.topic,
            open_timeout_s=OPEN_TIMEOUT_S,
            on_retry=self._retries.report,
        )

    async def read(self, partition: int, start: int, take: Take) -> bool:
        """Read a partition from an offset up to its current end.

        Returns:
            Whether ``take`` wants more.
        """
        first, end = await self.bounds(partition)
        if start >= end:
            return True
        with anyio.CancelScope() as scope:
            self._retries = _Retries(scope)
            consumer = self.session.client.consumer(
                self.topic,
                start_offsets={partition: max(start, first)},
                partitions=[partition],
                until_end=True,
                open_timeout=OPEN_TIMEOUT_S,
                on_retry=self._retries.report,
            )
            async with aclosing(consumer.chunks()) as chunks:
                async for chunk in chunks:
                    self._retries.clear()
                    if not take(chunk):
                        return False
        if self._retries.failure is not None:
            raise self._retries.failure
        return True

    async def record_at(self, partition: int, offset: int) -> Chunk | None:
        """Return a single record; None if the offset has none."""
        first, end = await self.bounds(partition)
        if not first <= offset < end:
            return None
        client = self.session.client
        found = await retrying(
            client.cluster,
            partial(client.fetch, self.topic, partition, offset),
            self.topic,
            open_timeout_s=OPEN_TIMEOUT_S,
            on_retry=self._retries.report,
        )
        chunk = found.chunk.slice(0, 1)
        return chunk if len(chunk) and chunk.offsets[0] == offset else None


class _Retries:
    """Reports the first of several failures, and cancels the reading after OPEN_TIMEOUT_S."""

    def __init__(self, scope: anyio.CancelScope | None = None) -> None:
        self.failure: Exception | None = None
        self._scope = scope
        self._since_s: float | None = None

    def clear(self) -> None:
        self._since_s = None

    def report(self, error: Exception, attempt: int) -> None:
        now_s = anyio.current_time()
        if self._since_s is None:
            self._since_s = now_s
            note(f"retrying: {error}")
        if self._scope is not None and now_s - self._since_s > OPEN_TIMEOUT_S:
            self.failure = error
            self._scope.cancel()
