"""`streamkit broker`: the broker as a process in the foreground."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from streamkit.cli.options import Command, Group, Option, target_options_of, with_target_options

if TYPE_CHECKING:
    from streamkit.broker.broker import Broker


@click.group(
    cls=Group,
    examples=(
        "streamkit broker start",
        "streamkit broker start --data-dir /var/lib/streamkit --sc-port 0 --spu-port 0",
    ),
)
@with_target_options
def broker() -> None:
    """Run the broker in the foreground."""


@broker.command(
    cls=Command,
    examples=(
        "streamkit broker start",
        "streamkit broker start --data-dir /var/lib/streamkit --sc-port 0 --spu-port 0",
    ),
)
@click.option(
    "--sc-port",
    type=click.IntRange(0, 65_535),
    default=9103,
    metavar="PORT",
    help="Port of the SC; 0 chooses a free one",
)
@click.option(
    "--spu-port",
    type=click.IntRange(0, 65_535),
    default=9110,
    metavar="PORT",
    help="Port of the SPU; 0 chooses a free one",
)
@click.option(
    "--spu-public-address",
    cls=Option,
    metavar="HOST:PORT",
    show_default="its own host and port",
    help="Address at which clients reach the SPU through a proxy or NAT",
)
@with_target_options
def start(sc_port: int, spu_port: int, spu_public_address: str | None) -> None:
    """Serve the data folder on 127.0.0.1 until SIGTERM or Ctrl-C.

    Prints the line `ready sc=HOST:PORT spu=HOST:PORT` when both ports accept connections.
    Commands in the same folder find the broker; others need --cluster.
    """
    import asyncio
    import logging

    from streamkit.broker.broker import BrokerOptions
    from streamkit.broker.data_folder import DataFolder
    from streamkit.broker.process import serve
    from streamkit.observe.streams import say
    from streamkit.target import checked_address, data_folder

    options = target_options_of(click.get_current_context())
    if spu_public_address is not None:
        checked_address(spu_public_address, "--spu-public-address")
    if options.cluster or options.profile or options.tls:
        raise click.UsageError(
            "`broker start` runs a broker on this machine and does not use --cluster, --profile"
            " or --tls"
        )
    folder = data_folder(options.data_dir)
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    if DataFolder(folder).make():
        say(f"new data folder at {folder}")

    def say_ready(broker: Broker) -> None:
        click.echo(f"ready sc={broker.sc_address} spu={broker.spu_address}")
        sys.stdout.flush()

    broker_options = BrokerOptions(folder, sc_port, spu_port, spu_public_address=spu_public_address)
    code = asyncio.run(serve(broker_options, stays=True, on_ready=say_ready))
    click.get_current_context().exit(code)
