"""Retries of requests: the pause before each, and the error after the last."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from streamkit.client.backoff import Backoff, OnRetry
from streamkit.client.cluster import Cluster
from streamkit.errors import (
    StreamKitError,
)

logger = logging.getLogger("streamkit.client")

A = TypeVar("A")


async def pause_before_retry(
    cluster: Cluster, backoff: Backoff, error: StreamKitError, what: str, on_retry: OnRetry | None
) -> None:
    """Report a retry, and wait for the pause before it.

    Args:
        cluster: The cluster, whose clock is used.
        backoff: The pauses of this series of failures.
        error: The error of the failed attempt.
        what: What is retried, for the log. Retries are logged only without ``on_retry``.
        on_retry: Called with the error and the number of the attempt that failed. An exception
            that it raises is logged and does not stop the retry.
    """
    pause_s = backoff.next_s()
    if on_retry is None:
        logger.warning("%s: retrying in %.1f s: %s", what, pause_s, error)
    else:
        try:
            on_retry(error, backoff.attempt)
        except Exception:
            logger.exception("on_retry failed for %s", what)
    await cluster.clock.sleep(pause_s)


async def retrying(
    cluster: Cluster,
    attempt: Callable[[], Awaitable[A]],
    what: str,
    *,
    open_timeout_s: float | None,
    on_retry: OnRetry | None = None,
) -> A:
    """Repeat an idempotent operation until it succeeds or the time is over.

    Args:
        cluster: The cluster, whose clock is used.
        attempt: The operation; it is repeated after every retryable error.
        what: See `pause_before_retry`.
        open_timeout_s: Seconds after which the last error is raised; None never gives up.
        on_retry: See `pause_before_retry`.
    """
    backoff = Backoff()
    started_s = cluster.clock.monotonic_s()
    while True:
        try:
            return await attempt()
        except StreamKitError as error:
            waited_s = cluster.clock.monotonic_s() - started_s
            if not error.retryable or (open_timeout_s is not None and waited_s >= open_timeout_s):
                raise
            await pause_before_retry(cluster, backoff, error, what, on_retry)
