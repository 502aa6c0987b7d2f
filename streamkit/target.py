"""Where a command runs: on a cluster, a Fluvio profile, or the embedded broker of a folder."""

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
# How often the embedded broker is checked.
_HOLD_CHECK_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Target:
    """The broker to use and why it was chosen.

    ``address`` is None for the embedded broker, which gets an address when it starts.
    ``data_dir`` is always set, because it holds the state even if a cluster is used.
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
    """Choose the target.

    An option comes first. Without an option: STREAMKIT_CLUSTER, then ``settings_cluster``, then
    the current profile of Fluvio's file, then the embedded broker.

    Args:
        cluster: ``host:port`` from an option.
        profile: Name of a profile in Fluvio's file, from an option.
        embedded: Whether an option selects the embedded broker.
        data_dir: Folder for data; by default STREAMKIT_DATA_DIR or ``./.streamkit``.
        environment: The environment variables.
        settings_cluster: ``host:port`` of a settings file.
        given_cluster: ``host:port`` of ``--set``, which has the priority of an option.
        tls: TLS settings of the connections to ``cluster``.

    Raises:
        UsageError: Two of the options contradict each other, an address is not valid, or TLS is
            given without a cluster.
        ConfigError: The profile does not exist, or cannot be used.
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
            "TLS options need --cluster",
            hint="add --cluster HOST:PORT; a profile has its own TLS settings",
        )
    folder = data_folder(data_dir, environment)
    if cluster is not None:
        return _cluster(cluster, "--cluster", folder, tls)
    if profile is not None:
        if not profile.strip():
            raise UsageError("--profile is empty", hint="name a profile, or leave it out")
        return _profile(profile, environment, folder)
    if given_cluster is not None:
        return _cluster(given_cluster, "--set cluster", folder)
    if embedded:
        return _embedded("--embedded", folder)
    if environment.get(CLUSTER_VARIABLE):
        return _cluster(environment[CLUSTER_VARIABLE], CLUSTER_VARIABLE, folder)
    if settings_cluster:
        return _cluster(settings_cluster, "the settings file", folder)
    return _active_profile(environment, folder) or _embedded("no cluster is configured", folder)


def data_folder(named: str | Path | None, environment: Mapping[str, str] = os.environ) -> Path:
    """Return the data folder: ``named``, otherwise STREAMKIT_DATA_DIR, otherwise ``./.streamkit``.

    Raises:
        UsageError: ``named`` is empty.
    """
    if named is not None and not str(named).strip():
        raise UsageError("--data-dir is empty", hint="name a folder, or leave it out")
    return Path(named or environment.get(DATA_DIR_VARIABLE) or DATA_DIR_DEFAULT)


@contextmanager
def connected(target: Target) -> Iterator[str]:
    """Yield the SC's address; keep the embedded broker running until the block ends.

    Entering blocks until the broker listens: do it in a thread, not in the event loop.

    Raises:
        StreamKitError: The embedded broker could not be started.
    """
    with BrokerLease(target) as lease:
        yield lease.address


class BrokerLease:
    """Keeps the embedded broker of a target running until the block ends.

    Entering blocks until the broker listens. ``is_needed`` is false for a job without topics.
    """

    def __init__(self, target: Target, *, is_needed: bool = True) -> None:
        self._target = target
        self._is_needed = is_needed
        self._attachment: Attachment | None = None
        self.address = target.address or ""

    def __enter__(self) -> BrokerLease:
        if self._is_needed and self._target.address is None:
            self._attach()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Detach from the embedded broker; it ends after the last job has detached."""
        if self._attachment is not None:
            self._attachment.close()

    def is_lost(self) -> bool:
        """Return whether the embedded broker has ended unexpectedly."""
        return self._attachment is not None and self._attachment.is_lost()

    def renew(self) -> None:
        """Start the embedded broker again and attach to it; its address may change.

        Blocks: call it in a thread, not in the event loop.

        Raises:
            StreamKitError: The broker could not be started.
        """
        assert self._attachment is not None, "a broker that was not started cannot be lost"
        self._attachment.close()
        self._attach()

    def _attach(self) -> None:
        # Imported here, because a run on a cluster does not need the broker.
        from streamkit.broker.attach import attach

        self._attachment = attach(self._target.data_dir)
        if self._attachment.has_created_folder:
            say(f"new data folder at {self._target.data_dir}")
        self.address = self._attachment.sc_address


async def keep_broker_running(
    lease: BrokerLease, client: Client, clock: Clock, note: Callable[[str], None]
) -> None:
    """Restart the embedded broker whenever it ends unexpectedly; never returns.

    Run it in a separate task. The client gets the new address and retries its requests.

    Args:
        lease: The running broker.
        client: The client that uses the broker.
        clock: Source of time.
        note: Called with messages for the user.
    """
    note_limited = RateLimited(note, clock.monotonic_s)
    while True:
        await clock.sleep(_HOLD_CHECK_S)
        if not lease.is_lost():
            continue
        note_limited("lost", "the embedded broker has ended; restarting it")
        try:
            await anyio.to_thread.run_sync(lease.renew, abandon_on_cancel=True)
        except StreamKitError as error:
            note_limited("broker", f"the embedded broker cannot be restarted: {error}")
            continue
        client.cluster.move(lease.address)
        note(f"the embedded broker runs again at {lease.address}")


def checked_address(address: str, source: str) -> str:
    """Return an address if it has the form ``host:port``.

    Raises:
        UsageError: It has another form.
    """
    host, _, port = address.rpartition(":")
    is_number = port.isascii() and port.isdigit()
    if not host or "/" in host or not is_number or not 0 < int(port) < 65_536:
        raise UsageError(
            f"{source}: {address!r} is not HOST:PORT",
            hint="give host and port of the SC, for example 127.0.0.1:9103",
        )
    return address


def _cluster(address: str, source: str, folder: Path, tls: Tls | None = None) -> Target:
    return Target("cluster", checked_address(address, source), source, folder, tls=tls)


def _embedded(why: str, folder: Path) -> Target:
    # `streamkit broker start` may announce a public address that this machine cannot reach.
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
        # The user did not choose the profile with an option, so the hint shows how to avoid it.
        raise type(error)(str(error), hint=f"{error.hint}, or use --embedded") from error


def _profiles(environment: Mapping[str, str]) -> Profiles:
    home = Path(environment["HOME"]) if environment.get("HOME") else Path.home()
    return load_profiles(profile_path(environment, home))


def _usable(profile: Profile, why: str, folder: Path) -> Target:
    address = checked_address(profile.endpoint, f"profile {profile.name!r}")
    return Target("profile", address, why, folder, profile.use_spu_local_address, profile.tls)
