"""`streamkit topic`: create, list, describe, delete, add-partition."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from streamkit.cli.listing import Row, output_option, write_list, write_one
from streamkit.cli.options import DURATION, SIZE, Command, Group, place_options

if TYPE_CHECKING:
    from streamkit.cli.session import Session
    from streamkit.client import TopicInfo

COMPRESSIONS = ("any", "none", "gzip", "snappy", "lz4", "zstd")

_TABLE_COLUMNS = (
    "name",
    "partitions",
    "replicas",
    "retention_s",
    "compression",
    "status",
    "reason",
)


@click.group(
    cls=Group,
    examples=("streamkit topic create flights -p 4", "streamkit topic list -O json"),
)
@place_options
def topic() -> None:
    """Create, list, describe and delete topics."""


@topic.command(
    cls=Command,
    examples=(
        "streamkit topic create flights",
        "streamkit topic create flights -p 4 --retention-time 30days --compression-type lz4",
    ),
)
@click.argument("name")
@click.option("-p", "--partitions", type=click.IntRange(min=1), default=1, help="How many [1]")
@click.option(
    "-r",
    "--replication",
    type=click.IntRange(min=1),
    default=1,
    help="On how many SPUs each is kept [1]",
)
@click.option("--retention-time", type=DURATION, help="How long records are kept [7days]")
@click.option("--segment-size", type=SIZE, help="Size of one file of the log [1GiB]")
@click.option("--max-partition-size", type=SIZE, help="How large a partition may grow")
@click.option(
    "--compression-type",
    type=click.Choice(COMPRESSIONS, case_sensitive=False),
    default="any",
    help="What batches must be compressed with [any]",
)
@click.option("-d", "--dry-run", is_flag=True, help="Only check whether it could be made")
@place_options
def create(
    name: str,
    partitions: int,
    replication: int,
    retention_time: float | None,
    segment_size: int | None,
    max_partition_size: int | None,
    compression_type: str,
    dry_run: bool,
) -> None:
    """Create the topic NAME: 1 to 63 of a-z, 0-9 and -."""
    from streamkit.cli.session import run_with_client

    async def work(session: Session) -> None:
        await session.client.admin.create_topic(
            name,
            partitions,
            replication=replication,
            retention=retention_time,
            segment_size_bytes=segment_size,
            max_partition_size_bytes=max_partition_size,
            compression=compression_type,
            dry_run=dry_run,
        )

    run_with_client(work)
    click.echo(f'topic "{name}" {"could be created" if dry_run else "created"}')


@topic.command(
    "list",
    cls=Command,
    examples=("streamkit topic list", "streamkit --cluster 127.0.0.1:9103 topic list -O json"),
)
@output_option
@click.option("-s", "--system", is_flag=True, help="List the topics of the system instead")
@place_options
def list_(form: str, system: bool) -> None:
    """List topics by name."""
    from streamkit.cli.session import run_with_client

    async def work(session: Session) -> list[TopicInfo]:
        return await session.client.admin.list_topics(system=system)

    rows = list(map(_row, run_with_client(work)))
    write_list("topics", rows, form, if_none="no topics yet", table_columns=_TABLE_COLUMNS)


@topic.command(
    cls=Command,
    examples=("streamkit topic describe flights", "streamkit topic describe flights -O json"),
)
@click.argument("name")
@output_option
@place_options
def describe(name: str, form: str) -> None:
    """Show what the topic NAME is set to."""
    from streamkit.cli.session import run_with_client

    async def work(session: Session) -> TopicInfo:
        return await session.client.admin.describe_topic(name)

    write_one(_row(run_with_client(work)), form)


@topic.command(
    cls=Command,
    examples=("streamkit topic delete flights", "streamkit topic delete -c flights late-flights"),
)
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option(
    "-c", "--continue-on-error", is_flag=True, help="Go on with the next one where one fails"
)
@click.option("-s", "--system", is_flag=True, help="Delete topics of the system; asks first")
@click.option("-f", "--force", is_flag=True, help="Do not ask")
@place_options
def delete(names: tuple[str, ...], continue_on_error: bool, system: bool, force: bool) -> None:
    """Delete topics and everything in them."""
    from streamkit.cli.session import run_with_client
    from streamkit.errors import BrokerError

    if system and not force:
        click.confirm(f"delete {', '.join(names)} of the system?", abort=True, err=True)

    async def work(session: Session) -> list[BrokerError]:
        failures: list[BrokerError] = []
        for name in names:
            try:
                await session.client.admin.delete_topic(name, force=system)
                click.echo(f'topic "{name}" deleted')
            except BrokerError as error:
                if not continue_on_error:
                    raise
                failures.append(error)
                click.echo(f"not deleted: {error}", err=True)
        return failures

    failures = run_with_client(work)
    if failures:
        raise BrokerError(
            failures[0].code,
            f"{len(failures)} of {len(names)} topics were not deleted",
            hint=failures[0].hint,
        )


@topic.command(
    "add-partition",
    cls=Command,
    examples=(
        "streamkit topic add-partition flights",
        "streamkit topic add-partition flights --count 3",
    ),
)
@click.argument("name")
@click.option("-c", "--count", type=click.IntRange(min=1), default=1, help="How many [1]")
@place_options
def add_partition(name: str, count: int) -> None:
    """Give the topic NAME more partitions.

    Keys are spread over more partitions from then on: records of one key may then stand in two.
    """
    from streamkit.cli.session import run_with_client

    async def work(session: Session) -> Any:
        return await session.client.admin.add_partitions(name, count)

    for each in run_with_client(work):
        click.echo(f'partition {each.partition} of topic "{name}" added on SPU {each.leader}')


def _row(topic: TopicInfo) -> Row:
    return {
        "name": topic.name,
        "partitions": topic.partitions,
        "replicas": topic.replication,
        "retention_s": topic.retention_s,
        "segment_size_bytes": topic.segment_size_bytes,
        "max_partition_size_bytes": topic.max_partition_size_bytes,
        "compression": topic.compression,
        "system": topic.is_system,
        "status": topic.status,
        "reason": topic.reason,
    }
