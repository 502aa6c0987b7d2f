"""`streamkit consumer`: stored consumer offsets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from streamkit.cli.listing import Row, output_option, write_list
from streamkit.cli.options import Command, Group, with_target_options
from streamkit.errors import BrokerError, UsageError

if TYPE_CHECKING:
    from streamkit.cli.session import Session
    from streamkit.client import StoredOffset


@click.group(cls=Group, examples=("streamkit consumer list", "streamkit consumer delete my-reader"))
@with_target_options
def consumer() -> None:
    """List and delete stored consumer offsets."""


@consumer.command(
    "list", cls=Command, examples=("streamkit consumer list", "streamkit consumer list -O json")
)
@output_option
@with_target_options
def list_(form: str) -> None:
    """List the stored offset of each consumer: the last record that it has processed."""
    from streamkit.cli.session import run_with_client

    async def work(session: Session) -> list[StoredOffset]:
        return await session.client.admin.list_consumers()

    rows = list(map(_row, run_with_client(work)))
    write_list("consumers", rows, form, empty_text="no consumers yet")


@consumer.command(
    cls=Command,
    examples=(
        "streamkit consumer delete my-reader",
        "streamkit consumer delete my-reader --topic flights --partition 0",
    ),
)
@click.argument("consumer_id", metavar="ID")
@click.option("-t", "--topic", help="Delete only the offsets in this topic")
@click.option(
    "-p",
    "--partition",
    type=click.IntRange(min=0),
    metavar="N",
    help="Delete only the offset of this partition",
)
@with_target_options
def delete(consumer_id: str, topic: str | None, partition: int | None) -> None:
    """Delete the stored offsets of the consumer ID."""
    from streamkit.cli.session import run_with_client

    if partition is not None and topic is None:
        raise UsageError("--partition needs a topic", hint="add --topic NAME")

    async def work(session: Session) -> list[StoredOffset]:
        deleted = await session.client.admin.delete_consumer(consumer_id, topic, partition)
        if deleted:
            return deleted
        known = {each.consumer_id for each in await session.client.admin.list_consumers()}
        raise _no_offset_stored(consumer_id, topic, known)

    for each in run_with_client(work):
        click.echo(f'consumer "{consumer_id}" on {each.topic}-{each.partition} deleted')


def _no_offset_stored(consumer_id: str, topic: str | None, known: set[str]) -> BrokerError:
    from difflib import get_close_matches

    where = "" if topic is None else f" on {topic!r}"
    close = [] if consumer_id in known else get_close_matches(consumer_id, sorted(known), 1)
    hint = f"did you mean {close[0]!r}?" if close else "`streamkit consumer list` lists them"
    return BrokerError(0, f"no offset is stored for consumer {consumer_id!r}{where}", hint=hint)


def _row(stored: StoredOffset) -> Row:
    from datetime import UTC, datetime

    seen_s = stored.modified_time_s
    seen = datetime.fromtimestamp(seen_s, UTC).isoformat() if seen_s > 0 else None
    return {
        "consumer": stored.consumer_id,
        "topic": stored.topic,
        "partition": stored.partition,
        "offset": stored.offset,
        "last_seen": seen,
    }
