"""Changes Fluvio's profile file, and keeps everything else in it.

Source: docs/protocol/index.md, "How a client finds the cluster".
Comments, order and unknown keys are kept; the official tools
rewrite the whole file and lose the comments.
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Final

from streamkit.client.profile.profile import (
    Profile,
    Profiles,
    load_profiles,
    one_of,
    read_profile_text,
)
from streamkit.client.profile.tls_table import certs_of, tls_table, verified_table
from streamkit.client.profile.toml_text import (
    in_its_line_ends,
    with_renamed_table,
    with_table,
    with_value,
    without_table,
)
from streamkit.client.tls import Tls
from streamkit.errors import ConfigError, UsageError

_VERSION: Final = "2.0"
_SECTIONS: Final = ("profile", "cluster")
INSTALLATIONS: Final = ("local", "local_k8", "k8", "read_only", "docker", "cloud")


class ProfileFile:
    """Changes a profile file. Every call reads the file, makes one change, and writes it back.

    The new text goes to a temporary file that atomically replaces the old one and has the same
    permissions, so a reader never sees half of it. A new file is readable only for its owner,
    because it may contain keys.

    Every call raises ConfigError if the file cannot be read or written, or has a form that cannot
    be changed; the file then stays unchanged.
    """

    def __init__(self, path: Path) -> None:
        if find_spec("tomlkit") is None:
            raise ConfigError(
                "changing profiles needs the package tomlkit, which is not installed",
                hint='pip install "fluvio-streamkit[cli]"',
            )
        self.path = path

    def switch(self, name: str) -> Profile:
        """Make a profile the current one, and return it.

        Raises:
            ConfigError: The profile does not exist, or cannot be used.
        """
        found = load_profiles(self.path).get(name)

        def expect(data: dict[str, Any]) -> None:
            data["current_profile"] = name

        self._write(expect, lambda text: _with_current(text, name))
        return found

    def add(
        self,
        name: str,
        endpoint: str,
        *,
        tls: Tls | None = None,
        installation: str | None = None,
        replace: bool = False,
    ) -> Profile:
        """Add a profile and a cluster with the same name, make it the current one, and return it.

        Args:
            name: The name of the profile and of the cluster.
            endpoint: The SC as ``host:port``.
            tls: How to secure connections. Fluvio's file has either all of domain, CA
                certificate, client certificate and key, or anonymous TLS.
            installation: The kind of cluster, one of INSTALLATIONS; for Fluvio's tools.
            replace: Whether to replace endpoint, TLS and installation of an existing profile or
                cluster with this name.

        Raises:
            ConfigError: The name is in use.
            UsageError: The TLS options or the installation are not valid in a profile file.
        """
        profiles = load_profiles(self.path)
        if not name:
            raise UsageError("a profile needs a name")
        if installation is not None and installation not in INSTALLATIONS:
            raise UsageError(
                f"{installation!r} is not a valid kind of installation",
                hint=f"use {', '.join(INSTALLATIONS)}",
            )
        if not replace:
            self._check_free(profiles, name)
        secured = tls_table(tls)

        def change_profile(profile: Any) -> None:
            profile["cluster"] = name

        def change_cluster(cluster: Any) -> None:
            cluster.pop("addr", None)
            cluster["endpoint"] = endpoint
            cluster["tls"] = secured
            if installation is not None:
                _subtable(cluster, "metadata")["installation"] = installation

        def expect(data: dict[str, Any]) -> None:
            data["current_profile"] = name
            change_profile(_subtable(data["profile"], name))
            change_cluster(_subtable(data["cluster"], name))

        def rewrite(text: str) -> str:
            text = with_table(text, "profile", name, change_profile)
            text = with_table(text, "cluster", name, change_cluster)
            return _with_current(text, name)

        self._write(expect, rewrite)
        return load_profiles(self.path).get(name)

    def rename(self, old: str, new: str) -> None:
        """Rename a profile; the current profile stays the current one.

        Raises:
            ConfigError: The profile does not exist, or the new name is in use.
        """
        profiles = load_profiles(self.path)
        _check_known(profiles, old)
        if not new:
            raise UsageError("a profile needs a name")
        if new in profiles.names:
            raise ConfigError(
                f"profile {new!r} already exists in {self.path}", hint="choose another name"
            )

        def expect(data: dict[str, Any]) -> None:
            section = data["profile"]
            data["profile"] = {new if key == old else key: section[key] for key in section}
            if profiles.current == old:
                data["current_profile"] = new

        def rewrite(text: str) -> str:
            text = with_renamed_table(text, "profile", old, new)
            return _with_current(text, new) if profiles.current == old else text

        self._write(expect, rewrite)

    def delete(self, name: str) -> str | None:
        """Delete a profile and return its cluster, which is kept; None if it had no cluster.

        If it was the current profile, there is no current profile afterwards.

        Raises:
            ConfigError: The profile does not exist.
        """
        profiles = load_profiles(self.path)
        _check_known(profiles, name)
        self._delete([name], cluster=None, was_current=profiles.current == name)
        found = profiles.by_name.get(name)
        return None if found is None else found.cluster

    def delete_cluster(self, name: str, *, force: bool = False) -> list[str]:
        """Delete a cluster that no profile uses; with ``force`` also the profiles that use it.

        Returns:
            The names of the deleted profiles.

        Raises:
            ConfigError: The cluster does not exist, or profiles use it.
        """
        profiles = load_profiles(self.path)
        data = self._data()
        clusters = data.get("cluster", {})
        if name not in clusters:
            raise ConfigError(f"no cluster {name!r} in {self.path}", hint=one_of(clusters, name))
        users = [
            each
            for each, entry in data.get("profile", {}).items()
            if isinstance(entry, dict) and entry.get("cluster") == name
        ]
        if users and not force:
            raise ConfigError(
                f"cluster {name!r} in {self.path} is used by: {', '.join(users)}",
                hint="delete these profiles first, or use --force to delete them as well",
            )
        self._delete(users, cluster=name, was_current=profiles.current in users)
        return users

    def export(self, name: str | None = None) -> dict[str, Any]:
        """Return the contents of a file with only one profile, by default the current one.

        Certificates are read from their files and included as text, so that the result can be
        used on another machine. Anyone who has it can do what the profile's owner can do.

        Raises:
            ConfigError: The profile does not exist or cannot be used, or a certificate cannot be
                read.
        """
        profiles = load_profiles(self.path)
        found = profiles.active() if name is None else profiles.get(name)
        if found is None:
            raise ConfigError(
                f"{self.path} has no current profile", hint=one_of(profiles.names, "")
            )
        data = self._data()
        cluster = data["cluster"][found.cluster]
        if found.tls is not None and not found.tls.anonymous:
            cluster["tls"] = verified_table(certs_of(found.tls.as_text()))
        return {
            "version": data.get("version", _VERSION),
            "current_profile": found.name,
            "profile": {found.name: data["profile"][found.name]},
            "cluster": {found.cluster: cluster},
        }

    # --- one change ------------------------------------------------------------------

    def _check_free(self, profiles: Profiles, name: str) -> None:
        taken = "profile" if name in profiles.names else None
        if taken is None and name in self._data().get("cluster", {}):
            taken = "cluster"
        if taken is not None:
            delete = "delete" if taken == "profile" else "delete-cluster"
            raise ConfigError(
                f"{taken} {name!r} already exists in {self.path}",
                hint=f"choose another name, or `streamkit profile {delete} {name}` first",
            )

    def _delete(self, names: list[str], *, cluster: str | None, was_current: bool) -> None:
        tables = [("profile", name) for name in names]
        if cluster is not None:
            tables.append(("cluster", cluster))

        def expect(data: dict[str, Any]) -> None:
            for section, name in tables:
                del data[section][name]
            if was_current:
                del data["current_profile"]

        def rewrite(text: str) -> str:
            for section, name in tables:
                text = without_table(text, section, name)
            return _with_current(text, None) if was_current else text

        self._write(expect, rewrite)

    def _data(self) -> dict[str, Any]:
        text = read_profile_text(self.path)
        return {} if text is None else tomllib.loads(text)

    def _write(
        self, expect: Callable[[dict[str, Any]], None], rewrite: Callable[[str], str]
    ) -> None:
        """Rewrite the file's text. Its data must then equal the old data changed by ``expect``."""
        from tomlkit.exceptions import TOMLKitError

        before = read_profile_text(self.path) or ""
        wanted = tomllib.loads(before)
        wanted.setdefault("version", _VERSION)
        for section in _SECTIONS:
            wanted.setdefault(section, {})
        expect(wanted)
        try:
            after = in_its_line_ends(
                before, lambda text: _with_sections(rewrite(_with_version(text)))
            )
            is_as_expected = tomllib.loads(after) == wanted
        except (ValueError, LookupError, TypeError, TOMLKitError) as error:
            raise self._unchangeable() from error
        if not is_as_expected:
            raise self._unchangeable()
        _replace_file(self.path, after)

    def _unchangeable(self) -> ConfigError:
        return ConfigError(
            f"{self.path} has a TOML layout that streamkit cannot edit",
            hint="use one table per profile and cluster, such as [profile.NAME], "
            "or edit the file yourself",
        )


