"""A JSON API as a source, which is asked again and again."""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from streamkit.connectors.http.address import (
    Address,
    Duration,
    Headers,
    Login,
    Tls,
    is_same_origin,
    masked,
    positive,
    seconds,
    size,
    with_parameter,
)
from streamkit.connectors.http.bodies import Path, decode_body, linked_at, next_link
from streamkit.connectors.http.exchange import Exchange, Outage, Refused, Response, Transient
from streamkit.connectors.http.paging import (
    Cursor,
    Page,
    Place,
    crc_of,
    page_of,
)
from streamkit.dataflow.contracts import (
    ConnectorEnv,
    Positions,
    Source,
    SourceFacts,
    SourceReader,
)
from streamkit.errors import StreamKitError
from streamkit.limits import CHUNK_RECORDS_MAX
from streamkit.record import Chunk
from streamkit.settings.secret import Secret

_PART: Final = "0"
_CHUNK_BYTES_MAX: Final = 1 << 20
# Some services give a new cursor on each page, also after the last record.
_EMPTY_PAGES_MAX: Final = 20
_EMPTY_PAGES_AT_END_MAX: Final = 1_000
_MORE_HINT: Final = "if a field of the body is false on the last page, name it with more="
# Statuses with which a service refuses the URL of a page that is too old.
_STALE: Final = (400, 404, 410)
_NO_CONTENT: Final = 204


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class HttpPoll(Source[Any]):
    """A JSON API that is requested at an interval; each record of a page is a record.

    A page that links to the next one, with ``Link: rel=next`` or ``next_url``, is followed, and a
    `Cursor` names the next one. The position is the page and the rows of it that are done, so a job
    resumes after each row. Without a cursor, a page that has changed is read again as a whole.

    Responses with 408, 425, 429 or from 500 up, lost connections and timeouts are retried for
    ever; with ``--once``, at most ``attempts`` times. Other errors end the job.

    Attributes:
        url: The URL of the first page.
        every: The time between the end of a pass and the next one.
        records: The path of the list of records in the body, such as ``"data.items"``, or a
            function; by default the body, which is one record if it is not a list.
        cursor: How the next page is named.
        next_url: The path of the URL of the next page in the body, such as ``"paging.next"``, or a
            function.
        headers: Headers of each request. Use a `Secret` for a value that must not be shown.
        bearer: A token for ``Authorization: Bearer``.
        auth: User and password for ``Authorization: Basic``.
        timeout: The time for a request and its response.
        max_body_bytes: The maximum size of a page after decompression.
        attempts: How many attempts a request has if the run ends by itself.
        tls: For ``https``: an `ssl.SSLContext` with the CA certificates to trust and the client
            certificate, or a function that returns one when the job starts. By default, the CA
            certificates of the system are trusted.

    Raises:
        UsageError: An option is not valid.
    """

    url: str
    every: Duration = "1m"
    records: Path | None = None
    cursor: Cursor | None = None
    headers: Headers = field(default_factory=dict)
    bearer: Secret | None = None
    auth: Login | None = None
    timeout: Duration = "30s"
    max_body_bytes: int | str = "16MiB"
    attempts: int = 5
    tls: Tls | None = None
    next_url: Path | None = None

    def __post_init__(self) -> None:
        _ = self.address
        seconds(self.every, "every")
        seconds(self.timeout, "timeout")
        size(self.max_body_bytes, "max_body_bytes")
        positive(self.attempts, "attempts")

    def __str__(self) -> str:
        return f"poll of {masked(self.url)}"

    def __repr__(self) -> str:
        return f"HttpPoll({masked(self.url)!r})"

    @property
    def name(self) -> str:
        return "http-poll"

    @property
    def address(self) -> Address:
        """The URL with the headers and certificates."""
        return Address(self.url, self.headers, self.bearer, self.auth, self.tls)

    def place(self, topic: str, partition: int, offset: int) -> str:
        """Return a text for the place of a record."""
        return f"{masked(self.url)} record {offset}"

    def reader(self, env: ConnectorEnv) -> HttpPollReader:
        """Create the reader that the engine uses."""
        return HttpPollReader(self, env)


