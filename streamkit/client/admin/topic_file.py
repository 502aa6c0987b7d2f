"""Reads topics described in files, in the format of Fluvio's own ``topic create``.

Source: docs/protocol/admin.md, "Topic files".
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from streamkit.client.admin.topic_options import (
    DEDUP_FILTER,
    Deduplication,
    topic_spec,
)
from streamkit.errors import ConfigError, UsageError
from streamkit.protocol.topic_specs import TopicSpec
from streamkit.units import parse_duration_s, parse_size_bytes

T = TypeVar("T")


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    pass


class _Map(_Strict, frozen=True):
    id: int
    replicas: list[int]


class _Meta(_Strict, frozen=True):
    name: str


class _Partition(_Strict, frozen=True):
    count: int = 1
    max_size: str | int | None = None
    replication: int = 1
    ignore_rack_assignment: bool = False
    maps: list[_Map] | None = None


class _Retention(_Strict, frozen=True):
    time: str | int | None = None
    segment_size: str | int | None = None


class _Compression(_Strict, frozen=True):
    type: str = "any"


class _Bounds(_Strict, frozen=True):
    count: int
    age: str | int | None = None


class _Transform(_Strict, frozen=True):
    uses: str = DEDUP_FILTER
    with_: dict[str, str] = msgspec.field(name="with", default_factory=dict)


class _Filter(_Strict, frozen=True):
    transform: _Transform = _Transform()


class _Deduplication(_Strict, frozen=True):
    bounds: _Bounds
    filter: _Filter = _Filter()


class _TopicFile(_Strict, frozen=True):
    meta: _Meta
    version: str | float | None = None
    partition: _Partition = _Partition()
    retention: _Retention = _Retention()
    compression: _Compression = _Compression()
    deduplication: _Deduplication | None = None


class _Maps(msgspec.Struct, frozen=True):
    maps: list[_Map]


def load_topic(path: str | Path) -> tuple[str, TopicSpec]:
    """Read the name and the spec of a topic from a file with YAML, TOML or JSON.

    The file's extension determines the format; YAML needs the package pyyaml.

    Raises:
        UsageError: The file cannot be read, or does not describe a topic.
        ConfigError: The YAML reader is not installed.
    """
    found = _converted(path, _read(Path(path)), _TopicFile)
    try:
        return found.meta.name, _spec(found)
    except (UsageError, ValueError) as error:
        raise UsageError(f"{path}: {error}", hint=getattr(error, "hint", "")) from error


def load_assignment(path: str | Path) -> list[list[int]]:
    """Read the SPUs of each partition: ``[{"id": 0, "replicas": [5001, 5002]}, ...]``.

    Raises:
        UsageError: The file cannot be read, or the numbers of the partitions have gaps.
    """
    found = _read(Path(path))
    if isinstance(found, Mapping):
        maps = _converted(path, found, _Maps).maps
    else:
        maps = _converted(path, found, list[_Map])
    try:
        return _spus(maps)
    except UsageError as error:
        raise UsageError(f"{path}: {error}", hint=error.hint) from error


def load_mirrors(path: str | Path) -> list[str]:
    """Read the names of remote clusters: ``["edge-1", "edge-2"]``.

    Raises:
        UsageError: The file cannot be read, or is not a list of names.
    """
    return _converted(path, _read(Path(path)), list[str])


def _spec(found: _TopicFile) -> TopicSpec:
    partition, retention, dedup = found.partition, found.retention, found.deduplication
    return topic_spec(
        partition.count,
        replication=partition.replication,
        ignore_rack=partition.ignore_rack_assignment,
        assignment=None if partition.maps is None else _spus(partition.maps),
        retention=_number(retention.time, parse_duration_s),
        segment_size_bytes=_number(retention.segment_size, parse_size_bytes),
        max_partition_size_bytes=_number(partition.max_size, parse_size_bytes),
        compression=found.compression.type,
        deduplication=None if dedup is None else _deduplication(dedup),
    )


def _deduplication(found: _Deduplication) -> Deduplication:
    transform = found.filter.transform
    return Deduplication(
        found.bounds.count,
        _number(found.bounds.age, parse_duration_s),
        transform.uses,
        transform.with_,
    )


def _spus(maps: list[_Map]) -> list[list[int]]:
    ordered = sorted(maps, key=lambda each: each.id)
    if [each.id for each in ordered] != list(range(len(maps))):
        raise UsageError(
            f"the partition ids {[each.id for each in ordered]} are not consecutive",
            hint="number partitions from 0, without gaps",
        )
    return [each.replicas for each in ordered]


def _number(value: str | int | None, parse: Callable[[str], T]) -> T | int | None:
    return parse(value) if isinstance(value, str) else value


def _read(path: Path) -> Any:
    try:
        return READERS.get(path.suffix.lower(), _yaml)(path.read_text())
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except RecursionError as error:
        raise UsageError(f"cannot read {path}: it is nested too deeply") from error
    except ValueError as error:  # raised by each of the readers, and by decoding text
        raise UsageError(f"cannot read {path}: {error}") from error


def _converted(path: str | Path, found: Any, kind: type[T]) -> T:
    try:
        return msgspec.convert(found, kind)
    except msgspec.ValidationError as error:
        raise UsageError(f"{path}: {error}") from error


def _yaml(text: str) -> Any:
    try:
        import yaml  # imported here because it is optional, and most programs do not need it
    except ImportError as error:
        raise ConfigError(
            "reading YAML needs the package pyyaml",
            hint="pip install 'fluvio-streamkit[cli]', or write the file as .toml or .json",
        ) from error
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


READERS: Final[Mapping[str, Callable[[str], Any]]] = {".json": json.loads, ".toml": tomllib.loads}
