from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from tests.cli.conftest import Run


def test_a_topic_can_be_created_described_and_deleted(on_cluster: Run) -> None:
    created = on_cluster(
        *("topic", "create", "wide", "-p", "2", "--retention-time", "1h"),
        *("--segment-size", "1MiB", "--max-partition-size", "10MiB", "--compression-type", "LZ4"),
    )
    assert (created.code, created.out) == (0, b'topic "wide" created\n')
    described = json.loads(on_cluster("topic", "describe", "wide", "-O", "json").out)
    assert described == {
        "name": "wide",
        "type": "computed",
        "partitions": 2,
        "replicas": 1,
        "retention_s": 3_600,
        "segment_size_bytes": 1 << 20,
        "max_partition_size_bytes": 10 << 20,
        "compression": "lz4",
        "ignore_rack": False,
        "deduplication": None,
        "dedup_count": None,
        "dedup_age_s": None,
        "system": False,
        "status": "provisioned",
        "reason": "",
    }
    added = on_cluster("topic", "add-partition", "wide", "-c", "2")
    assert [line.split()[1] for line in added.lines] == [b"2", b"3"]
    partitions = json.loads(on_cluster("partition", "list", "-t", "wide", "-O", "json").out)
    assert [each["partition"] for each in partitions] == [0, 1, 2, 3]
    assert partitions[0]["follower_log_ends"] == []
    deleted = on_cluster("topic", "delete", "wide")
    assert (deleted.code, deleted.out) == (0, b'topic "wide" deleted\n')
    assert on_cluster("topic", "describe", "wide").code == 1


def test_lists_can_be_printed_in_every_format(on_cluster: Run) -> None:
    on_cluster("topic", "create", "listed")
    table = on_cluster("topic", "list").out.decode().splitlines()
    assert table[0].split()[:3] == ["NAME", "TYPE", "PARTITIONS"]
    assert any(line.split()[:3] == ["listed", "computed", "1"] for line in table)
    rows = json.loads(on_cluster("topic", "list", "-O", "JSON").out)
    assert "listed" in [row["name"] for row in rows]
    as_toml = tomllib.loads(on_cluster("topic", "list", "-O", "toml").out.decode())
    assert [row["name"] for row in as_toml["topics"]] == [row["name"] for row in rows]
    assert b'- name: "listed"\n' in on_cluster("topic", "list", "-O", "yaml").out
    system = json.loads(on_cluster("topic", "list", "-s", "-O", "json").out)
    assert [row["name"] for row in system] == ["consumer-offset"]
    (partition,) = json.loads(on_cluster("partition", "list", "-s", "-O", "json").out)
    assert (partition["topic"], partition["replicas"]) == ("consumer-offset", [5001])
    header, line = on_cluster("partition", "list", "-s").lines
    assert header.split()[-3:] == [b"FOLLOWER", b"LOG", b"ENDS"]
    assert line.split()[-2:] == [b"0", b"-"]


def test_a_dry_run_creates_nothing(on_cluster: Run) -> None:
    assert on_cluster("topic", "create", "dry", "-d").out == b'topic "dry" can be created\n'
    assert on_cluster("topic", "describe", "dry").code == 1


def test_an_existing_topic_and_an_invalid_name_are_errors(on_cluster: Run) -> None:
    on_cluster("topic", "create", "twice")
    again = on_cluster("topic", "create", "twice")
    assert again.code == 1
    assert "error: topic 'twice' already exists" in again.err
    wrong = on_cluster("topic", "create", "No_Good")
    assert wrong.code == 2
    assert wrong.err.startswith(
        "error: 'No_Good' is not a valid name for a topic: it has 'N' at position 1\n"
    )


def test_delete_continues_after_an_error_only_with_the_option(on_cluster: Run) -> None:
    for name in ("gone-a", "gone-b"):
        on_cluster("topic", "create", name)
    stopped = on_cluster("topic", "delete", "missing", "gone-a")
    assert (stopped.code, stopped.out) == (1, b"")
    continued = on_cluster("topic", "delete", "-c", "missing", "gone-a", "gone-b")
    assert continued.code == 1
    assert continued.out == b'topic "gone-a" deleted\ntopic "gone-b" deleted\n'
    assert "error: 1 of 3 topics were not deleted" in continued.err


