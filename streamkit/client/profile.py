"""Fluvio's own profile file: which cluster a user works with.

Source: control plane reference, 6.1.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamkit.errors import ConfigError

PATH_VARIABLE = "FLV_PROFILE_PATH"
_TLS_POLICIES = ("disabled", "disable", "anonymous", "verified", "verify")


@dataclass(frozen=True, slots=True)
class Profile:
    """A named cluster. ``tls_policy`` is ``disabled``, ``anonymous`` or ``verified``."""

    name: str
    cluster: str
    endpoint: str
    tls_policy: str = "disabled"
    use_spu_local_address: bool = False

    def check_usable(self) -> None:
        """Refuse what this client cannot connect to.

        Raises:
            ConfigError: The profile asks for TLS.
        """
        if self.tls_policy not in ("disabled", "disable"):
            raise ConfigError(
                f"profile {self.name!r} asks for TLS ({self.tls_policy}), which streamkit does "
                f"not speak yet",
                hint="use a profile without TLS, or name a plain endpoint with --cluster",
            )


@dataclass(frozen=True, slots=True)
class Profiles:
    """What a profile file holds."""

    path: Path
    current: str | None
    by_name: Mapping[str, Profile]

    def get(self, name: str) -> Profile:
        """Return a profile by name.

        Raises:
            ConfigError: There is none of that name.
        """
        if name not in self.by_name:
            known = ", ".join(sorted(self.by_name)) or "none"
            raise ConfigError(f"no profile {name!r} in {self.path}", hint=f"there are: {known}")
        return self.by_name[name]

    def active(self) -> Profile | None:
        """Return the current profile; None where the file names none."""
        return None if self.current is None else self.get(self.current)


def profile_path(environment: Mapping[str, str], home: Path) -> Path:
    """Return where the file is looked for."""
    named = environment.get(PATH_VARIABLE)
    return Path(named) if named else home / ".fluvio" / "config"


def load_profiles(path: Path) -> Profiles:
    """Read a profile file; a missing one holds nothing.

    Raises:
        ConfigError: The file cannot be read, or is not what it should be; the text says where.
    """
    try:
        data = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return Profiles(path, None, {})
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"cannot read the Fluvio profile file {path}: {error}") from error
    clusters = _table(path, data, "cluster")
    profiles = {
        name: _profile(path, name, entry, clusters)
        for name, entry in _table(path, data, "profile").items()
    }
    current = data.get("current_profile")
    if not isinstance(current, str | None):
        raise ConfigError(f"current_profile in {path} is no name: {current!r}")
    return Profiles(path, current, profiles)


def _profile(path: Path, name: str, entry: Any, clusters: Mapping[str, Any]) -> Profile:
    cluster = entry.get("cluster") if isinstance(entry, dict) else None
    found = clusters.get(cluster) if isinstance(cluster, str) else None
    if not isinstance(cluster, str) or not isinstance(found, dict):
        raise ConfigError(f"profile {name!r} in {path} names no cluster that is there")
    endpoint = found.get("endpoint", found.get("addr"))
    if not isinstance(endpoint, str):
        raise ConfigError(f"cluster {cluster!r} in {path} has no endpoint")
    policy = _table(path, found, "tls").get("tls_policy", "disabled")
    if policy not in _TLS_POLICIES:
        raise ConfigError(
            f"cluster {cluster!r} in {path} has tls_policy {policy!r}",
            hint=f"use {', '.join(_TLS_POLICIES)}",
        )
    local = found.get("use_spu_local_address", False)
    if not isinstance(local, bool):
        raise ConfigError(f"use_spu_local_address of {cluster!r} in {path} is {local!r}")
    return Profile(name, cluster, endpoint, policy, local)


def _table(path: Path, data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = data.get(key, {})
    if not isinstance(found, dict):
        raise ConfigError(f"{key} in {path} is no table: {found!r}")
    return found
