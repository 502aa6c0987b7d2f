"""Reads Fluvio's profile file, which names the user's clusters.

Source: docs/protocol/index.md, "How a client finds the cluster". For changes of
the file see `profile_file`.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from streamkit.client.tls import Tls
from streamkit.errors import ConfigError, UsageError

PATH_VARIABLE: Final = "FLV_PROFILE_PATH"
_POLICIES: Final = {
    "disabled": "disabled",
    "disable": "disabled",
    "anonymous": "anonymous",
    "verified": "verified",
    "verify": "verified",
}
_SOURCES: Final = {"inline": "inline", "files": "files", "file": "files"}
CERT_KEYS: Final = ("domain", "ca_cert", "cert", "key")
# Fluvio requires all four keys. Here a hand-written file may omit the client's certificate and
# key, as in `Tls`.
_CERT_KEYS_NEEDED: Final = ("domain", "ca_cert")


@dataclass(frozen=True, slots=True)
class Profile:
    """A named cluster. ``tls_policy`` is ``disabled``, ``anonymous`` or ``verified``; ``tls`` has
    the settings for a connection, or None if TLS is disabled.
    """

    name: str
    cluster: str
    endpoint: str
    tls_policy: str = "disabled"
    use_spu_local_address: bool = False
    tls: Tls | None = None


@dataclass(frozen=True, slots=True)
class Profiles:
    """The contents of a profile file. ``problems`` has the reason why a profile cannot be used;
    the other profiles can still be used.
    """

    path: Path
    current: str | None
    by_name: Mapping[str, Profile]
    problems: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """All names in order, including those of profiles that cannot be used."""
        return sorted({*self.by_name, *self.problems})

    def get(self, name: str) -> Profile:
        """Return a profile by name.

        Raises:
            ConfigError: The profile does not exist, or cannot be used.
        """
        if name in self.problems:
            raise ConfigError(
                self.problems[name], hint=f"correct {self.path}, or use another profile"
            )
        if name not in self.by_name:
            raise ConfigError(f"no profile {name!r} in {self.path}", hint=one_of(self.names, name))
        return self.by_name[name]

    def active(self) -> Profile | None:
        """Return the current profile; None if the file has none.

        Raises:
            ConfigError: See `get`.
        """
        return None if self.current is None else self.get(self.current)


def one_of(names: Iterable[str], wanted: str) -> str:
    """Return a hint for a name that does not exist."""
    known = sorted(names)
    close = difflib.get_close_matches(wanted, known, 1, 0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"existing names: {', '.join(known)}" if known else "there are none yet"


def profile_path(environment: Mapping[str, str], home: Path) -> Path:
    """Return the path of the profile file."""
    named = environment.get(PATH_VARIABLE)
    return Path(named) if named else home / ".fluvio" / "config"


def load_profiles(path: Path) -> Profiles:
    """Read a profile file; a missing file has no profiles.

    Raises:
        ConfigError: The file cannot be read or is not valid; the message says where.
    """
    text = read_profile_text(path)
    return parse_profiles(path, "" if text is None else text)


def read_profile_text(path: Path) -> str | None:
    """Return the text of the file; None if it does not exist.

    Raises:
        ConfigError: The file cannot be read.
    """
    try:
        return path.read_bytes().decode()  # bytes, to keep the line ends of the user
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error


def parse_profiles(path: Path, text: str) -> Profiles:
    """Parse the text of a profile file.

    Raises:
        ConfigError: The text is not valid.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _unreadable(path, error) from error
    clusters = _table(path, data, "cluster")
    profiles: dict[str, Profile] = {}
    problems: dict[str, str] = {}
    for name, entry in _table(path, data, "profile").items():
        try:
            profiles[name] = _profile(path, name, entry, clusters)
        except ConfigError as error:
            problems[name] = f"{error} ({error.hint})" if error.hint else str(error)
    current = data.get("current_profile")
    if not isinstance(current, str | None):
        raise ConfigError(f"current_profile in {path} is not a name: {current!r}")
    return Profiles(path, current or None, profiles, problems)


def _unreadable(path: Path, error: Exception) -> ConfigError:
    return ConfigError(f"cannot read the Fluvio profile file {path}: {error}")


def _profile(path: Path, name: str, entry: Any, clusters: Mapping[str, Any]) -> Profile:
    cluster = entry.get("cluster") if isinstance(entry, dict) else None
    found = clusters.get(cluster) if isinstance(cluster, str) else None
    if not isinstance(cluster, str) or not isinstance(found, dict):
        raise ConfigError(f"the cluster of profile {name!r} is missing in {path}")
    endpoint = found.get("endpoint", found.get("addr"))
    if not isinstance(endpoint, str):
        raise ConfigError(f"cluster {cluster!r} in {path} has no endpoint")
    policy, tls = _tls(f"cluster {cluster!r} in {path}", _table(path, found, "tls"))
    local = found.get("use_spu_local_address", False)
    if not isinstance(local, bool):
        raise ConfigError(
            f"use_spu_local_address of cluster {cluster!r} in {path} must be true or false, "
            f"not {local!r}"
        )
    return Profile(name, cluster, endpoint, policy, local, tls)


def _tls(whose: str, table: Mapping[str, Any]) -> tuple[str, Tls | None]:
    policy = _one_of(whose, table, "tls_policy", _POLICIES, "disabled")
    if policy == "disabled":
        return policy, None
    if policy == "anonymous":
        return policy, Tls(anonymous=True)
    source = _one_of(whose, table, "tls_source", _SOURCES, "")
    certs = table.get("certs")
    if not isinstance(certs, dict):
        raise ConfigError(f"{whose} has no tls.certs table")
    given = {key: certs[key] for key in CERT_KEYS if certs.get(key) not in (None, "")}
    for key in _CERT_KEYS_NEEDED:
        if key not in given:
            raise ConfigError(f"{whose} has no {key} in tls.certs")
    for key, value in given.items():
        if not isinstance(value, str) or (
            key != "domain" and source == "inline" and "-----BEGIN " not in value
        ):
            wanted = "text" if key == "domain" or source == "files" else "PEM text"
            raise ConfigError(f"{key} in tls.certs of {whose} is not {wanted}")
    # With files, a value is always a path, even if it looks like PEM.
    pem = Path if source == "files" else str
    try:
        return policy, Tls(
            domain=given["domain"],
            ca_cert=pem(given["ca_cert"]),
            client_cert=pem(given["cert"]) if "cert" in given else None,
            client_key=pem(given["key"]) if "key" in given else None,
        )
    except UsageError as error:
        raise ConfigError(f"tls.certs of {whose}: {error}", hint=error.hint) from error


def _one_of(
    whose: str, table: Mapping[str, Any], key: str, choices: Mapping[str, str], default: str
) -> str:
    value = table.get(key, default)
    found = choices.get(value) if isinstance(value, str) else None
    if key not in table and not default:
        raise ConfigError(f"{whose} has no {key}", hint=f"use {', '.join(choices)}")
    if found is None:
        raise ConfigError(
            f"{value!r} is not a valid {key} of {whose}", hint=f"use {', '.join(choices)}"
        )
    return found


def _table(path: Path, data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = data.get(key, {})
    if not isinstance(found, dict):
        raise ConfigError(f"{key} in {path} is not a table: {found!r}")
    return found
