"""`streamkit profile`: what Fluvio's own profile file says. It is read, never written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from streamkit.cli.listing import Row, output_option, write_list
from streamkit.cli.options import Command, Group, place_options
from streamkit.errors import ConfigError

if TYPE_CHECKING:
    from streamkit.client.profile import Profiles


@click.group(
    cls=Group,
    invoke_without_command=True,
    examples=("streamkit profile", "streamkit profile list -O json"),
)
@place_options
@click.pass_context
def profile(context: click.Context) -> None:
    """Show the profiles of Fluvio's own file; alone, the current one's name."""
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
    active = profiles.active()
    if active is None:
        raise ConfigError(
            f"{profiles.path} names no current profile",
            hint="name a cluster with --cluster, or let the embedded broker be used",
        )
    click.echo(active.name)


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
    rows: list[Row] = [
        {
            "current": "*" if each.name == profiles.current else "",
            "profile": each.name,
            "cluster": each.cluster,
            "address": each.endpoint,
            "tls": each.tls_policy,
        }
        for each in profiles.by_name.values()
    ]
    write_list("profiles", rows, form, if_none=f"no profiles in {profiles.path}")


def _profiles() -> Profiles:
    from streamkit.client.profile import load_profiles, profile_path

    return load_profiles(profile_path(os.environ, Path.home()))