def _check_known(profiles: Profiles, name: str) -> None:
    if name not in profiles.problems:
        profiles.get(name)


def _subtable(data: Any, key: str) -> Any:
    if key not in data:
        data[key] = {}
    return data[key]  # not the dict above: a document converts it to its own table


def _with_current(text: str, name: str | None) -> str:
    """Set the current profile of the file; None removes it."""
    return with_value(text, "current_profile", name)


def _with_version(text: str) -> str:
    """Add the version if it is missing, because Fluvio's tools require it."""
    return text if "version" in tomllib.loads(text) else with_value(text, "version", _VERSION)


def _with_sections(text: str) -> str:
    """Add missing sections, because Fluvio's tools require both, even if they are empty."""
    data = tomllib.loads(text)
    missing = [f"\n[{section}]\n" for section in _SECTIONS if section not in data]
    return f"{text.rstrip()}\n{''.join(missing)}" if missing else text


def _replace_file(path: Path, text: str) -> None:
    """Atomically replace the text of a file, and sync it to disk.

    Raises:
        ConfigError: The file cannot be written; it stays unchanged.
    """
    target = path.resolve()  # so that a symbolic link stays a link
    temporary: Path | None = None
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=target.parent, prefix=".config-", delete=False) as file:
            temporary = Path(file.name)
            _copy_permissions(target, file.fileno())
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise ConfigError(
            f"cannot write the Fluvio profile file {path}: {error.strerror}"
        ) from error


def _copy_permissions(existing: Path, fd: int) -> None:
    """Copy the permissions and the owner of an existing file, if there is one."""
    try:
        status = existing.stat()
    except FileNotFoundError:
        return
    with suppress(PermissionError):  # only root may change the owner; others own both files
        os.fchown(fd, status.st_uid, status.st_gid)
    os.fchmod(fd, stat.S_IMODE(status.st_mode))
