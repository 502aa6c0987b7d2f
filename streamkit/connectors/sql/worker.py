"""A session in a thread: connects again when the connection is lost, and can be cancelled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import anyio

from streamkit.connectors.own_thread import OwnThread
from streamkit.connectors.sql.session import DatabaseBusy, Session
from streamkit.env import Clock
from streamkit.errors import TransportError

T = TypeVar("T")

_PAUSE_S_MIN: Final = 0.1
_PAUSE_S_MAX: Final = 5.0
_INTERRUPT_S: Final = 0.2
_ABANDON_S: Final = 3.0


class SessionWorker:
    """Makes blocking calls of one session, one at a time.

    Args:
        session: The session; it is opened by the first call.
        clock: Source of time.
        note: Called with a message when the database is away, and when it is back.
        name: The source or sink, for messages.
    """

    def __init__(
        self, session: Session, clock: Clock, note: Callable[[str], None], name: str
    ) -> None:
        self._session = session
        self._clock = clock
        self._note = note
        self._name = name
        self._is_open = False
        self._turn = anyio.Lock()
        self._thread = OwnThread("sql")
        self._interrupts = OwnThread("sql-interrupts")

    async def repeat(self, call: Callable[[Session], T], *, waits: bool = True) -> T:
        """Make a call, and make it again after an error of the connection until it succeeds.

        Args:
            call: The call.
            waits: Whether it is also made again if another transaction holds a lock.

        Raises:
            DatabaseBusy: Another transaction holds a lock.
            StreamKitError: The database refuses it, or refuses the connection for good.
        """
        async with self._turn:
            failures, since_s = 0, self._clock.monotonic_s()
            while True:
                try:
                    result = await self._in_thread(lambda: self._call(call))
                except TransportError as error:
                    if not error.retryable or (isinstance(error, DatabaseBusy) and not waits):
                        raise
                    await self._pause(error, failures)
                    failures += 1
                    continue
                if failures > 1:
                    away_s = self._clock.monotonic_s() - since_s
                    self._note(f"{self._name}: connected again after {away_s:.1f} s")
                return result

    async def close(self) -> None:
        """Close the session. Safe to call more than once."""
        await self._thread.close(self._close)
        await self._interrupts.close(_nothing)

    async def _pause(self, error: TransportError, failures: int) -> None:
        if failures == 0:
            return  # a server closes idle connections; the next one usually works
        if failures == 1:
            self._note(f"{self._name}: {error}; retrying until the database is back")
        pause_s = _PAUSE_S_MIN * 2.0 ** min(failures - 1, 16)
        await self._clock.sleep(min(pause_s, _PAUSE_S_MAX))

    def _call(self, call: Callable[[Session], T]) -> T:
        try:
            if not self._is_open:
                self._session.open()
                self._is_open = True
            return call(self._session)
        except BaseException:
            # After any error the connection may be in a transaction that has failed.
            self._close()
            raise

    def _close(self) -> None:
        self._is_open = False
        self._session.close()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await self._thread.call(work)
        except anyio.get_cancelled_exc_class():
            await self._abandon()
            raise

    async def _abandon(self) -> None:
        """Interrupt the call that was cancelled, and close the session after it.

        What the session has done is not known here, such as rows that it has read. A call that
        cannot be interrupted, because the network is dead, is left to its thread.
        """
        has_ended = anyio.Event()

        async def close() -> None:
            await self._thread.call(self._close)
            has_ended.set()

        with anyio.move_on_after(_ABANDON_S, shield=True):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(close)
                # Between two statements there is nothing to interrupt, so it may take another
                # attempt.
                while not has_ended.is_set():
                    await self._interrupts.call(self._session.interrupt)
                    with anyio.move_on_after(_INTERRUPT_S):
                        await has_ended.wait()


def _nothing() -> None:
    pass
