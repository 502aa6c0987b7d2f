"""Fluvio's own profile file, as it is changed: what stands in it beside a change stays.

Source: control plane reference, 6.1. Comments, order and keys that nobody here knows are kept; the
official tools write the whole file anew and lose the comments.
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
    CERT_KEYS,
    Profile,
    Profiles,
    load_profiles,
    one_of,
    read_profile_text,
)
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
    """Changes a profile file. Every call reads it, changes one thing, and writes it back whole.

    Writing goes aside and replaces the file at once, with the permissions it had, so nobody ever
    finds half of it. A file that is not there yet is made for its owner alone, since it may come
    to hold keys.

    Every call raises ConfigError where the file cannot be read or written, or is in a form in
    which it cannot be changed; it is then as it was.
    """

    def __init__(self, path: Path) -> None:
        if find_spec("tomlkit") is None:
            raise ConfigError(
                "changing profiles takes a package that is not installed: tomlkit",
                hint='pip install "fluvio-streamkit[cli]"',
            )
        self.path = path

    def switch(self, name: str) -> Profile:
        """Make a profile the current one, and return it.

        Raises:
            ConfigError: There is none of that name, or it cannot be used.
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
        """Add a profile and a cluster of the same name, make it the current one, return it.

        Args:
            name: Of the profile and the cluster.
            endpoint: The SC as ``host:port``.
            tls: How connections are secured. What is checked must be whole: Fluvio's file has a
                domain, an authority, a certificate and its key, or no check at all.
            installation: What kind of cluster it is, one of INSTALLATIONS; for Fluvio's tools.
            replace: Whether endpoint, TLS and installation of what has the name already are
                replaced.

        Raises:
            ConfigError: Something has the name already.
            UsageError: The TLS options, or the installation, cannot stand in a profile file.
        """
        profiles = load_profiles(self.path)
        if not name:
            raise UsageError("a profile needs a name")
        if installation is not None and installation not in INSTALLATIONS:
            raise UsageError(
                f"no kind of installation is called {installation!r}",
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
                _below(cluster, "metadata")["installation"] = installation

        def expect(data: dict[str, Any]) -> None:
            data["current_profile"] = name
            change_profile(_below(data["profile"], name))
            change_cluster(_below(data["cluster"], name))

        def rewrite(text: str) -> str:
            text = with_table(text, "profile", name, change_profile)
            text = with_table(text, "cluster", name, change_cluster)
            return _with_current(text, name)

        self._write(expect, rewrite)
        return load_profiles(self.path).get(name)

    def rename(self, old: str, new: str) -> None:
        """Give a profile another name; the current one stays the current one.

        Raises:
            ConfigError: There is no such profile, or the new name is taken.
        """
        profiles = load_profiles(self.path)
        _check_known(profiles, old)
        if not new:
            raise UsageError("a profile needs a name")
        if new in profiles.names:
            raise ConfigError(
                f"there is a profile {new!r} in {self.path} already", hint="choose another name"
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
        """Delete a profile, and return its cluster, which stays; None where it named none.

        If it was the current one, none is current then.

        Raises:
            ConfigError: There is no such profile.
        """
        profiles = load_profiles(self.path)
        _check_known(profiles, name)
        self._delete([name], cluster=None, was_current=profiles.current == name)
        found = profiles.by_name.get(name)
        return None if found is None else found.cluster

    def delete_cluster(self, name: str, *, force: bool = False) -> list[str]:
        """Delete a cluster that no profile uses; with ``force`` its profiles, too.

        Returns:
            The profiles that were deleted with it.

        Raises:
            ConfigError: There is no such cluster, or profiles use it.
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
                hint="delete these profiles first, or all of them at once with --force",
            )
        self._delete(users, cluster=name, was_current=profiles.current in users)
        return users

    def export(self, name: str | None = None) -> dict[str, Any]:
        """Return what a file would hold that has one profile only, the current one if left out.

        Certificates are read from their files and stand in it as text, so that it can be used
        elsewhere. Whoever has it can do what the profile's owner can.

        Raises:
            ConfigError: There is no such profile, it cannot be used, or a certificate cannot
                be read.
        """
        profiles = load_profiles(self.path)
        found = profiles.active() if name is None else profiles.get(name)
        if found is None:
            raise ConfigError(
                f"{self.path} names no current profile", hint=one_of(profiles.names, "")
            )
        data = self._data()
        cluster = data["cluster"][found.cluster]
        if found.tls is not None and not found.tls.anonymous:
            cluster["tls"] = _verified(_certs(found.tls.as_text()))
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
                f"there is a {taken} {name!r} in {self.path} already",
                hint=f"choose another name, or `streamkit profile {delete} {name}` first",
            )

    def _delete(self, names: list[str], *, cluster: str | None, was_current: bool) -> None:
        places = [("profile", name) for name in names]
        if cluster is not None:
            places.append(("cluster", cluster))

        def expect(data: dict[str, Any]) -> None:
            for section, name in places:
                del data[section][name]
            if was_current:
                del data["current_profile"]

        def rewrite(text: str) -> str:
            for section, name in places:
                text = without_table(text, section, name)
            return _with_current(text, None) if was_current else text

        self._write(expect, rewrite)

    def _data(self) -> dict[str, Any]:
        text = read_profile_text(self.path)
        return {} if text is None else tomllib.loads(text)

    def _write(
        self, expect: Callable[[dict[str, Any]], None], rewrite: Callable[[str], str]
    ) -> None:
        """Rewrite the file's text. What comes out must mean what ``expect`` makes of its data."""
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
            is_right = tomllib.loads(after) == wanted
        except (ValueError, LookupError, TypeError, TOMLKitError) as error:
            raise self._unchangeable() from error
        if not is_right:
            raise self._unchangeable()
        _replace_file(self.path, after)

    def _unchangeable(self) -> ConfigError:
        return ConfigError(
            f"{self.path} is in a form that cannot be changed without losing something",
            hint="write a table for each profile and cluster, such as [profile.NAME], or edit it",
        )


def tls_table(tls: Tls | None) -> dict[str, Any]:
    """Return what a profile file says of how connections are secured.

    Raises:
        UsageError: It is neither all nor nothing.
    """
    if tls is None:
        return {"tls_policy": "disabled"}
    given = _certs(tls)
    if tls.anonymous and not given:
        return {"tls_policy": "anonymous"}
    missing = [key for key in CERT_KEYS if key not in given]
    if tls.anonymous or missing:
        raise UsageError(
            f"a profile cannot hold these TLS options: it lacks {', '.join(missing)}",
            hint="Fluvio's file has all of domain, CA, client certificate and key, or no check",
        )
    return _verified(given)


def _certs(tls: Tls) -> dict[str, str]:
    given = (tls.domain, tls.ca_cert, tls.client_cert, tls.client_key)
    return {
        key: str(value) for key, value in zip(CERT_KEYS, given, strict=True) if value is not None
    }


def _verified(given: dict[str, str]) -> dict[str, Any]:
    is_text = ["-----BEGIN " in value for key, value in given.items() if key != "domain"]
    if any(is_text) and not all(is_text):
        raise UsageError("certificates of a profile are all files, or all text")
    certs = {
        key: value
        if key == "domain"
        else (_lines(value) if all(is_text) else os.path.abspath(value))
        for key, value in given.items()
    }
    source = "inline" if all(is_text) else "files"
    return {"tls_policy": "verified", "tls_source": source, "certs": certs}


def _lines(text: str) -> str:
    import tomlkit

    return tomlkit.string(text, multiline=True)


def _check_known(profiles: Profiles, name: str) -> None:
    if name not in profiles.problems:
        profiles.get(name)


def _below(data: Any, key: str) -> Any:
    if key not in data:
        data[key] = {}
    return data[key]  # a document makes a table of its own of what it is given


def _with_current(text: str, name: str | None) -> str:
    """Let the file name its current profile, or none."""
    return with_value(text, "current_profile", name)


def _with_version(text: str) -> str:
    """Name the version, without which Fluvio's tools read nothing."""
    return text if "version" in tomllib.loads(text) else with_value(text, "version", _VERSION)


def _with_sections(text: str) -> str:
    """Keep the sections, of which Fluvio's tools want both, even if they are empty."""
    data = tomllib.loads(text)
    missing = [f"\n[{section}]\n" for section in _SECTIONS if section not in data]
    return f"{text.rstrip()}\n{''.join(missing)}" if missing else text


def _replace_file(path: Path, text: str) -> None:
    """Put a text in the place of a file, at once, and see it on disk.

    Raises:
        ConfigError: That is not possible; the file is as it was.
    """
    target = path.resolve()  # a link stays one
    aside: Path | None = None
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=target.parent, prefix=".config-", delete=False) as file:
            aside = Path(file.name)
            _take_after(target, file.fileno())
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, target)
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        if aside is not None:
            aside.unlink(missing_ok=True)
        raise ConfigError(
            f"cannot write the Fluvio profile file {path}: {error.strerror}"
        ) from error


def _take_after(existing: Path, fd: int) -> None:
    """Give a file the permissions and the owner of another one, if there is one."""
    try:
        status = existing.stat()
    except FileNotFoundError:
        return
    with suppress(PermissionError):  # only root may give files away; the others own both
        os.fchown(fd, status.st_uid, status.st_gid)
    os.fchmod(fd, stat.S_IMODE(status.st_mode))
