"""`streamkit topic`: create, list, describe, delete, add-partition, add-mirror."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import click

from streamkit.cli.listing import Row, output_option, write_list, write_one
from streamkit.cli.options import DURATION, SIZE, Command, Group, Option, with_target_options
from streamkit.errors import UsageError
from streamkit.record import Compression

if TYPE_CHECKING:
    from streamkit.cli.session import Session
    from streamkit.client import TopicInfo

F = TypeVar("F", bound=Callable[..., Any])
COMPRESSIONS = ("any", *get_args(Compression))

_TABLE_COLUMNS = (
    "name",
    "type",
    "partitions",
    "replicas",
    "retention_s",
    "compression",
    "deduplication",
    "status",
    "reason",
)
DEDUP_COUNT = 5
DEDUP_AGE = "5s"


def _count_option(*names: str, default: int = 1, text: str) -> Callable[[F], F]:
    kind = click.IntRange(min=1)
    return click.option(*names, type=kind, default=default, metavar="N", help=text)


@click.group(
    cls=Group,
    examples=("streamkit topic create flights -p 4", "streamkit topic list -O json"),
)
@with_target_options
def topic() -> None:
    """Create, list, describe and delete topics."""


@topic.command(
    cls=Command,
    examples=(
        "streamkit topic create flights",
        "streamkit topic create flights -p 4 --retention-time 30days --compression-type lz4",
        "streamkit topic create --config topic.yaml",
    ),
)
@click.argument("name", required=False)
@_count_option("-p", "--partitions", text="Number of partitions")
@_count_option("-r", "--replication", text="Number of SPUs that store each partition")
@click.option(
    "-i", "--ignore-rack-assignment", is_flag=True, help="Ignore racks when choosing SPUs"
)
@click.option(
    "-f",
    "--replica-assignment",
    metavar="FILE",
    help="JSON file with the SPUs of each partition, instead of -p, -r and -i",
)
@click.option(
    "-m",
    "--mirror-apply",
    metavar="FILE",
    help="JSON file with the remote clusters to mirror, instead of -p, -r and -i",
)
@click.option(
    "--mirror", is_flag=True, help="Create the home topic of a mirror; add remote clusters later"
)
@click.option(
    "--home-to-remote", is_flag=True, help="Mirror from this cluster to the remote clusters"
)
@click.option(
    "--retention-time",
    cls=Option,
    type=DURATION,
    show_default="7days",
    help="Remove closed segments older than this; only on a cluster",
)
@click.option(
    "--segment-size",
    cls=Option,
    type=SIZE,
    show_default="1GiB",
    help="Maximum size of a segment, one file of the log",
)
@click.option(
    "--max-partition-size",
    cls=Option,
    type=SIZE,
    show_default="100GiB",
    help="Remove the oldest segments of a partition larger than this; only on a cluster",
)
@click.option(
    "--compression-type",
    type=click.Choice(COMPRESSIONS, case_sensitive=False),
    default="any",
    help="Compression that batches must have",
)
@click.option("--dedup", is_flag=True, help="Drop records that are duplicates of earlier ones")
@_count_option(
    "--dedup-count", default=DEDUP_COUNT, text="Number of earlier records to compare with"
)
@click.option(
    "--dedup-age",
    type=DURATION,
    default=DEDUP_AGE,
    help="Maximum age of the records to compare with",
)
@click.option("--dedup-filter", metavar="NAME", help="SmartModule that finds the duplicates")
@click.option("-s", "--system", is_flag=True, help="Create a system topic, hidden from lists")
@click.option("-d", "--dry-run", is_flag=True, help="Only check whether the topic can be created")
@click.option(
    "-c",
    "--config",
    metavar="FILE",
    help="YAML, TOML or JSON file with the name and all options; replaces NAME and"
    " every option except -d",
)
@with_target_options
@click.pass_context
def create(context: click.Context, /, name: str | None, dry_run: bool, **options: Any) -> None:
    """Create the topic NAME, which consists of 1 to 63 characters: a-z, 0-9 and -."""
    from streamkit.cli.session import run_with_client

    _check_alone(context)
    _check_retention(options)
    config = options["config"]
    if name is None and config is None:
        raise click.UsageError("missing argument 'NAME'", context)
    arguments = {} if name is None else _admin_arguments(options)

    async def work(session: Session) -> str:
        admin = session.client.admin
        if name is None:
            return await admin.create_topic_from(config, dry_run=dry_run)
        await admin.create_topic(name, dry_run=dry_run, **arguments)
        return name

    created = run_with_client(work)
    click.echo(f'topic "{created}" {"can be created" if dry_run else "created"}')


# Each option, with the options that it excludes because they define the same thing.
_EXCLUDED = {
    "replica_assignment": ("partitions", "replication", "ignore_rack_assignment"),
    "mirror_apply": ("partitions", "replication", "ignore_rack_assignment", "replica_assignment"),
    "mirror": (
        *("partitions", "replication", "ignore_rack_assignment", "replica_assignment"),
        "mirror_apply",
    ),
}


def _check_alone(context: click.Context) -> None:
    """Refuse options that would have no effect because of another option.

    Raises:
        UsageError: There are such options; the message names both.
    """
    from click.core import ParameterSource

    given = [
        parameter
        for parameter in context.command.params
        if context.get_parameter_source(str(parameter.name)) is ParameterSource.COMMANDLINE
    ]
    names = {str(each.name): each.opts[-1] for each in given if each.expose_value}
    if "config" in names:
        _refuse_together(
            "--config", [names[key] for key in names if key not in ("config", "dry_run")]
        )
    for key, excluded in _EXCLUDED.items():
        if key in names:
            _refuse_together(names[key], [names[each] for each in excluded if each in names])
    if not {"mirror", "mirror_apply"} & set(names) and "home_to_remote" in names:
        raise UsageError("--home-to-remote needs --mirror or --mirror-apply", hint="add --mirror")
    dedup = [names[key] for key in ("dedup_count", "dedup_age", "dedup_filter") if key in names]
    if dedup and "dedup" not in names:
        raise UsageError(f"{dedup[0]} has no effect without --dedup", hint="add --dedup")


def _check_retention(options: dict[str, Any]) -> None:
    """Refuse retention limits on the embedded broker, which never removes records.

    Raises:
        UsageError: The target is the embedded broker, and an option or the file sets a limit.
    """
    from streamkit.cli.session import current_target
    from streamkit.client.admin.topic_file import load_topic

    is_set = {name: options[key] is not None for key, name in _LIMITS.items()}
    if not any(is_set.values()) and options["config"] is None:
        return
    if current_target().kind != "embedded":
        return
    if options["config"] is not None:
        spec = load_topic(options["config"])[1]
        is_set = {
            "retention.time": spec.cleanup_policy is not None,
            "partition.max-size": spec.storage is not None
            and spec.storage.max_partition_size_bytes is not None,
        }
    limits = " and ".join(name for name, is_given in is_set.items() if is_given)
    if limits:
        raise UsageError(
            f"{limits}: the embedded broker does not remove old records",
            hint="leave it out; records are kept until their topic is deleted",
        )


_LIMITS = {"retention_time": "--retention-time", "max_partition_size": "--max-partition-size"}


def _refuse_together(option: str, others: list[str]) -> None:
    if others:
        what = " and ".join("NAME" if each == "name" else each for each in others)
        raise UsageError(
            f"{option} cannot be used together with {what}",
            hint=f"leave out {what}, or leave out {option}",
        )


def _admin_arguments(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options as arguments of `streamkit.client.Admin.create_topic`."""
    from streamkit.client import Deduplication
    from streamkit.client.admin.topic_file import load_assignment, load_mirrors

    arguments = {
        "partitions": options["partitions"],
        "replication": options["replication"],
        "ignore_rack": options["ignore_rack_assignment"],
        "retention": options["retention_time"],
        "segment_size_bytes": options["segment_size"],
        "max_partition_size_bytes": options["max_partition_size"],
        "compression": options["compression_type"],
        "system": options["system"],
        "home_to_remote": options["home_to_remote"],
    }
    if options["replica_assignment"] is not None:
        arguments["assignment"] = load_assignment(options["replica_assignment"])
    if options["mirror_apply"] is not None:
        arguments["mirrors"] = load_mirrors(options["mirror_apply"])
    elif options["mirror"]:
        arguments["mirrors"] = []
    if options["dedup"]:
        dedup = Deduplication(options["dedup_count"], options["dedup_age"])
        if options["dedup_filter"]:
            dedup = replace(dedup, filter=options["dedup_filter"])
        arguments["deduplication"] = dedup
    return arguments


