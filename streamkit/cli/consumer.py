"""`streamkit consumer`: stored consumer offsets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from streamkit.cli.listing import Row, output_option, write_list
from streamkit.cli.options import Command, Group, place_options
from streamkit.errors import BrokerError, UsageError

if TYPE_CHECKING:
    from streamkit.cli.session import Session
    from streamkit.client import StoredOffset


@click.group(cls=Group, examples=("streamkit consumer list", "streamkit consumer delete my-reader"))
@place_options
def consumer() -> None:
    """List and delete stored consumer offsets."""


@consumer.command(
    "list", cls=Command, examples=("streamkit consumer list", "streamkit consumer list -O json")
)
@output_option
@place_options
def list_(form: str) -> None:
    """List how far each consumer has read: the offset of the last record it has processed."""
    from streamkit.cli.session import run_with_client

    async def work(session: Session) -> list[StoredOffset]:
        return await session.client.admin.list_consumers()

    rows = list(map(_row, run_with_client(work)))
    write_list("consumers", rows, form, if_none="no consumers yet")


@consumer.command(
    cls=Command,
    examples=(
        "streamkit consumer delete my-reader",
        "streamkit consumer delete my-reader --topic flights --partition 0",
    ),
)
@click.argument("consumer_id", metavar="ID")
@click.option("-t", "--topic", help="Only what it has of this topic")
@click.option("-p", "--partition", type=click.IntRange(min=0), help="Only this partition of it")
@place_options
def delete(consumer_id: str, topic: str | None, partition: int | None) -> None:
    """Forget how far the consumer ID has read."""
    from streamkit.cli.session import run_with_client

    if partition is not None and topic is None:
        raise UsageError("--partition needs the topic it belongs to", hint="add --topic NAME")

    async def work(session: Session) -> list[StoredOffset]:
        gone = await session.client.admin.delete_consumer(consumer_id, topic, partition)
        if gone:
            return gone
        known = {each.consumer_id for each in await session.client.admin.list_consumers()}
        raise _nothing_stored(consumer_id, topic, known)

    for each in run_with_client(work):
        click.echo(f'consumer "{consumer_id}" on {each.topic}-{each.partition} deleted')


def _nothing_stored(consumer_id: str, topic: str | None, known: set[str]) -> BrokerError:
    from difflib import get_close_matches

    where = "" if topic is None else f" on {topic!r}"
    close = [] if consumer_id in known else get_close_matches(consumer_id, sorted(known), 1)
    hint = f"did you mean {close[0]!r}?" if close else "`streamkit consumer list` lists them"
    return BrokerError(0, f"nothing is stored for consumer {consumer_id!r}{where}", hint=hint)


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
