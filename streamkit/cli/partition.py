"""`streamkit partition`: list partitions."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from streamkit.cli.listing import output_option, write_list
from streamkit.cli.options import Command, Group, place_options

if TYPE_CHECKING:
    from streamkit.cli.session import Session
    from streamkit.client import PartitionInfo


@click.group(cls=Group, examples=("streamkit partition list", "streamkit partition list -O json"))
@place_options
def partition() -> None:
    """List partitions."""


@partition.command(
    "list",
    cls=Command,
    examples=("streamkit partition list", "streamkit partition list --topic flights -O json"),
)
@click.option("-t", "--topic", help="Only those of this topic")
@click.option("-s", "--system", is_flag=True, help="Partitions of the system's topics instead")
@output_option
@place_options
def list_(topic: str | None, system: bool, form: str) -> None:
    """List partitions: who leads them, and how far they reach."""
    from streamkit.cli.session import run_with_client

    async def work(session: Session) -> list[PartitionInfo]:
        if topic is not None:
            await session.client.admin.describe_topic(topic)  # a wrong name is no empty list
        return await session.client.admin.list_partitions(topic, system=system)

    rows = [asdict(each) for each in run_with_client(work)]
    write_list("partitions", rows, form, if_none="no partitions yet")
