"""A command's connection: chooses the target, attaches to its broker, opens the client."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import anyio
import click

from streamkit.cli.options import chosen_target
from streamkit.client import Client
from streamkit.env import SystemClock
from streamkit.errors import BrokerError, ConnectFailed
from streamkit.observe.streams import say
from streamkit.settings import load_settings
from streamkit.target import BrokerLease, Target, keep_broker_running

T = TypeVar("T")

OPEN_TIMEOUT_S = 5.0
_RETRY_S = 0.2


@dataclass(frozen=True, slots=True)
class Session:
    """An open client and its target."""

    client: Client
    target: Target

    @property
    def is_embedded(self) -> bool:
        return self.target.kind == "embedded"


def run_with_client(work: Callable[[Session], Awaitable[T]]) -> T:
    """Run ``work`` with a client of the target that the options choose; return its result.

    Raises:
        ConnectFailed: No server responded within OPEN_TIMEOUT_S, or it speaks another protocol.
        StreamKitError: What ``work`` raises.
    """
    settings = load_settings(Path(), os.environ, {})
    for text in settings.notes:
        note(text)
    target = chosen_target(settings.cluster)

    async def session(lease: BrokerLease) -> T:
        async with AsyncExitStack() as stack:
            client = await _opened(target, lease.address)
            stack.push_async_exit(client)
            if target.kind == "embedded":
                client.cluster.start(
                    functools.partial(keep_broker_running, lease, client, SystemClock(), note)
                )
            return await work(Session(client, target))

    with BrokerLease(target) as lease:
        return anyio.run(session, lease)


def current_target() -> Target:
    """Return the target of the running command.

    Raises:
        ConfigError: The options contradict each other, or the profile cannot be used.
    """
    return chosen_target(load_settings(Path(), os.environ, {}).cluster)


async def delete_each(
    names: Sequence[str],
    what: str,
    delete: Callable[[str], Awaitable[None]],
    *,
    continue_on_error: bool,
) -> None:
    """Delete objects one by one, and print a line for each.

    Args:
        names: Their names.
        what: Their kind, in the singular.
        delete: Deletes the object of a name.
        continue_on_error: Whether to continue with the next name after an error.

    Raises:
        BrokerError: At least one was not deleted.
    """
    failures: list[BrokerError] = []
    for name in names:
        try:
            await delete(name)
            click.echo(f'{what.lower()} "{name}" deleted')
        except BrokerError as error:
            if not continue_on_error:
                raise
            failures.append(error)
            note(f"not deleted: {error}")
    if failures:
        raise BrokerError(
            failures[0].code,
            f"{len(failures)} of {len(names)} {what}s were not deleted",
            hint=failures[0].hint,
        )


def note(text: str) -> None:
    """Print a line for people on standard error."""
    say(text)


async def _opened(target: Target, address: str) -> Client:
    """Connect; retry for a while, since the broker may be just starting."""
    deadline_s = time.monotonic() + OPEN_TIMEOUT_S
    is_reported = False
    while True:
        left_s = deadline_s - time.monotonic()
        client = Client(
            address,
            client_id="streamkit-cli",
            connect_timeout=max(left_s, _RETRY_S),
            use_local_address=target.uses_local_address,
            tls=target.tls,
        )
        try:
            return await client.__aenter__()
        except ConnectFailed as error:
            if not error.retryable or deadline_s - time.monotonic() <= _RETRY_S:
                raise
            if not is_reported:
                note(f"{error}; retrying for {OPEN_TIMEOUT_S:g} s")
                is_reported = True
            await anyio.sleep(_RETRY_S)
