"""Pages of a JSON API: their records, what follows them, and how far they are read."""

from __future__ import annotations

import datetime as dt
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Literal

import msgspec

from streamkit.connectors.http.bodies import Path, encode_row, found_at, rows_of
from streamkit.errors import StreamKitError, UsageError, shown

# Records at the current cursor value that are remembered, to recognize them if they come again.
_SEEN_MAX: Final = 1_000
# Not 12e3, which may be the beginning of a hash.
_NUMBER: Final = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
# Two records may be in another order than their texts, such as item-9 and item-10.
_DESCENDING_MIN: Final = 3


@dataclass(frozen=True, slots=True)
class Cursor:
    """A parameter of the request that says after what the next page begins.

    Its value comes from the response: from ``body``, the path of a field such as
    ``"meta.next_cursor"``, from ``record``, the path of a field of the last record such as
    ``"updated_at"``, or from the ``header`` with this name. Or it is a number, which ``counts``
    the pages or records that were read. ``start`` is the value of the first request; numbers of
    pages start at 1, those of records at 0. ``more`` is the path of a field of the body that is
    false on the last page. A path may also be a function.

    Raises:
        UsageError: Not exactly one of ``body``, ``record``, ``header`` and ``counts`` is given, or
            the start of a number is not one.
    """

    parameter: str
    body: Path | None = None
    record: Path | None = None
    start: str | int | None = None
    more: Path | None = None
    header: str | None = None
    counts: Literal["pages", "records"] | None = None

    def __post_init__(self) -> None:
        if [self.body, self.record, self.header, self.counts].count(None) != 3:
            raise UsageError(
                "a Cursor needs one of body=, record=, header= and counts=",
                hint='for example Cursor("after", record="id")',
            )
        if self.counts not in (None, "pages", "records"):
            raise UsageError(f"counts= must be 'pages' or 'records', not {shown(self.counts)}")
        if self.counts is not None and not str(self.first).isdecimal():
            raise UsageError(f"start= must be a number with counts=, not {shown(self.start)}")

    @property
    def first(self) -> str | None:
        """The value of the first request; None if it has no such parameter."""
        if self.start is not None:
            return str(self.start)
        return {None: None, "pages": "1", "records": "0"}[self.counts]


class Place(msgspec.Struct, frozen=True):
    """A page, and how many of its rows are done; the position of a poll.

    ``link`` is the URL of the page if the page before named it. ``crc`` is the checksum of the
    rows that are done, and ``seen`` has those of records with the value ``cursor``. ``etag``,
    ``modified`` and ``body_crc`` are of the page if a pass consists of this page only.
    """

    offset: int = 0
    link: str | None = None
    cursor: str | None = None
    rows: int = 0
    crc: int = 0
    seen: tuple[int, ...] = ()
    etag: str | None = None
    modified: str | None = None
    body_crc: int | None = None


@dataclass(slots=True)
class Page:
    """A page that was read: where it was, its rows as JSON, and the place after it.

    ``skipped`` rows were done before. ``is_last``: no page follows for the moment. ``next`` is the
    place of the next page where that is not the one after the rows.
    """

    place: Place
    rows: list[bytes]
    after: Place
    is_last: bool
    skipped: int = 0
    next: Place | None = None


def cursor_text(value: Any) -> str | None:
    """Return a cursor as the text of a parameter; None if it names no page.

    Raises:
        StreamKitError: It is not a text or a number.
    """
    if value is None or value is False or value == "":
        return None
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int | float | Decimal) and value is not True:
        return str(value)
    raise StreamKitError(f"a cursor must be a text or a number, not {type(value).__name__}")


def crc_of(rows: list[bytes], start: int = 0) -> int:
    """Return the checksum of rows."""
    for row in rows:
        start = zlib.crc32(row + b"\n", start)
    return start


def page_of(
    body: Any,
    place: Place,
    link: str | None,
    headers: Mapping[str, str],
    *,
    records: Path | None,
    cursor: Cursor | None,
) -> Page:
    """Return the page that a response is.

    A cursor that does not change names the same page again, so it ends the pass. Rows at the
    place that were done before are skipped, if they are still the same rows.

    Raises:
        StreamKitError: The body has no list of records, or no valid cursor.
    """
    values = rows_of(body, records)
    if cursor is not None and cursor.record is not None:
        return _page_by_record(values, place, link, cursor, body)
    rows = list(map(encode_row, values))
    if cursor is None:
        return _resumed(place, rows, _after(place, rows, link, place.cursor), link is None)
    if cursor.counts is not None:
        return _numbered_page(rows, place, cursor, body)
    if cursor.header is not None:
        following = cursor_text(headers.get(cursor.header.lower()))
    else:
        assert cursor.body is not None, "a cursor has one of them"
        following = cursor_text(found_at(cursor.body, body))
    is_last = following is None or following == place.cursor or _has_no_more(cursor, body)
    if link is None and following in (None, place.cursor):
        why = "names no cursor" if following is None else f"the cursor stays {following!r}"
        _refuse_more(cursor, body, why)
    if link is not None:
        return _resumed(place, rows, _after(place, rows, link, place.cursor), is_last=False)
    after = _after(place, rows, None, place.cursor if is_last else following, stays=is_last)
    return _resumed(place, rows, after, is_last)


