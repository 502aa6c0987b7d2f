"""Where a command works: a cluster, a Fluvio profile, or the embedded broker of a folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Literal

import anyio

from streamkit.client.profile.profile import Profile, Profiles, load_profiles, profile_path
from streamkit.client.tls import Tls
from streamkit.errors import ConfigError, StreamKitError, UsageError
from streamkit.observe.report import RateLimited
from streamkit.observe.streams import say

if TYPE_CHECKING:
    from streamkit.broker.attach import Attachment
    from streamkit.client import Client
    from streamkit.env import Clock

CLUSTER_VARIABLE: Final = "STREAMKIT_CLUSTER"
DATA_DIR_VARIABLE: Final = "STREAMKIT_DATA_DIR"
DATA_DIR_DEFAULT: Final = Path(".streamkit")
# How soon it is noticed that the embedded broker was killed.
_HOLD_CHECK_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Target:
    """A place to work and why it was chosen. ``address`` is None for the embedded broker,
    which has one only once it is attached to; ``data_dir`` is never None, since state lies
    there even when a cluster is used.
    """

    kind: Literal["cluster", "profile", "embedded"]
    address: str | None
    why: str
    data_dir: Path
    uses_local_address: bool = False
    tls: Tls | None = None


def choose(
    *,
    cluster: str | None = None,
    profile: str | None = None,
    embedded: bool = False,
    data_dir: str | Path | None = None,
    environment: Mapping[str, str] = os.environ,
    settings_cluster: str | None = None,
    given_cluster: str | None = None,
    tls: Tls | None = None,
) -> Target:
    """Choose by the first that is given, in this order.

    Args:
        cluster: ``host:port`` named by an option.
        profile: A profile of Fluvio's file named by an option.
        embedded: Whether the embedded broker is asked for by an option.
        data_dir: Where data lie; else STREAMKIT_DATA_DIR, else ``./.streamkit``.
        environment: Where STREAMKIT_CLUSTER is looked for; then comes ``settings_cluster``,
            then the current profile of Fluvio's file, then the embedded broker.
        settings_cluster: ``host:port`` of a settings file.
        given_cluster: ``host:port`` of ``--set``, which is as strong as an option.
        tls: How to secure connections to ``cluster``.

    Raises:
        UsageError: Two of the options contradict each other, an address is none, or TLS is
            asked for without a cluster.
        ConfigError: The profile is not there, or cannot be used.
    """
    named = [
        option
        for option, is_given in (
            ("--cluster", cluster is not None),
            ("--profile", profile is not None),
            ("--embedded", embedded),
            ("--set cluster", given_cluster is not None),
        )
        if is_given
    ]
    if len(named) > 1:
        raise UsageError(f"{' and '.join(named)} contradict each other", hint="keep one of them")
    if tls is not None and cluster is None:
        raise UsageError(
            "TLS is asked for, but no cluster is named",
            hint="name it with --cluster HOST:PORT; a profile says by itself whether it uses TLS",
        )
    folder = data_folder(data_dir, environment)
    if cluster is not None:
        return _cluster(cluster, "--cluster", folder, tls)
    if profile is not None:
        if not profile.strip():
            raise UsageError("--profile is empty", hint="name one, or leave it out")
        return _profile(profile, environment, folder)
    if given_cluster is not None:
        return _cluster(given_cluster, "--set cluster", folder)
    if embedded:
        return _embedded("--embedded", folder)
    if environment.get(CLUSTER_VARIABLE):
        return _cluster(environment[CLUSTER_VARIABLE], CLUSTER_VARIABLE, folder)
    if settings_cluster:
        return _cluster(settings_cluster, "the settings file", folder)
    return _active_profile(environment, folder) or _embedded("no cluster is named", folder)


def data_folder(named: str | Path | None, environment: Mapping[str, str] = os.environ) -> Path:
    """Return where data lie: as named, else STREAMKIT_DATA_DIR, else ``./.streamkit``.

    Raises:
        UsageError: What is named is empty.
    """
    if named is not None and not str(named).strip():
        raise UsageError("--data-dir is empty", hint="name a folder, or leave it out")
    return Path(named or environment.get(DATA_DIR_VARIABLE) or DATA_DIR_DEFAULT)


@contextmanager
def connected(target: Target) -> Iterator[str]:
    """Yield the SC's address; hold the embedded broker up for as long as the block runs.

    Blocks until the broker listens: enter it off the event loop.

    Raises:
        StreamKitError: The embedded broker could not be started.
    """
    with BrokerLease(target) as lease:
        yield lease.address


class BrokerLease:
    """A place to work that stays: the embedded broker is held up until the block ends.

    Entering blocks until the broker listens.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._attachment: Attachment | None = None
        self.address = target.address or ""

    def __enter__(self) -> BrokerLease:
        if self._target.address is None:
            self._attach()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._attachment is not None:
            self._attachment.close()

    def is_lost(self) -> bool:
        """Tell whether the embedded broker has ended under us."""
        return self._attachment is not None and self._attachment.is_lost()

    def renew(self) -> None:
        """Attach again, starting the embedded broker anew; its address may be another one.

        Blocks: call it off the event loop.

        Raises:
            StreamKitError: It could not be started.
        """
        assert self._attachment is not None, "only what is held can be lost"
        self._attachment.close()
        self._attach()

    def _attach(self) -> None:
        # The broker is not loaded where a cluster is used.
        from streamkit.broker.attach import attach

        self._attachment = attach(self._target.data_dir)
        if self._attachment.has_made_folder:
            say(f"new data folder at {self._target.data_dir}")
        self.address = self._attachment.sc_address


