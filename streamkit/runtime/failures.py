"""Describes a failed record: its offset, its value, the error, and the line in the user's code.

The value, its `repr` and the error text come from user code, so none of them is trusted: each may
raise, be very long, or contain terminal escapes.
"""

from __future__ import annotations

import re
import sysconfig
import traceback
from pathlib import Path
from typing import Any

from streamkit.dataflow.contracts import Source
from streamkit.dataflow.endpoints import TopicSource
from streamkit.dataflow.topology import Node
from streamkit.errors import ProcessNotStarted, RegistryError, StageError, StreamKitError
from streamkit.record import Chunk

_VALUE_SHOWN_MAX = 200
_ERROR_SHOWN_MAX = 2_000
_LIBRARIES = (f"{Path(__file__).parents[1]}/", f"{sysconfig.get_path('stdlib')}/")
# Characters that move the cursor, change colours or change the text direction.
_UNPRINTABLE = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def describe_failure(
    node: Node, chunk: Chunk, row: int, cause: BaseException, *, rows: int = 1
) -> StageError:
    """Return the error for one failed row, or for ``rows`` rows that failed in one call."""
    offset = chunk.offsets[row]
    where = place_of(node, chunk, offset)
    if rows > 1:
        where += f" to {chunk.offsets[row + rows - 1]}"
    key = chunk.keys[row]
    lines = [f"stage {node.name!r} failed on {where}: {error_text(cause)}"]
    line = _line_of(cause) or str(node.location)
    if line:  # a source of dead letters is not in the user's files
        lines.append(f"  at: {line}")
    if key is not None:
        lines.append(f"  key: {shown(key)}")
    lines.append(f"  value: {shown(chunk.values[row])}")
    failure = StageError(
        "\n".join(lines),
        stage=node.name,
        topic=chunk.topic,
        partition=chunk.partition,
        offset=offset,
        hint=cause.hint if isinstance(cause, StreamKitError) else "",
    )
    failure.__cause__ = cause
    return failure


def place_of(node: Node, chunk: Chunk, offset: int) -> str:
    """Return where a record came from, as the connector of its source names it."""
    if not chunk.topic:
        return f"row {offset}"
    above = [node]
    for each in above:
        above += [other for other in each.inputs if other not in above]
    connectors = [each.endpoint for each in above if isinstance(each.endpoint, Source)]
    if len(connectors) == 1 and not any(isinstance(each.endpoint, TopicSource) for each in above):
        return connectors[0].place(chunk.topic, chunk.partition, offset)
    return f"{chunk.topic}-{chunk.partition} offset {offset}"


def ends_the_job(error: BaseException) -> bool:
    """Return whether an error ends the job at once: Ctrl-C, or processes that do not start."""
    return isinstance(error, KeyboardInterrupt | ProcessNotStarted)


def is_about_the_record(error: BaseException) -> bool:
    """Return whether a policy may skip a record or put it aside because of an error."""
    return not (ends_the_job(error) or isinstance(error, RegistryError))


def _line_of(error: BaseException) -> str:
    """Return the user's line where an error was raised, also if that was in another process."""
    remote = getattr(error.__cause__, "users_line", None)  # of a RemoteTraceback
    if isinstance(remote, str) and remote:
        return remote
    return users_line(traceback.extract_tb(error.__traceback__))


def error_text(error: BaseException, characters_max: int = _ERROR_SHOWN_MAX) -> str:
    """Return the type and the text of an error, cut to a maximum length and safe to print."""
    try:
        message = str(error)
    except BaseException as raised:
        message = f"(its text cannot be shown: {type(raised).__name__})"
    name = "" if isinstance(error, StreamKitError) else type(error).__name__
    text = f"{name}: {message}" if name and message else name or message
    return printable(text, characters_max)


def shown(value: Any) -> str:
    """Return a value as one line, cut to a maximum length, without terminal escapes."""
    try:
        text = repr(value)
    except BaseException as error:
        text = f"<{type(value).__name__}, whose repr raises {type(error).__name__}>"
    return printable(text, _VALUE_SHOWN_MAX).replace("\n", "\\n")


def printable(text: str, characters_max: int) -> str:
    """Cut a text and escape its control characters except newlines."""
    cut = _UNPRINTABLE.sub(lambda found: repr(found[0])[1:-1], text[:characters_max])
    return f"{cut}... ({len(text)} characters)" if len(text) > characters_max else cut


def users_line(frames: traceback.StackSummary) -> str:
    """Return the innermost line outside streamkit and libraries; empty if there is none."""
    frame = users_frame(frames)
    if frame is None:
        return ""
    return f"{frame.filename}:{frame.lineno} in {frame.name}: {(frame.line or '').strip()}"


def users_frame(frames: traceback.StackSummary) -> traceback.FrameSummary | None:
    """Return the innermost frame outside streamkit and libraries."""
    return next(
        (
            frame
            for frame in reversed(frames)
            if not frame.filename.startswith((*_LIBRARIES, "<"))
            and "site-packages" not in frame.filename
        ),
        None,
    )
