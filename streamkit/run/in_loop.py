"""Runs an app in an event loop that belongs to another program."""

from __future__ import annotations

import asyncio
from signal import SIGTERM

import anyio

from streamkit.errors import UsageError
from streamkit.observe.embedded import EmbeddedReporter
from streamkit.run.options import Job, RunOptions
from streamkit.run.start import Start


async def run_app_async(app: Job, options: RunOptions) -> int:
    """Run an app in the running event loop; return the exit code.

    It does not handle signals: the program does. Cancelling this call stops the job in order:
    every sink is flushed and the positions are committed before it ends. A second cancellation
    abandons the work in progress.

    Raises:
        StreamKitError: The job could not be started.
        UsageError: The running event loop is not one of asyncio.
    """
    loop = _running_loop()
    start = Start(app, options, EmbeddedReporter(app.name, is_json=options.json))
    # The broker and the job belong to one task, so a cancellation at any time finds its owner.
    task = loop.create_task(start.run_in_loop(), name=f"streamkit-job-{app.name}")
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await _stopped(start, task)
        raise


async def _stopped(start: Start, task: asyncio.Task[int]) -> None:
    """Stop a job in order; another cancellation counts as a second signal."""
    while not task.done():
        start.signal(SIGTERM)
        try:
            # A cancelled scope of anyio cancels again and again, which is not a second signal.
            with anyio.CancelScope(shield=True):
                await asyncio.wait((task,))
        except asyncio.CancelledError:
            continue
    if not task.cancelled():
        task.exception()  # retrieved, so asyncio does not log it; the caller gets the cancellation


def _running_loop() -> asyncio.AbstractEventLoop:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise UsageError(
            "run_async needs an event loop of asyncio, but another library runs this coroutine",
            hint="use `app.start()`, which runs the job in a thread of its own",
        ) from None