async def keep_broker_running(
    lease: BrokerLease, client: Client, clock: Clock, note: Callable[[str], None]
) -> None:
    """Start the embedded broker again whenever it ends while it is held; never returns.

    Run it beside the work. What the work was about to send or read is tried again by the
    client, which learns the new address.

    Args:
        hold: What holds the broker up.
        client: Who works with the broker.
        clock: Whose seconds count.
        note: Told in words what happens.
    """
    note_trouble = RateLimited(note, clock.monotonic_s)
    while True:
        await clock.sleep(_HOLD_CHECK_S)
        if not lease.is_lost():
            continue
        note_trouble("lost", "the embedded broker has ended; starting it again")
        try:
            await anyio.to_thread.run_sync(lease.renew, abandon_on_cancel=True)
        except StreamKitError as error:
            note_trouble("broker", f"the embedded broker does not start: {error}")
            continue
        client.cluster.move(lease.address)
        note(f"the embedded broker is back at {lease.address}")


def checked_address(address: str, source: str) -> str:
    """Return an address of the form ``host:port``, or say what is wrong with it.

    Raises:
        UsageError: It has another form.
    """
    host, _, port = address.rpartition(":")
    is_number = port.isascii() and port.isdigit()
    if not host or "/" in host or not is_number or not 0 < int(port) < 65_536:
        raise UsageError(
            f"{source}: {address!r} is not HOST:PORT",
            hint="name host and port of the SC, for example 127.0.0.1:9103",
        )
    return address


def _cluster(address: str, source: str, folder: Path, tls: Tls | None = None) -> Target:
    return Target("cluster", checked_address(address, source), source, folder, tls=tls)


def _embedded(why: str, folder: Path) -> Target:
    # A broker that stays may tell others of a way to it that only they can go.
    return Target("embedded", None, why, folder, uses_local_address=True)


def _profile(name: str, environment: Mapping[str, str], folder: Path) -> Target:
    return _usable(_profiles(environment).get(name), "--profile", folder)


def _active_profile(environment: Mapping[str, str], folder: Path) -> Target | None:
    profiles = _profiles(environment)
    try:
        active = profiles.active()
        if active is None:
            return None
        return _usable(active, f"the current profile in {profiles.path}", folder)
    except ConfigError as error:
        # The user did not name it in this call, so they may not know that it counts.
        raise type(error)(str(error), hint=f"{error.hint}, or use --embedded") from error


def _profiles(environment: Mapping[str, str]) -> Profiles:
    home = Path(environment["HOME"]) if environment.get("HOME") else Path.home()
    return load_profiles(profile_path(environment, home))


def _usable(profile: Profile, why: str, folder: Path) -> Target:
    address = checked_address(profile.endpoint, f"profile {profile.name!r}")
    return Target("profile", address, why, folder, profile.use_spu_local_address, profile.tls)
