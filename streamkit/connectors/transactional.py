"""Writes to a place that has transactions, each row exactly once.

The place keeps the number of the last commit beside the rows, and changes both in one transaction.

| step of a commit | what the engine does | what the sink does |
|---|---|---|
| rows come | adds them to a file | `block`, `packed` |
| wait | syncs the file | `begin`: may write the rows, in a transaction that stays open |
| the job commits | stores the number of the commit and the size of the file | |
| publish | removes the file afterwards | `publish`: the rows and the number take effect together |
| open, after a crash | compares the number of the place with its own | `connect`; `publish` again |
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Generic, TypeVar

import anyio
import msgspec

from streamkit.connectors.spool import Spool
from streamkit.dataflow.contracts import AcknowledgedWriter, ConnectorEnv, Positions, Prepared
from streamkit.errors import StateMismatch, StreamKitError
from streamkit.record import Chunk

B = TypeVar("B")
T = TypeVar("T")

_PART: Final = "commit"
# Rows of a commit that are kept in memory too; the rest is read from the file.
_KEPT_BYTES_MAX: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class StoredCommit(Generic[B]):
    """The rows of one commit.

    ``number`` is one more than that of the commit before. ``start`` is what `start` has returned
    when the rows were written. ``blocks`` returns the rows from the beginning at each call.
    """

    number: int
    start: bytes
    blocks: Callable[[], Iterable[B]]


class _Mark(msgspec.Struct, frozen=True):
    """The position of a sink: the number of its last commit, and the size of its file."""

    number: int
    size_bytes: int = 0


@dataclass(slots=True)
class _File(Generic[B]):
    """The rows of the next commit. ``kept`` is None if they are only in the file."""

    number: int
    start: bytes = b""
    size_bytes: int = 0
    kept: list[B] | None = field(default_factory=list)


class _Files(Generic[B]):
    """The files of the commits of one sink, and the rows that are in memory too.

    It has the state of its writer, so that the names of a subclass cannot collide with it.
    """

    def __init__(self, env: ConnectorEnv, place: str) -> None:
        self.place = place
        self.app, self.sink = env.app, env.name
        self.is_first = env.is_first
        self.spool = Spool(env.folder)
        self.next: _File[B] = _File(0)
        # Given to the first commit, so that a run that ends early has the number to continue from.
        self.first_positions: Positions = {}
        self.written = self.safe = 0

    def append(self, writer: TransactionalWriter[B], file: _File[B], block: B) -> None:
        if not file.size_bytes:
            file.start = writer.start()
            self.spool.append(file.number, file.start)
        file.size_bytes = self.spool.append(file.number, writer.packed(block))
        if file.kept is not None:
            file.kept.append(block)
            if file.size_bytes > _KEPT_BYTES_MAX:
                file.kept = None

    def commit_of(self, writer: TransactionalWriter[B], file: _File[B]) -> StoredCommit[B]:
        def blocks() -> Iterable[B]:
            if file.kept is not None:
                return iter(file.kept)
            return self.stored(writer, _Mark(file.number, file.size_bytes)).blocks()

        return StoredCommit(file.number, file.start, blocks)

    def stored(self, writer: TransactionalWriter[B], mark: _Mark) -> StoredCommit[B]:
        start = next(self.spool.blocks(mark.number, mark.size_bytes))

        def blocks() -> Iterator[B]:
            stored = self.spool.blocks(mark.number, mark.size_bytes)
            next(stored)
            return writer.unpacked(start, stored)

        return StoredCommit(mark.number, start, blocks)


class TransactionalWriter(AcknowledgedWriter, Generic[B]):
    """A sink of a place that has transactions. ``B`` is what the rows of a chunk are kept as.

    Args:
        env: The run.
        place: What it writes to, for messages.
    """

    # Whether a row that is written again is there twice. If it replaces the one that is there, a
    # job whose state is lost may begin again.
    doubles_rows = True

    def __init__(self, env: ConnectorEnv, place: str) -> None:
        self.description = f"{place} (exactly once)"
        self._files: _Files[B] = _Files(env, place)

    # --- the place --------------------------------------------------------------------

    @abstractmethod
    async def connect(self) -> int:
        """Open the place, and return the number of the last commit that it has; 0 without one.

        A number belongs to the app and the name of the sink. No transaction of an earlier run may
        be able to commit any more.

        Raises:
            StreamKitError: The place cannot be opened.
        """

    async def begin(self, commit: StoredCommit[B]) -> None:  # may stay empty
        """Write the rows of a commit, if that is possible without showing them.

        A row that the place refuses is found here before the job has committed it.

        Raises:
            StreamKitError: A row is refused.
        """

    @abstractmethod
    async def publish(self, commit: StoredCommit[B]) -> None:
        """Write the rows and the number of a commit in one transaction, and commit it.

        Do nothing if the place has the number already: after a crash or a lost connection it is
        not known. Repeat it until it succeeds.

        Raises:
            StateMismatch: The last number of the place is not the one before; see `other_run`.
            StreamKitError: The place has failed for good.
        """

    @abstractmethod
    async def disconnect(self) -> None:
        """Close everything; also called if `connect` has failed, and more than once."""

    # --- the rows ---------------------------------------------------------------------

    def on_chunk(self, chunk: Chunk) -> Chunk:
        return chunk

    def start(self) -> bytes:
        """Return what the rows of the next commit need to be read again, such as their columns."""
        return b""

    @abstractmethod
    def block(self, chunk: Chunk) -> B:
        """Return the rows of a chunk, as they are kept until the commit."""

    def packed(self, block: B) -> bytes:
        """Return rows as bytes; by default as MessagePack, which has no tuples and no datetimes."""
        return msgspec.msgpack.encode(block)

    def unpacked(self, start: bytes, stored: Iterator[bytes]) -> Iterator[B]:
        """Return the rows that were stored as some bytes."""
        return map(msgspec.msgpack.decode, stored)

    # --- what the engine calls --------------------------------------------------------

    @property
    def unacknowledged(self) -> int:
        return self._files.written - self._files.safe

    async def open(self, committed: Positions) -> None:
        files = self._files
        try:
            found = number = await self.connect()
            if _PART not in committed:
                if found and files.is_first and self.doubles_rows:
                    raise _state_lost(files.place, files.app, files.sink, found)
                files.first_positions = {_PART: _encoded(_Mark(found))}
            else:
                mark = msgspec.json.decode(committed[_PART], type=_Mark)
                number = mark.number
                if number == found + 1 and mark.size_bytes:
                    await self.publish(await _in_thread(partial(files.stored, self, mark)))
                elif number != found:
                    raise self.other_run(found, number)
            await _in_thread(files.spool.remove_all)
        except BaseException:
            await self.close()
            raise
        files.next = _File(number + 1)

    async def write(self, chunk: Chunk) -> None:
        files = self._files
        files.written += len(chunk)
        block = self.block(chunk)
        await _in_thread(partial(files.append, self, files.next, block))

    def prepare_commit(self, *, is_last: bool) -> Prepared:
        files = self._files
        file, written = files.next, files.written
        if not file.size_bytes:
            positions, files.first_positions = files.first_positions, {}
            return Prepared(_nothing_to_wait_for, positions)
        files.first_positions = {}
        files.next = _File(file.number + 1)
        commit = files.commit_of(self, file)

        async def wait() -> None:
            await _in_thread(partial(files.spool.sync, file.number))
            await self.begin(commit)
            files.safe = written

        async def publish() -> None:
            await self.publish(commit)
            await _in_thread(partial(files.spool.remove, file.number))

        mark = _Mark(file.number, file.size_bytes)
        return Prepared(wait, {_PART: _encoded(mark)}, publish)

    async def close(self) -> None:
        await self.disconnect()
        self._files.spool.close()

    def other_run(self, found: int | None, expected: int) -> StateMismatch:
        """Return the error for a place that does not have the last commit of this run."""
        files = self._files
        return other_run(files.place, files.app, files.sink, found, expected)


def other_run(place: str, app: str, sink: str, found: int | None, expected: int) -> StateMismatch:
    """Return the error for a place that does not have the last commit of a run."""
    return StateMismatch(
        f"{place} has commit {found} of the sink {sink!r} of {app!r}, but this run continues after "
        f"commit {expected}",
        hint=f"another copy of the job writes there, or the state of the job or {place} was "
        "restored from a backup; --fresh-state starts over",
    )


def _state_lost(place: str, app: str, sink: str, found: int) -> StateMismatch:
    return StateMismatch(
        f"{place} has commit {found} of the sink {sink!r} of {app!r}, but the state of the job is "
        "new, so rows would be written again",
        hint="run the job with the data folder of its earlier runs; --fresh-state starts over",
    )


def _encoded(mark: _Mark) -> str:
    return msgspec.json.encode(mark).decode()


async def _nothing_to_wait_for() -> None:
    pass


async def _in_thread(call: Callable[[], T]) -> T:
    try:
        return await anyio.to_thread.run_sync(call)
    except OSError as error:
        raise StreamKitError(f"rows cannot be kept on disk: {error}") from error
