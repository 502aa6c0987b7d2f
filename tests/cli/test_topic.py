from __future__ import annotations

import json
import tomllib

from tests.cli.conftest import Run


def test_a_topic_lives_from_create_to_delete(on_cluster: Run) -> None:
    created = on_cluster(
        *("topic", "create", "wide", "-p", "2", "--retention-time", "1h"),
        *("--segment-size", "1MiB", "--max-partition-size", "10MiB", "--compression-type", "LZ4"),
    )
    assert (created.code, created.out) == (0, b'topic "wide" created\n')
    described = json.loads(on_cluster("topic", "describe", "wide", "-O", "json").out)
    assert described == {
        "name": "wide",
        "partitions": 2,
        "replicas": 1,
        "retention_s": 3_600,
        "segment_size_bytes": 1 << 20,
        "max_partition_size_bytes": 10 << 20,
        "compression": "lz4",
        "system": False,
        "status": "provisioned",
        "reason": "",
    }
    added = on_cluster("topic", "add-partition", "wide", "-c", "2")
    assert [line.split()[1] for line in added.lines] == [b"2", b"3"]
    partitions = json.loads(on_cluster("partition", "list", "-t", "wide", "-O", "json").out)
    assert [each["partition"] for each in partitions] == [0, 1, 2, 3]
    deleted = on_cluster("topic", "delete", "wide")
    assert (deleted.code, deleted.out) == (0, b'topic "wide" deleted\n')
    assert on_cluster("topic", "describe", "wide").code == 1


def test_lists_are_tables_or_data(on_cluster: Run) -> None:
    on_cluster("topic", "create", "listed")
    table = on_cluster("topic", "list").out.decode().splitlines()
    assert table[0].split()[:2] == ["NAME", "PARTITIONS"]
    assert any(line.split()[:2] == ["listed", "1"] for line in table)
    rows = json.loads(on_cluster("topic", "list", "-O", "JSON").out)
    assert "listed" in [row["name"] for row in rows]
    as_toml = tomllib.loads(on_cluster("topic", "list", "-O", "toml").out.decode())
    assert [row["name"] for row in as_toml["topics"]] == [row["name"] for row in rows]
    assert b'- name: "listed"\n' in on_cluster("topic", "list", "-O", "yaml").out
    system = json.loads(on_cluster("topic", "list", "-s", "-O", "json").out)
    assert [row["name"] for row in system] == ["consumer-offset"]


def test_a_dry_run_makes_nothing(on_cluster: Run) -> None:
    assert on_cluster("topic", "create", "dry", "-d").out == b'topic "dry" could be created\n'
    assert on_cluster("topic", "describe", "dry").code == 1


def test_what_the_broker_refuses_is_a_failure_with_its_words(on_cluster: Run) -> None:
    on_cluster("topic", "create", "twice")
    again = on_cluster("topic", "create", "twice")
    assert again.code == 1
    assert "error: topic 'twice' already exists" in again.err
    wrong = on_cluster("topic", "create", "No_Good")
    assert wrong.code == 1
    assert wrong.err.startswith("error: ")


def test_delete_goes_on_behind_an_error_only_where_asked(on_cluster: Run) -> None:
    for name in ("gone-a", "gone-b"):
        on_cluster("topic", "create", name)
    stopped = on_cluster("topic", "delete", "missing", "gone-a")
    assert (stopped.code, stopped.out) == (1, b"")
    went_on = on_cluster("topic", "delete", "-c", "missing", "gone-a", "gone-b")
    assert went_on.code == 1
    assert went_on.out == b'topic "gone-a" deleted\ntopic "gone-b" deleted\n'
    assert "error: 1 of 3 topics were not deleted" in went_on.err


def test_a_system_topic_is_deleted_only_on_purpose(on_cluster: Run) -> None:
    assert on_cluster("topic", "delete", "consumer-offset").code == 1
    asked = on_cluster("topic", "delete", "-s", "consumer-offset", given=b"n\n")
    assert asked.code == 130
    assert b"deleted" not in asked.out
