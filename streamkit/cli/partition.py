"""`streamkit partition`: list partitions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from streamkit.cli.listing import Row, output_option, write_list
from streamkit.cli.options import Command, Group, with_target_options

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
@with_target_options
def partition() -> None:
    """List partitions."""


@partition.command(
    "list",
    cls=Command,
    examples=("streamkit partition list", "streamkit partition list --topic flights -O json"),
)
@click.option("-t", "--topic", help="List only the partitions of this topic")
@click.option("-s", "--system", is_flag=True, help="List the partitions of system topics instead")
@output_option
@with_target_options
def list_(topic: str | None, system: bool, form: str) -> None:
    """List partitions with their leader, replicas, size and offsets."""
    from streamkit.cli.session import run_with_client

    async def work(session: Session) -> list[PartitionInfo]:
        if topic is not None:
            # An unknown topic is an error, not an empty list.
            await session.client.admin.describe_topic(topic)
        return await session.client.admin.list_partitions(topic, system=system)

    rows = list(map(_row, run_with_client(work)))
    write_list(
        "partitions", rows, form, empty_text="no partitions yet", table_columns=_TABLE_COLUMNS
    )


def _row(partition: PartitionInfo) -> Row:
    followers = partition.followers
    return {
        "topic": partition.topic,
        "partition": partition.partition,
        "leader": partition.leader,
        "replicas": list(partition.replicas),
        "resolution": partition.resolution,
        # Negative sizes are codes: -1 is unknown, -2 is not measured yet.
        "size_bytes": partition.size_bytes if partition.size_bytes >= 0 else None,
        "base_offset": partition.base_offset,
        "high_watermark": partition.high_watermark,
        "log_end": partition.log_end,
        "live_followers": partition.live_followers,
        "followers": [each.spu for each in followers],
        "follower_high_watermarks": [each.high_watermark for each in followers],
        "follower_log_ends": [each.log_end for each in followers],
    }
