"""Topics described in files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import pytest

from streamkit import Client
from streamkit.client import Deduplication
from streamkit.client.admin.topic_file import load_assignment, load_mirrors, load_topic
from streamkit.client.admin.topic_options import topic_spec
from streamkit.errors import ConfigError, UsageError

FULL: Final = """
version: 0.1.0
meta:
  name: unique
partition:
  count: 3
  max-size: 1.0 GB
  replication: 2
  ignore-rack-assignment: true
retention:
  time: 2m
  segment-size: 2.0 MB
compression:
  type: Lz4
deduplication:
  bounds:
    count: 100
    age: 1m
  filter:
    transform:
      uses: g/m@0.1.0
      with: {key: value}
"""


def written(folder: Path, text: str, name: str = "topic.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_every_option_of_a_file_is_used(tmp_path: Path) -> None:
    assert load_topic(written(tmp_path, FULL)) == (
        "unique",
        topic_spec(
            3,
            replication=2,
            ignore_rack=True,
            retention=120,
            segment_size_bytes=2_000_000,
            max_partition_size_bytes=1_000_000_000,
            compression="lz4",
            deduplication=Deduplication(100, 60, "g/m@0.1.0", {"key": "value"}),
        ),
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.yaml", "meta: {name: t}"),
        ("t.yml", "meta:\n  name: t\n"),
        ("t.toml", '[meta]\nname = "t"\n'),
        ("t.json", '{"meta": {"name": "t"}}'),
    ],
)
def test_the_extension_of_a_file_sets_its_format(tmp_path: Path, name: str, text: str) -> None:
    assert load_topic(written(tmp_path, text, name)) == ("t", topic_spec())


def test_partitions_may_be_assigned(tmp_path: Path) -> None:
    text = """
meta: {name: t}
partition:
  maps:
    - {id: 1, replicas: [2, 1]}
    - {id: 0, replicas: [1, 2]}
"""
    assert load_topic(written(tmp_path, text))[1] == topic_spec(assignment=[[1, 2], [2, 1]])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "Expected `object`"),
        ("meta: {}", "missing required field `name`"),
        ("meta: {name: t}\npartitions: 3", "unknown field `partitions`"),
        ("meta: {name: t}\npartition: {count: many}", r"`\$.partition.count`"),
        ("meta: {name: t}\nretention: {time: soon}", "'soon' is not a valid duration"),
        ("meta: {name: t}\nretention: {segment-size: big}", "'big' is not a valid size"),
        ("meta: {name: t}\ncompression: {type: rar}", "'rar' is not a valid compression"),
        (
            "meta: {name: t}\npartition: {maps: [{id: 1, replicas: [1]}]}",
            r"partition ids \[1\] are not consecutive",
        ),
        ("meta: [", "cannot read"),
    ],
)
def test_an_error_in_a_file_is_reported(tmp_path: Path, text: str, words: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UsageError, match=words) as caught:
        load_topic(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.yaml: No such file"):
        load_topic(tmp_path / "none.yaml")


def test_without_pyyaml_other_formats_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(ConfigError, match="pyyaml") as caught:
        load_topic(written(tmp_path, "meta: {name: t}"))
    assert ".toml or .json" in caught.value.hint
    assert load_topic(written(tmp_path, '[meta]\nname = "t"\n', "t.toml"))[0] == "t"


async def test_a_topic_is_created_from_a_file(client: Client, tmp_path: Path) -> None:
    path = written(tmp_path, "meta: {name: from-a-file}\npartition: {count: 2}")
    assert await client.admin.create_topic_from(path, dry_run=True) == "from-a-file"
    assert await client.admin.create_topic_from(path) == "from-a-file"
    assert await client.admin.create_topic_from(path, exist_ok=True) == "from-a-file"
    assert (await client.admin.describe_topic("from-a-file")).partitions == 2
    await client.admin.delete_topic("from-a-file")
    with pytest.raises(UsageError, match="'Bad' is not a valid name for a topic"):
        await client.admin.create_topic_from(written(tmp_path, "meta: {name: Bad}"))


def test_an_assignment_is_a_list_or_a_map_with_a_list(tmp_path: Path) -> None:
    maps = '[{"id": 0, "replicas": [1, 2]}, {"id": 1, "replicas": [2, 1]}]'
    for text in (maps, f'{{"maps": {maps}}}'):
        path = written(tmp_path, text, "assignment.json")
        assert load_assignment(path) == [[1, 2], [2, 1]]
    with pytest.raises(UsageError, match="partitions"):
        load_assignment(written(tmp_path, '[{"id": 3, "replicas": [1]}]', "gap.json"))
    with pytest.raises(UsageError, match="Expected"):
        load_assignment(written(tmp_path, '["a"]', "wrong.json"))


def test_mirrors_are_a_list_of_names(tmp_path: Path) -> None:
    assert load_mirrors(written(tmp_path, '["edge-1", "edge-2"]', "m.json")) == ["edge-1", "edge-2"]
    with pytest.raises(UsageError, match="Expected"):
        load_mirrors(written(tmp_path, "[1]", "m.json"))
