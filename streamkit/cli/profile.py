"""`streamkit profile`: Fluvio's own profile file, which is read and changed in place."""

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
    named,
    place_and_tls_options,
    place_options,
    tls_of,
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
@place_options
@click.pass_context
def profile(context: click.Context) -> None:
    """Show and change the profiles of Fluvio's own file; alone, the current one's name.

    The file is ~/.fluvio/config, or where FLV_PROFILE_PATH says. What stands in it beside a change,
    comments too, stays as it is.
    """
    if context.invoked_subcommand is None:
        context.invoke(current)


@profile.command(
    cls=Command,
    examples=("streamkit profile current", "FLV_PROFILE_PATH=f streamkit profile current"),
)
@place_options
def current() -> None:
    """Print the name of the current profile."""
    profiles = _profiles()
    if profiles.current is None:
        raise ConfigError(
            f"{profiles.path} names no current profile",
            hint="choose one: `streamkit profile switch NAME`; or name a cluster with --cluster",
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
@place_options
def list_(form: str) -> None:
    """List the profiles, and where they lead."""
    profiles = _profiles()
    rows = [_row(profiles, name) for name in profiles.names]
    columns = ["current", "profile", "cluster", "address", "tls"]
    if profiles.problems:
        columns.append("problem")
    write_list(
        "profiles", rows, form, if_none=f"no profiles in {profiles.path}", table_columns=columns
    )


@profile.command(
    cls=Command,
    examples=("streamkit profile switch staging", "streamkit profile switch local"),
)
@click.argument("name")
@place_options
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
@place_and_tls_options
@click.pass_context
def add(context: click.Context, name: str, address: str, installation: str | None) -> None:
    """Add a profile NAME for the cluster at HOST:PORT, and switch to it.

    INSTALLATION is what Fluvio's own tools want to know of the cluster: local, local_k8, k8,
    read_only, docker or cloud. With --tls the profile uses TLS.
    """
    from streamkit.target import checked_address

    added = _file().add(
        name,
        checked_address(address, "the cluster"),
        tls=tls_of(named(context)),
        installation=installation,
    )
    click.echo(f"added, and switched to, {_described(added)}")


@profile.command(
    cls=Command,
    examples=(
        "streamkit profile rename local laptop",
        "streamkit profile rename staging production",
    ),
)
@click.argument("old")
@click.argument("new")
@place_options
def rename(old: str, new: str) -> None:
    """Call the profile OLD NEW from now on; its cluster keeps its name."""
    _file().rename(old, new)
    click.echo(f"profile {old!r} is called {new!r} now")


@profile.command(
    cls=Command,
    examples=("streamkit profile delete staging", "streamkit profile delete local"),
)
@click.argument("name")
@place_options
def delete(name: str) -> None:
    """Delete the profile NAME. Its cluster stays, for other profiles and for later."""
    was_current = _profiles().current == name
    cluster = _file().delete(name)
    click.echo(f"deleted profile {name!r}" + (f"; cluster {cluster!r} stays" if cluster else ""))
    if was_current:
        _say_none_is_current()


@profile.command(
    "delete-cluster",
    cls=Command,
    examples=("streamkit profile delete-cluster old", "streamkit profile delete-cluster old -f"),
)
@click.argument("name")
@click.option("-f", "--force", is_flag=True, help="Delete the profiles that use it, too")
@place_options
def delete_cluster(name: str, force: bool) -> None:
    """Delete the entry of the cluster NAME from the file. The cluster itself is not touched."""
    before = _profiles().current
    gone = _file().delete_cluster(name, force=force)
    also = f", and with it: {', '.join(gone)}" if gone else ""
    click.echo(f"deleted cluster {name!r}{also}")
    if before in gone:
        _say_none_is_current()


@profile.group(
    cls=Group,
    examples=("streamkit profile sync local", "streamkit profile sync local 127.0.0.1:9103"),
)
@place_options
def sync() -> None:
    """Make a profile for a cluster that is found by its kind."""


@sync.command(
    cls=Command,
    examples=("streamkit profile sync local", "streamkit profile sync local 127.0.0.1:9103"),
)
@click.argument("address", metavar="[HOST:PORT]", default="127.0.0.1:9003")
@place_and_tls_options
@click.pass_context
def local(context: click.Context, address: str) -> None:
    """Let the profile `local` lead to the cluster of this machine, and switch to it.

    HOST:PORT is 127.0.0.1:9003 where it is left out, which is where Fluvio starts a local cluster.
    """
    from streamkit.target import checked_address

    found = _file().add(
        "local",
        checked_address(address, "the cluster"),
        tls=tls_of(named(context)),
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
    help="toml is a whole profile file; the others are the cluster's entry [toml]",
)
@place_options
def export(name: str | None, form: str) -> None:
    """Print a profile so that it works elsewhere: certificates and keys are in it as text.

    Without NAME it is the current profile. Where it uses TLS with a client certificate, whoever has
    the output can do what you can.
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


def _say_none_is_current() -> None:
    click.echo(
        "no profile is the current one now; `streamkit profile switch NAME` chooses one", err=True
    )


def _yaml(data: dict[str, Any], indent: str = "") -> list[str]:
    lines = []
    for key, value in data.items():
        if isinstance(value, dict) and value:
            lines += [f"{indent}{json.dumps(key)}:", *_yaml(value, f"{indent}  ")]
        else:
            # What JSON writes for a scalar or a list is the same value in YAML.
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
