"""`streamkit profile`: reads and changes Fluvio's own profile file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streamkit.cli.listing import Row, output_option, write_list
from streamkit.cli.options import (
    Command,
    Group,
    target_options_of,
    tls_of,
    with_target_and_tls_options,
    with_target_options,
)
from streamkit.errors import ConfigError

if TYPE_CHECKING:
    from streamkit.client.profile.profile import Profile, Profiles
    from streamkit.client.profile.profile_file import ProfileFile


@click.group(
    cls=Group,
    invoke_without_command=True,
    examples=("streamkit profile", "streamkit profile add staging sc.example:9003"),
)
@with_target_options
@click.pass_context
def profile(context: click.Context) -> None:
    """Show and change the profiles in Fluvio's profile file.

    Without a subcommand, prints the name of the current profile. The file is ~/.fluvio/config, or
    the file in the variable FLV_PROFILE_PATH. Commands that change it keep comments and unrelated
    entries.
    """
    if context.invoked_subcommand is None:
        context.invoke(current)


@profile.command(
    cls=Command,
    examples=("streamkit profile current", "FLV_PROFILE_PATH=f streamkit profile current"),
)
@with_target_options
def current() -> None:
    """Print the name of the current profile."""
    profiles = _profiles()
    if profiles.current is None:
        raise ConfigError(
            f"{profiles.path} has no current profile",
            hint="choose one with `streamkit profile switch NAME`, or use --cluster",
        )
    if profiles.current not in profiles.problems:
        profiles.get(profiles.current)
    click.echo(profiles.current)


@profile.command(
    "list",
    cls=Command,
    examples=("streamkit profile list", "streamkit profile list -O json"),
)
@output_option
@with_target_options
def list_(form: str) -> None:
    """List the profiles and the addresses of their clusters."""
    profiles = _profiles()
    rows = [_row(profiles, name) for name in profiles.names]
    columns = ["current", "profile", "cluster", "address", "tls"]
    if profiles.problems:
        columns.append("problem")
    write_list(
        "profiles", rows, form, empty_text=f"no profiles in {profiles.path}", table_columns=columns
    )


@profile.command(
    cls=Command,
    examples=("streamkit profile switch staging", "streamkit profile switch local"),
)
@click.argument("name")
@with_target_options
def switch(name: str) -> None:
    """Make NAME the current profile."""
    click.echo(f"switched to {_described(_file().switch(name))}")


@profile.command(
    cls=Command,
    examples=(
        "streamkit profile add staging sc.example:9003",
        "streamkit profile add production sc.example:9003 cloud --tls --domain fluvio.example "
        "--ca-cert ca.pem --enable-client-cert --client-cert me.pem --client-key me.key",
    ),
)
@click.argument("name")
@click.argument("address", metavar="HOST:PORT")
@click.argument("installation", metavar="[INSTALLATION]", required=False)
@with_target_and_tls_options
@click.pass_context
def add(context: click.Context, name: str, address: str, installation: str | None) -> None:
    """Add a profile NAME for the cluster at HOST:PORT, and switch to it.

    INSTALLATION is the kind of cluster, used by Fluvio's own tools: local, local_k8, k8,
    read_only, docker or cloud. With --tls the profile uses TLS.
    """
    from streamkit.target import checked_address

    added = _file().add(
        name,
        checked_address(address, "the cluster"),
        tls=tls_of(target_options_of(context)),
        installation=installation,
    )
    click.echo(f"added and switched to {_described(added)}")


@profile.command(
    cls=Command,
    examples=(
        "streamkit profile rename local laptop",
        "streamkit profile rename staging production",
    ),
)
@click.argument("old")
@click.argument("new")
@with_target_options
def rename(old: str, new: str) -> None:
    """Rename the profile OLD to NEW; its cluster keeps its name."""
    _file().rename(old, new)
    click.echo(f"renamed profile {old!r} to {new!r}")


@profile.command(
    cls=Command,
    examples=("streamkit profile delete staging", "streamkit profile delete local"),
)
@click.argument("name")
@with_target_options
def delete(name: str) -> None:
    """Delete the profile NAME, but keep the entry of its cluster."""
    was_current = _profiles().current == name
    cluster = _file().delete(name)
    click.echo(f"deleted profile {name!r}" + (f"; kept cluster {cluster!r}" if cluster else ""))
    if was_current:
        _say_no_profile_is_current()


@profile.command(
    "delete-cluster",
    cls=Command,
    examples=("streamkit profile delete-cluster old", "streamkit profile delete-cluster old -f"),
)
@click.argument("name")
@click.option("-f", "--force", is_flag=True, help="Also delete the profiles that use the cluster")
@with_target_options
def delete_cluster(name: str, force: bool) -> None:
    """Delete the entry of the cluster NAME from the file, but not the cluster itself."""
    before = _profiles().current
    deleted = _file().delete_cluster(name, force=force)
    profiles = f" and its profiles: {', '.join(deleted)}" if deleted else ""
    click.echo(f"deleted cluster {name!r}{profiles}")
    if before in deleted:
        _say_no_profile_is_current()


@profile.group(
    cls=Group,
    examples=("streamkit profile sync local", "streamkit profile sync local 127.0.0.1:9103"),
)
@with_target_options
def sync() -> None:
    """Create a profile for a known kind of cluster."""


@sync.command(
    cls=Command,
    examples=("streamkit profile sync local", "streamkit profile sync local 127.0.0.1:9103"),
)
@click.argument("address", metavar="[HOST:PORT]", default="127.0.0.1:9003")
@with_target_and_tls_options
@click.pass_context
def local(context: click.Context, address: str) -> None:
    """Set the profile `local` to the cluster on this machine, and switch to it.

    The default of HOST:PORT is 127.0.0.1:9003, the address of a local Fluvio cluster.
    """
    from streamkit.target import checked_address

    found = _file().add(
        "local",
        checked_address(address, "the cluster"),
        tls=tls_of(target_options_of(context)),
        installation="local",
        replace=True,
    )
    click.echo(f"switched to {_described(found)}")


@profile.command(
    cls=Command,
    examples=(
        "streamkit profile export > profile.toml",
        "streamkit profile export production -O json",
    ),
)
@click.argument("name", required=False)
@click.option(
    "-O",
    "--output",
    "form",
    type=click.Choice(("toml", "json", "yaml"), case_sensitive=False),
    default="toml",
    help="Output format; toml is a whole profile file, json and yaml only the cluster's entry",
)
@with_target_options
def export(name: str | None, form: str) -> None:
    """Print the profile NAME, or the current one, for use on another machine.

    The output includes certificates and keys as text. If it includes a client certificate, anyone
    with the output can connect to the cluster as you.
    """
    exported = _file().export(name)
    (cluster,) = exported["cluster"].values()
    if form == "toml":
        import tomlkit

        click.echo(tomlkit.dumps(exported), nl=False)
    elif form == "json":
        click.echo(json.dumps(cluster, indent=2, default=str))
    else:
        click.echo("\n".join(_yaml(cluster)))


def _row(profiles: Profiles, name: str) -> Row:
    found = profiles.by_name.get(name)
    return {
        "current": "*" if name == profiles.current else "",
        "profile": name,
        "cluster": found and found.cluster,
        "address": found and found.endpoint,
        "tls": found and found.tls_policy,
        "problem": profiles.problems.get(name),
    }


def _described(found: Profile) -> str:
    tls = "" if found.tls is None else f" with TLS, {found.tls_policy}"
    return f"profile {found.name!r}: {found.endpoint}{tls}"


def _say_no_profile_is_current() -> None:
    click.echo(
        "there is no current profile now; choose one with `streamkit profile switch NAME`",
        err=True,
    )


def _yaml(data: dict[str, Any], indent: str = "") -> list[str]:
    lines = []
    for key, value in data.items():
        if isinstance(value, dict) and value:
            lines += [f"{indent}{json.dumps(key)}:", *_yaml(value, f"{indent}  ")]
        else:
            # JSON scalars and lists are valid YAML with the same meaning.
            lines.append(f"{indent}{json.dumps(key)}: {json.dumps(value, default=str)}")
    return lines


def _path() -> Path:
    from streamkit.client.profile.profile import profile_path

    return profile_path(os.environ, Path.home())


def _profiles() -> Profiles:
    from streamkit.client.profile.profile import load_profiles

    return load_profiles(_path())


def _file() -> ProfileFile:
    from streamkit.client.profile.profile_file import ProfileFile

    return ProfileFile(_path())