@topic.command(
    "list",
    cls=Command,
    examples=("streamkit topic list", "streamkit --cluster 127.0.0.1:9103 topic list -O json"),
)
@output_option
@click.option("-s", "--system", is_flag=True, help="List system topics instead")
@with_target_options
def list_(form: str, system: bool) -> None:
    """List topics by name."""
    from streamkit.cli.session import run_with_client

    async def work(session: Session) -> list[TopicInfo]:
        return await session.client.admin.list_topics(system=system)

    rows = list(map(_row, run_with_client(work)))
    write_list("topics", rows, form, empty_text="no topics yet", table_columns=_TABLE_COLUMNS)


@topic.command(
    cls=Command,
    examples=("streamkit topic describe flights", "streamkit topic describe flights -O json"),
)
@click.argument("name")
@output_option
@with_target_options
def describe(name: str, form: str) -> None:
    """Show the configuration and status of the topic NAME."""
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
    "-c", "--continue-on-error", is_flag=True, help="Continue with the next name after an error"
)
@click.option(
    "-s", "--system", is_flag=True, help="Delete system topics, after asking for confirmation"
)
@click.option("-f", "--force", is_flag=True, help="Do not ask for confirmation")
@with_target_options
def delete(names: tuple[str, ...], continue_on_error: bool, system: bool, force: bool) -> None:
    """Delete one or more topics with all their records."""
    from streamkit.cli.session import delete_each, run_with_client

    if system and not force:
        topics = "topic" if len(names) == 1 else "topics"
        click.confirm(f"delete the system {topics} {', '.join(names)}?", abort=True, err=True)

    run_with_client(
        lambda session: delete_each(
            names,
            "topic",
            lambda name: session.client.admin.delete_topic(name, force=system),
            continue_on_error=continue_on_error,
        )
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
@_count_option("-c", "--count", text="Number of partitions to add")
@with_target_options
def add_partition(name: str, count: int) -> None:
    """Add partitions to the topic NAME.

    Keys are then distributed again: new records of a key may go to a different partition.
    """
    from streamkit.cli.session import run_with_client

    async def work(session: Session) -> Any:
        return await session.client.admin.add_partitions(name, count)

    for each in run_with_client(work):
        click.echo(f'partition {each.partition} of topic "{name}" added on SPU {each.leader}')


@topic.command(
    "add-mirror",
    cls=Command,
    examples=(
        "streamkit topic add-mirror flights edge-1",
        "streamkit topic add-mirror flights edge-1 --home-to-remote",
    ),
)
@click.argument("name")
@click.argument("remote")
@click.option(
    "--home-to-remote", is_flag=True, help="Mirror from this cluster to the remote cluster"
)
@with_target_options
def add_mirror(name: str, remote: str, home_to_remote: bool) -> None:
    """Add the remote cluster REMOTE to the mirrors of the topic NAME."""
    from streamkit.cli.session import run_with_client

    async def work(session: Session) -> None:
        await session.client.admin.add_mirror(name, remote, home_to_remote=home_to_remote)

    run_with_client(work)
    click.echo(f'mirror "{remote}" added to topic "{name}"')


def _row(topic: TopicInfo) -> Row:
    dedup = topic.deduplication
    return {
        "name": topic.name,
        "type": topic.kind,
        "partitions": topic.partitions,
        "replicas": topic.replication,
        "retention_s": topic.retention_s,
        "segment_size_bytes": topic.segment_size_bytes,
        "max_partition_size_bytes": topic.max_partition_size_bytes,
        "compression": topic.compression,
        "ignore_rack": topic.ignores_rack,
        "deduplication": None if dedup is None else dedup.filter,
        "dedup_count": None if dedup is None else dedup.count,
        "dedup_age_s": None if dedup is None else dedup.age_s,
        "system": topic.is_system,
        "status": topic.status,
        "reason": topic.reason,
    }
