"""A session in threads: connects again when the connection is lost, and can be cancelled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import anyio

from streamkit.connectors.sql.session import DatabaseBusy, Session
from streamkit.env import Clock
from streamkit.errors import TransportError

T = TypeVar("T")

_PAUSE_S_MIN: Final = 0.1
_PAUSE_S_MAX: Final = 5.0
_INTERRUPT_S: Final = 0.2


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
        self._limiter = anyio.CapacityLimiter(1)

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
        with anyio.CancelScope(shield=True):
            await self._in_thread(self._close)

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
        """Call in a thread. A cancellation interrupts the statement, and waits for the thread."""
        results: list[T] = []
        errors: list[BaseException] = []
        has_ended = anyio.Event()

        async def carry_out() -> None:
            try:
                results.append(await anyio.to_thread.run_sync(work, limiter=self._limiter))
            except Exception as error:  # raised below, not as a group of errors
                errors.append(error)
            finally:
                has_ended.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(carry_out)
            try:
                await has_ended.wait()
            except anyio.get_cancelled_exc_class():
                with anyio.CancelScope(shield=True):
                    await self._interrupt(has_ended)
                    # What the session has done is not known here, such as rows that it has read.
                    await anyio.to_thread.run_sync(self._close, limiter=self._limiter)
                raise
        if errors:
            raise errors[0]
        return results[0]

    async def _interrupt(self, has_ended: anyio.Event) -> None:
        # Between two statements there is nothing to interrupt, so it may take another attempt.
        while not has_ended.is_set():
            await anyio.to_thread.run_sync(self._session.interrupt)
            with anyio.move_on_after(_INTERRUPT_S):
                await has_ended.wait()