class HttpPollReader(SourceReader):
    """Reads page after page; a page is requested when the rows before it are taken."""

    def __init__(self, source: HttpPoll, env: ConnectorEnv) -> None:
        self._source = source
        self._env = env
        self._url = source.address.target
        self._exchange = Exchange(
            source.address,
            env.clock,
            timeout_s=seconds(source.timeout, "timeout"),
            max_body_bytes=size(source.max_body_bytes, "max_body_bytes"),
        )
        attempts = source.attempts if env.until_end else None
        self._outage = Outage(str(source), env.clock, env.note, attempts)
        self._next = Place()  # the place of the next request
        self._pages: deque[Page] = deque()  # pages whose rows are not all committed
        self._rows_sent = 0  # rows of the last page that `next` has returned
        self._empty_pages = 0  # in a row
        self._done = 0  # the rows before this one are processed
        self._skipped_to: Place | None = None  # what `skipped_positions` has returned last
        # The place after the last page with a number and with rows.
        self._after_number: Place | None = None
        self._is_first_page = True
        self._waits = False
        self._has_noted_end = False  # that the page after the last one does not exist

    async def open(self, committed: Positions) -> SourceFacts:
        self._exchange.open()
        text = committed.get(_PART)
        self._next = Place(cursor=self._source.cursor.first if self._source.cursor else None)
        if text is not None:
            self._next = msgspec.json.decode(text, type=Place)
        self._done = self._next.offset
        self._is_first_page = self._next.link is None
        since = f" after {self._next.offset:,} records of earlier runs" if text else ""
        starts = {_PART: _encoded(self._next)} if text is None else None
        return SourceFacts(f"{self._source}{since}", start_offsets=starts)

    async def next(self) -> Chunk | None:
        while True:
            page = self._pages[-1] if self._pages else None
            if page is not None and self._rows_sent < len(page.rows):
                return self._chunk(page)
            if self._waits:
                if self._env.until_end:
                    return None
                await self._env.clock.sleep(seconds(self._source.every, "every"))
                self._waits = False
                if self._is_first_page:
                    self._empty_pages = 0
            await self._read_page()

    def position_after(self, chunk: Chunk) -> tuple[str, str]:
        self._done = end = chunk.offsets[-1] + 1
        while len(self._pages) > 1 and self._pages[0].after.offset < end:
            self._pages.popleft()
        page = self._pages[0]
        first = page.after.offset - len(page.rows)
        if end == page.after.offset:
            return _PART, _encoded(page.after)
        done = end - first
        crc = crc_of(page.rows[:done]) if done < 2 else self._crc_of(page, done)
        place = msgspec.structs.replace(page.place, offset=end, rows=done, crc=crc)
        return _PART, _encoded(place)

    def skipped_positions(self) -> Positions:
        cursor = self._source.cursor
        if not self._empty_pages or cursor is None or cursor.counts is not None:
            return {}
        if self._next.offset != self._done or self._next == self._skipped_to:
            return {}
        self._skipped_to = self._next
        # A later run need not request the pages without records again.
        return {_PART: _encoded(self._next)}

    async def close(self) -> None:
        await self._exchange.close()

    def _crc_of(self, page: Page, done: int) -> int:
        """Return the checksum of the first rows, computed on from the last call."""
        at = self._crc_at if self._crc_at[0] is page and self._crc_at[1] <= done else (page, 0, 0)
        crc = crc_of(page.rows[at[1] : done], at[2])
        self._crc_at = (page, done, crc)
        return crc

    _crc_at: tuple[Page | None, int, int] = (None, 0, 0)

    def _chunk(self, page: Page) -> Chunk:
        first, total = self._rows_sent, 0
        end = first
        while end < len(page.rows) and end - first < CHUNK_RECORDS_MAX:
            total += len(page.rows[end])
            if end > first and total > _CHUNK_BYTES_MAX:
                break
            end += 1
        rows = page.rows[first:end]
        self._rows_sent = end
        begin = page.after.offset - len(page.rows) + first
        now_ms, count = self._env.clock.wall_ms(), len(rows)
        offsets = range(begin, begin + count)
        return Chunk(rows, [None] * count, [now_ms] * count, offsets, self._env.name, 0)

    async def _read_page(self) -> None:
        """Request the page at the place, until there is a response that can be used."""
        while True:
            place = self._next
            try:
                response = await self._exchange.get(self._url_of(place), _conditions(place))
                page = self._page_of(response, place)
            except Refused as error:
                if not self._is_after_the_last(place, error):
                    self._begin_again(place, error)
                    continue
                page = Page(place, [], place, is_last=True)
                if not self._has_noted_end:
                    self._has_noted_end = True
                    self._env.note(f"{error}, so the page before it is taken as the last one")
            except Transient as error:
                await self._outage.wait(error)
                continue
            self._outage.over()
            self._take(page)
            return

    def _is_after_the_last(self, place: Place, error: Refused) -> bool:
        """Whether a service that is asked for the page after its last one responds so."""
        cursor = self._source.cursor
        is_numbered = cursor is not None and cursor.counts is not None
        is_first = cursor is not None and place.cursor == cursor.first
        return error.status == 404 and is_numbered and not is_first and place.rows == 0

    def _begin_again(self, place: Place, error: Refused) -> None:
        """Begin the pass again if a link is too old; raise other errors."""
        if place.link is None or error.status not in _STALE:
            raise error
        self._env.note(f"{error}; the pass begins again at the first page")
        self._next = Place(place.offset, cursor=place.cursor, seen=place.seen)
        self._is_first_page = True

    def _take(self, page: Page | None) -> None:
        if page is None:  # nothing has changed
            self._waits = True
            self._is_first_page = True
            return
        self._next = page.next or page.after
        if self._source.cursor is not None and self._source.cursor.counts == "pages":
            self._check_differs(page)
            if page.rows:
                self._after_number = page.after
            elif self._after_number is not None:
                self._next = self._after_number  # the last page may get more rows
        elif self._source.cursor is not None and self._source.cursor.counts == "records":
            self._check_differs(page)
            # A single row may be the same as the one before it.
            count = len(page.rows) if len(page.rows) > 1 else -1
            self._after_number = Place(cursor=page.place.cursor, rows=count, crc=crc_of(page.rows))
        self._waits = page.is_last or self._is_mostly_empty(page)
        self._is_first_page = page.is_last
        if page.skipped < len(page.rows):
            self._pages.append(page)
            self._rows_sent = page.skipped

    def _is_mostly_empty(self, page: Page) -> bool:
        """Return whether the next page can wait, as the last ones had no records.

        Raises:
            StreamKitError: The run would never end.
        """
        self._empty_pages = 0 if page.rows else self._empty_pages + 1
        if self._empty_pages < _EMPTY_PAGES_MAX:
            return False
        text = f"{self._empty_pages} pages of {masked(self._url)} in a row have no records"
        if self._env.until_end:
            if self._empty_pages == _EMPTY_PAGES_AT_END_MAX:
                raise StreamKitError(text, hint=_MORE_HINT)
            return False
        if self._empty_pages == _EMPTY_PAGES_MAX:
            self._env.note(f"{text}; the next one is requested at the interval. {_MORE_HINT}")
        return True

    def _check_differs(self, page: Page) -> None:
        """Refuse a page with the rows of the page before: its number may be ignored.

        Raises:
            StreamKitError: It has them.
        """
        before = self._after_number
        if before is None or not page.rows or page.place.cursor == before.cursor:
            return
        if len(page.rows) == before.rows and crc_of(page.rows) == before.crc:
            raise StreamKitError(
                f"page {page.place.cursor} of {masked(self._url)} has the same records as page "
                f"{before.cursor}",
                hint="the parameter may have another name; if the service repeats its last page, "
                "use more=, the path of a field that is false on the last page",
            )

    def _url_of(self, place: Place) -> str:
        if place.link is not None:
            return place.link
        cursor = self._source.cursor
        if cursor is None or place.cursor is None:
            return self._url
        return with_parameter(self._url, cursor.parameter, place.cursor)

    def _page_of(self, response: Response, place: Place) -> Page | None:
        """Return the page of a response; None if it has not changed since the last pass.

        Raises:
            Transient: The body is not JSON.
            StreamKitError: The body has no records.
        """
        if response.status == 304:
            return None
        crc = zlib.crc32(response.body)
        if place.body_crc == crc and place.rows == 0:
            return None
        try:
            body = [] if response.status == _NO_CONTENT else decode_body(response.body)
        except ValueError as error:
            raise Transient(f"the response is not valid JSON: {error}") from error
        source = self._source
        link = next_link(response.headers.get("link", ""), response.url)
        if source.next_url is not None:
            link = linked_at(source.next_url, body, response.url)
        elif source.cursor is not None and source.cursor.counts is not None:
            link = None
        if link is not None and not is_same_origin(link, self._url):
            raise StreamKitError(
                f"the next page of {masked(self._url)} is at another origin, {masked(link)}",
                hint="headers and secrets are not sent to another origin",
            )
        if link is not None and link == place.link:
            link = None  # the page names itself
        page = page_of(
            body, place, link, response.headers, records=source.records, cursor=source.cursor
        )
        if page.is_last and self._is_first_page and source.cursor is None:
            page.after = msgspec.structs.replace(
                page.after,
                etag=response.headers.get("etag"),
                modified=response.headers.get("last-modified"),
                body_crc=crc,
            )
        return page


def _conditions(place: Place) -> Mapping[str, str]:
    """Return the headers that ask for a page only if it has changed."""
    found = {"Accept": "application/json"}
    if place.rows == 0 and place.etag is not None and place.etag.isascii():
        found["If-None-Match"] = place.etag
    if place.rows == 0 and place.modified is not None:
        found["If-Modified-Since"] = place.modified
    return found


def _encoded(place: Place) -> str:
    return msgspec.json.encode(place).decode()