def test_a_system_topic_is_deleted_only_after_confirmation(on_cluster: Run) -> None:
    assert on_cluster("topic", "delete", "consumer-offset").code == 1
    declined = on_cluster("topic", "delete", "-s", "consumer-offset", given=b"n\n")
    assert declined.code == 130
    assert b"deleted" not in declined.out


# --- Every option --------------------------------------------------------------------------


def test_replicas_can_be_assigned_to_spus_and_racks_can_be_ignored(
    on_cluster: Run, tmp_path: Path
) -> None:
    (tmp_path / "spus.json").write_text('[{"id": 0, "replicas": [5001]}]')
    assert on_cluster("topic", "create", "assigned", "-f", "spus.json").code == 0
    assert on_cluster("topic", "create", "ignoring", "-i").code == 0
    rows = json.loads(on_cluster("topic", "list", "-O", "json").out)
    found = {row["name"]: (row["type"], row["ignore_rack"]) for row in rows}
    assert found["assigned"] == ("assigned", False)
    assert found["ignoring"] == ("computed", True)


def test_deduplication_and_mirrors_are_refused_on_the_embedded_broker(
    on_cluster: Run, tmp_path: Path
) -> None:
    dedup = on_cluster(
        "topic", "create", "unique", "--dedup", "--dedup-age", "1m", "--dedup-filter", "g/m@0.1.0"
    )
    assert dedup.code == 1
    assert "Deduplication SmartModule is not loaded" in dedup.err
    assert "g/m@0.1.0" in dedup.err
    (tmp_path / "remotes.json").write_text('["edge-1"]')
    for options in (("--mirror",), ("-m", "remotes.json", "--home-to-remote")):
        mirror = on_cluster("topic", "create", "mirrored", *options)
        assert (mirror.code, "mirror topics need a cluster" in mirror.err) == (1, True)
    added = on_cluster("topic", "add-mirror", "assigned-nowhere", "edge-1")
    assert added.code == 1


def test_a_system_topic_is_listed_only_with_the_option(on_cluster: Run) -> None:
    assert on_cluster("topic", "create", "of-the-system", "-s").code == 0
    assert b"of-the-system" not in on_cluster("topic", "list").out
    assert b"of-the-system" in on_cluster("topic", "list", "-s").out
    deleted = on_cluster("topic", "delete", "-s", "-f", "of-the-system")
    assert (deleted.code, deleted.out) == (0, b'topic "of-the-system" deleted\n')


def test_a_topic_can_be_created_from_a_file(on_cluster: Run, tmp_path: Path) -> None:
    (tmp_path / "topic.yaml").write_text(
        "meta: {name: from-yaml}\npartition: {count: 2}\nretention: {time: 1h}\n"
    )
    (tmp_path / "topic.toml").write_text('[meta]\nname = "from-toml"\n')
    checked = on_cluster("topic", "create", "-c", "topic.yaml", "--dry-run")
    assert checked.out == b'topic "from-yaml" can be created\n'
    for name in ("from-yaml", "from-toml"):
        created = on_cluster("topic", "create", "--config", f"topic.{name.partition('-')[2]}")
        assert (created.code, created.out) == (0, f'topic "{name}" created\n'.encode())
    described = json.loads(on_cluster("topic", "describe", "from-yaml", "-O", "json").out)
    assert (described["partitions"], described["retention_s"]) == (2, 3_600)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "missing argument 'NAME'"),
        (("x", "-c", "t.yaml"), "--config cannot be used together with NAME"),
        (("-c", "t.yaml", "-p", "2", "-i"), "together with --partitions and --ignore-rack"),
        (("x", "-f", "f.json", "-p", "2"), "--replica-assignment cannot be used together with"),
        (("x", "--mirror", "-m", "f.json"), "--mirror cannot be used together with --mirror-app"),
        (("x", "--home-to-remote"), "--home-to-remote needs --mirror"),
        (("x", "--dedup-count", "3"), "--dedup-count has no effect without --dedup"),
        (("-c", "none.yaml"), "cannot read none.yaml: No such file"),
        (("x", "-f", "none.json"), "cannot read none.json: No such file"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, tuple) else "",
)
def test_options_that_would_have_no_effect_are_refused(
    on_cluster: Run, arguments: tuple[str, ...], words: str
) -> None:
    ended = on_cluster("topic", "create", *arguments)
    assert (ended.code, ended.out) == (2, b"")
    assert words in ended.err
