"""Enters the lifespan of an app before a run, and leaves it after.

It has a task of its own. So a library that must be entered and left in one task works, a function
that cancels its own task does not end the run, and no error of the run reaches the function, which
could swallow it.
"""

from __future__ import annotations

import asyncio
import traceback

from streamkit.dataflow.lifespans import NewLifespan
from streamkit.errors import StreamKitError
from streamkit.runtime.failures import error_text, users_line


class HeldLifespan:
    """The lifespan of one run.

    Args:
        app: The name of the app, for errors.
        new: Creates the context manager.
    """

    def __init__(self, app: str, new: NewLifespan) -> None:
        self._app = app
        self._new = new
        self._entered = asyncio.Event()
        self._leaves = asyncio.Event()
        self._value: object = None
        self._error: BaseException | None = None
        self._task: asyncio.Task[None] | None = None
        # Whether it has not ended in time.
        self.is_late = False

    async def enter(self) -> object:
        """Enter it; return what the function of the user yields.

        Raises:
            StreamKitError: The function failed.
        """
        self._task = asyncio.get_running_loop().create_task(self._hold())
        try:
            await self._entered.wait()
        except asyncio.CancelledError:  # a signal has come
            self._task.cancel()
            await asyncio.wait((self._task,))
            raise
        if self._error is not None:
            self._task = None
            raise self._failure(self._error)
        return self._value

    async def leave(self, timeout_s: float) -> StreamKitError | None:
        """Leave it, if that has not happened; return the error of the user's function."""
        task, self._task = self._task, None
        if task is None or (task.done() and self._error is None):
            return None
        self._leaves.set()
        await asyncio.wait((task,), timeout=timeout_s)
        if not task.done():
            task.cancel()
            self.is_late = True
            return StreamKitError(
                f"the lifespan of {self._app!r} did not end within {timeout_s:g} s"
            )
        return None if self._error is None else self._failure(self._error)

    async def _hold(self) -> None:
        try:
            manager = self._new()
            self._value = await manager.__aenter__()
            self._entered.set()
            while not self._leaves.is_set():
                try:
                    await self._leaves.wait()
                except asyncio.CancelledError:
                    break  # of the user's code, or because the event loop ends
            await manager.__aexit__(None, None, None)
        except BaseException as error:  # a task that raises SystemExit would end the event loop
            self._error = error
        finally:
            self._entered.set()

    def _failure(self, error: BaseException) -> StreamKitError:
        # Python replaces a StopIteration by another error, which has it as its cause.
        tracebacks = (error.__traceback__, getattr(error.__cause__, "__traceback__", None))
        lines = (users_line(traceback.extract_tb(each)) for each in tracebacks)
        line = next(filter(None, lines), "")
        at = f"\n  at: {line}" if line else ""
        failure = StreamKitError(f"the lifespan of {self._app!r} failed: {error_text(error)}{at}")
        failure.__cause__ = error
        return failure