def _page_by_record(
    values: list[Any], place: Place, link: str | None, cursor: Cursor, body: Any
) -> Page:
    """Return a page of records after a value; the service may include those at the value."""
    assert cursor.record is not None, "checked by the caller"
    rows: list[bytes] = []
    marks: list[str | None] = []
    for value in values:
        row, mark = encode_row(value), cursor_text(found_at(cursor.record, value))
        if mark is not None and mark == place.cursor and zlib.crc32(row) in place.seen:
            continue
        rows.append(row)
        marks.append(mark)
    _check_ascends(marks, cursor.record)
    if rows and marks[-1] is None:
        raise StreamKitError(f"the last record of the page has no value at {cursor.record!r}")
    # With rel=next the pass continues at the link; its last records decide where the next begins.
    following = marks[-1] if rows else place.cursor
    at_mark = [zlib.crc32(row) for row, mark in zip(rows, marks, strict=True) if mark == following]
    before = place.seen if following == place.cursor else ()
    end = place.offset - place.rows + len(rows)
    after = Place(end, link, following, seen=(*before, *at_mark)[-_SEEN_MAX:])
    is_last = link is None and (not rows or _has_no_more(cursor, body))
    if is_last and not rows:
        _refuse_more(cursor, body, f"all records of the page at {following!r} were read before")
    if place.cursor is not None and following is not None and _is_before(following, place.cursor):
        raise StreamKitError(
            f"the page after {place.cursor!r} ends with {following!r}, which is before it",
            hint="the parameter may have another name, or the service may ignore it",
        )
    return _resumed(place, rows, after, is_last)


def _numbered_page(rows: list[bytes], place: Place, cursor: Cursor, body: Any) -> Page:
    """Return a page with a number, or one after a number of records.

    A page with a number may get more rows later. So the place after its rows is in this page.
    """
    number = int(place.cursor or 0)
    is_last = not rows or _has_no_more(cursor, body)
    if cursor.counts == "records":
        after = _after(place, rows, None, str(number + len(rows)))
        return _resumed(place, rows, after, is_last)
    page = _resumed(place, rows, _after(place, rows, None, place.cursor, stays=True), is_last)
    if not is_last:
        page.next = Place(page.after.offset, cursor=str(number + 1))
    return page


def _check_ascends(marks: list[str | None], path: Path) -> None:
    """Refuse the newest record first: the cursor would move back, and records would be lost."""
    first, last = (marks[0], marks[-1]) if marks else (None, None)
    if first is None or last is None:
        return
    if _is_before(last, first) or _descend(marks):
        raise StreamKitError(
            f"the records must ascend by {path!r}, but a page begins with {first!r} and ends "
            f"with {last!r}",
            hint="ask the service for the oldest first, for example with ?sort=asc in the URL",
        )


def _is_before(one: str, other: str) -> bool:
    """Return whether a cursor is before another one; False if they are texts without an order."""
    if _NUMBER.fullmatch(one) and _NUMBER.fullmatch(other):
        return Decimal(one) < Decimal(other)
    begin, end = _time(one), _time(other)  # as texts, 10:00:00.5Z is before 10:00:00Z
    return begin is not None and end is not None and begin < end


def _descend(marks: list[str | None]) -> bool:
    """Return whether texts without a known order descend from each to the next."""
    texts = list(dict.fromkeys(each for each in marks if each is not None))
    if len(texts) < _DESCENDING_MIN or len({len(each) for each in texts}) > 1:
        return False
    is_time = all(_time(each) is not None for each in texts)
    return not is_time and texts == sorted(texts, reverse=True)


def _time(text: str) -> dt.datetime | None:
    """Read a time, in UTC if it has no zone; return None for any other text."""
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=dt.UTC)


def _refuse_more(cursor: Cursor, body: Any, why: str) -> None:
    """Refuse a page after which no other can be requested, although the service has more.

    Raises:
        StreamKitError: The field ``more`` is true.
    """
    if cursor.more is not None and not _has_no_more(cursor, body):
        raise StreamKitError(
            f"the service has more records after more={cursor.more!r}, but {why}",
            hint="request larger pages if many records have the same value, or use another cursor",
        )


def _has_no_more(cursor: Cursor, body: Any) -> bool:
    return cursor.more is not None and not found_at(cursor.more, body)


def _after(
    place: Place, rows: list[bytes], link: str | None, cursor: str | None, *, stays: bool = False
) -> Place:
    """Return the place after a page; after the last one it may stay there, as rows may follow."""
    end = place.offset - place.rows + len(rows)
    if stays:
        return Place(end, place.link, cursor, len(rows), crc_of(rows))
    return Place(end, link, cursor)


def _resumed(place: Place, rows: list[bytes], after: Place, is_last: bool) -> Page:
    """Return the page without the rows that are done, if they are still at its start."""
    done = place.rows
    is_same = done <= len(rows) and crc_of(rows[:done]) == place.crc
    skipped = done if is_same else 0
    if not is_same:  # the page has other rows now, so they are all new
        after = msgspec.structs.replace(after, offset=after.offset + done)
        place = msgspec.structs.replace(place, rows=0, crc=0)
        return Page(place, rows, after, is_last)
    return Page(place, rows, after, is_last, skipped)
