"""`streamkit partition`: list partitions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from streamkit.cli.listing import Row, output_option, write_list
from streamkit.cli.options import Command, Group, place_options

if TYPE_CHECKING:
    from streamkit.cli.session import Session
    from streamkit.client import PartitionInfo


_TABLE_COLUMNS = (
    "topic",
    "partition",
    "leader",
    "replicas",
    "resolution",
    "size_bytes",
    "base_offset",
    "high_watermark",
    "log_end",
    "live_followers",
    "follower_log_ends",
)


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

    rows = list(map(_row, run_with_client(work)))
    write_list("partitions", rows, form, if_none="no partitions yet", table_columns=_TABLE_COLUMNS)


def _row(partition: PartitionInfo) -> Row:
    followers = partition.followers
    return {
        "topic": partition.topic,
        "partition": partition.partition,
        "leader": partition.leader,
        "replicas": list(partition.replicas),
        "resolution": partition.resolution,
        # A negative size is none: -1 could not be told, -2 was not told yet.
        "size_bytes": partition.size_bytes if partition.size_bytes >= 0 else None,
        "base_offset": partition.base_offset,
        "high_watermark": partition.high_watermark,
        "log_end": partition.log_end,
        "live_followers": partition.live_followers,
        "followers": [each.spu for each in followers],
        "follower_high_watermarks": [each.high_watermark for each in followers],
        "follower_log_ends": [each.log_end for each in followers],
    }
