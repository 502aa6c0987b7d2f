"""Messages between a job and the processes that carry out its calls.

Each is a byte for its kind, its length in 8 bytes, and a pickle.
"""

from __future__ import annotations

import io
import pickle
import socket
import struct
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, auto
from typing import Final

from streamkit.errors import NotPicklable, RemoteError
from streamkit.runtime.failures import error_text, users_line

_HEADER: Final = struct.Struct(">BQ")
# Shorter messages are copied into one buffer, so they need only one system call.
_JOINED_BYTES_MAX: Final = 65_536
_BUFFER_BYTES: Final = 65_536


class Kind(IntEnum):
    """What a message means."""

    SETUP = auto()
    READY = auto()
    NOT_STARTED = auto()
    CALL = auto()
    RESULT = auto()
    FAILURE = auto()


class Unreadable(Exception):
    """A message arrived completely, but it cannot be unpickled; the next one can be read."""


class RemoteTraceback(Exception):
    """The traceback of an error in another process, which is the cause of the error here.

    ``users_line`` is the innermost line in the user's code, or empty.
    """

    def __init__(self, text: str, line: str) -> None:
        super().__init__(text)
        self.text = text
        self.users_line = line

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as a message. ``pickled`` is None if it cannot be pickled."""

    pickled: bytes | None
    type_name: str
    text: str
    traceback: str
    users_line: str

    def error(self) -> BaseException:
        """Return the error, or a `RemoteError` if it cannot be sent as it is."""
        error = self._original() or RemoteError(self.text, type_name=self.type_name)
        error.__cause__ = RemoteTraceback(self.traceback, self.users_line)
        return error

    def _original(self) -> BaseException | None:
        if self.pickled is None:
            return None
        try:
            error = pickle.loads(self.pickled)
        except BaseException:  # the class of the user may raise anything
            return None
        return error if isinstance(error, BaseException) else None


def failure_of(error: BaseException) -> Failure:
    """Describe an error that a call raised."""
    try:
        pickled = pickle.dumps(error)
    except BaseException:  # the class of the user may raise anything
        pickled = None
    try:
        text = "".join(traceback.format_exception(error))
    except BaseException as raised:
        text = f"(its traceback cannot be shown: {type(raised).__name__})\n"
    line = users_line(traceback.extract_tb(error.__traceback__))
    return Failure(pickled, type(error).__qualname__, error_text(error), text, line)


class Parts:
    """A pickle as the pieces that the pickler writes; large values are not copied.

    The pickler calls `write`, which is Python code, so other threads can run in between.
    """

    def __init__(self) -> None:
        self.pieces: list[bytes | memoryview] = []
        self.length = 0

    def write(self, data: bytes | memoryview) -> int:
        self.pieces.append(data)
        self.length += len(data)
        return len(data)


def pickled(value: object) -> Parts:
    """Pickle a value; this may raise anything, because it calls methods of the user's classes."""
    parts = Parts()
    pickle.Pickler(parts, protocol=pickle.HIGHEST_PROTOCOL).dump(value)
    return parts


def pickled_arguments(arguments: tuple[object, ...]) -> Parts:
    """Pickle the arguments of a call.

    Raises:
        NotPicklable: One of them cannot be pickled.
    """
    try:
        return pickled(arguments)
    except BaseException as error:
        raise NotPicklable(_which(arguments), error_text(error)) from error


def _which(arguments: tuple[object, ...]) -> str:
    if len(arguments) == 1:
        return "the argument"
    for number, each in enumerate(arguments, 1):
        try:
            pickled(each)
        except BaseException:
            return f"argument {number} of {len(arguments)}"
    return "the arguments"


class Messages:
    """Sends and receives messages on a connected socket; both block."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        # Its methods are faster than those of `socket.makefile`, which are Python code.
        self._input = io.BufferedReader(io.FileIO(link.fileno(), closefd=False), _BUFFER_BYTES)

    def send(self, kind: Kind, parts: Parts) -> None:
        """Send a message.

        Raises:
            OSError: The other end is closed.
        """
        header = _HEADER.pack(kind, parts.length)
        if parts.length <= _JOINED_BYTES_MAX:
            self._link.sendall(b"".join((header, *parts.pieces)))
            return
        self._link.sendall(header)
        for piece in parts.pieces:
            self._link.sendall(piece)

    def receive(self) -> tuple[Kind, object]:
        """Wait for a message.

        Raises:
            EOFError: The other end is closed.
            Unreadable: The message cannot be unpickled.
        """
        try:
            header = self._input.read(_HEADER.size)
            if len(header) < _HEADER.size:
                raise EOFError
            kind, length = _HEADER.unpack(header)
            body = _Body(self._input, length)
        except OSError as error:
            raise EOFError from error
        try:
            value = pickle.Unpickler(body).load()
        except BaseException as error:
            body.skip()
            raise Unreadable(error_text(error)) from error
        return Kind(kind), value

    def close(self) -> None:
        """Close both directions; no other thread may use them."""
        self._input.close()
        self._link.close()


class _Body:
    """The file from which a message is unpickled; it ends with the message.

    Its methods are Python code, so other threads can run while a large message is unpickled.
    """

    def __init__(self, source: io.BufferedReader[io.FileIO], length: int) -> None:
        self._source = source
        self._left = length

    def read(self, size: int) -> bytes:
        return self._counted(self._source.read, size)

    def readline(self) -> bytes:
        return self._counted(self._source.readline, self._left)

    def readinto(self, buffer: memoryview) -> int:
        view = memoryview(buffer)[: self._left]
        done = 0
        while done < len(view):
            count = self._source.readinto(view[done:])
            if not count:
                self._left = 0
                break
            done += count
        self._left = max(self._left - done, 0)
        return done

    def skip(self) -> None:
        """Read the rest of the message."""
        while self._left:
            self.read(1 << 20)

    def _counted(self, read: Callable[[int], bytes], size: int) -> bytes:
        data = read(min(size, self._left))
        # At the end of the file, nothing is left either.
        self._left = self._left - len(data) if data else 0
        return data
