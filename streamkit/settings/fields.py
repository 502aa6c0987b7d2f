"""The fields of a settings class: their names, their variables, and what they can contain."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Annotated, Final, get_args, get_origin

import msgspec
from msgspec import inspect as shape
from msgspec.structs import FieldInfo

from streamkit.errors import UsageError
from streamkit.settings.secret import Secret

VARIABLE_PREFIX: Final = "STREAMKIT_SETTINGS_"
FILE_SUFFIX: Final = "_FILE"


@dataclass(frozen=True, slots=True)
class SettingField:
    """One field. ``group`` has the fields of a nested Struct; other fields are set as a whole."""

    path: tuple[str, ...]
    info: FieldInfo
    group: SettingGroup | None
    shape: shape.Type
    is_secret: bool

    @property
    def name(self) -> str:
        """The name in files and options, such as ``database.host``."""
        return ".".join(self.path)

    @property
    def variable(self) -> str:
        """The environment variable, such as ``STREAMKIT_SETTINGS_DATABASE__HOST``."""
        parts = [re.sub(r"[^A-Z0-9]", "_", part.upper()) for part in self.path]
        return VARIABLE_PREFIX + "__".join(parts)

    @property
    def is_optional(self) -> bool:
        """Whether None is a value of it."""
        return isinstance(self.shape, shape.UnionType) and self.shape.includes_none

    @property
    def type_name(self) -> str:
        """The type as a user writes it, without constraints."""
        kind = self.info.type
        if get_origin(kind) is Annotated:
            kind = get_args(kind)[0]
        is_plain = isinstance(kind, type) and get_origin(kind) is None
        return kind.__name__ if is_plain else re.sub(r"\b\w+\.(?=[A-Za-z_])", "", str(kind))


@dataclass(frozen=True, slots=True)
class SettingGroup:
    """A Struct class and its fields."""

    kind: type[msgspec.Struct]
    fields: tuple[SettingField, ...]

    def walk(self) -> Iterator[SettingField]:
        """Yield all fields; a nested Struct comes before its own fields."""
        for field in self.fields:
            yield field
            if field.group is not None:
                yield from field.group.walk()


def group_of(kind: object) -> SettingGroup:
    """Return the fields of a settings class.

    Raises:
        UsageError: It is not a Struct class, or one of its fields cannot be set.
    """
    if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        is_instance = isinstance(kind, msgspec.Struct)
        raise UsageError(
            f"app.settings({kind!r:.80}): {'an object' if is_instance else 'this'} is not "
            "a msgspec.Struct class",
            hint=f"give the class: app.settings({type(kind).__name__})"
            if is_instance
            else "declare the settings as class MySettings(msgspec.Struct)",
        )
    group = _group(kind, (), ())
    _refuse_clashes(group)
    return group


def _group(
    kind: type[msgspec.Struct], path: tuple[str, ...], outer: tuple[type, ...]
) -> SettingGroup:
    try:
        infos = msgspec.structs.fields(kind)
        fields = tuple(
            _field(kind, info, (*path, info.encode_name), (*outer, kind)) for info in infos
        )
    except (NameError, TypeError, AttributeError) as error:
        raise UsageError(
            f"the settings class {kind.__name__} has an annotation that cannot be used: {error}",
            hint="declare the class and the types of its fields at module level",
        ) from error
    return SettingGroup(kind, fields)


def _field(
    kind: type, info: FieldInfo, path: tuple[str, ...], outer: tuple[type, ...]
) -> SettingField:
    found = shape.type_info(info.type)
    custom = [each.cls for each in _parts(found) if isinstance(each, shape.CustomType)]
    unknown = [each for each in custom if not _is_known(each)]
    if unknown:
        raise UsageError(
            f"{kind.__name__}.{info.name} has the type {unknown[0].__name__}, "
            "which cannot be set from text",
            hint="use a type that msgspec converts, a Path, or streamkit.Secret",
        )
    if Secret in custom and isinstance(info.default, str):
        raise UsageError(
            f"the default of {kind.__name__}.{info.name} is a text, which would be shown",
            hint=f'write {info.name}: ... = Secret("..."), or leave the default out',
        )
    nested = _nested_struct(info.type)
    group = None if nested is None or nested in outer else _group(nested, path, outer)
    return SettingField(path, info, group, found, Secret in custom)


def _is_known(kind: type) -> bool:
    return kind is Secret or (inspect.isclass(kind) and issubclass(kind, PurePath))


def _nested_struct(kind: object) -> type[msgspec.Struct] | None:
    """Return the Struct whose fields can be set one by one, also for ``Struct | None``."""
    if get_origin(kind) in (typing.Union, types.UnionType):
        members = [each for each in get_args(kind) if each is not type(None)]
        kind = members[0] if len(members) == 1 else None
    if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return None
    config = kind.__struct_config__
    return None if config.tag is not None or config.array_like else kind


def _parts(kind: shape.Type) -> Iterator[shape.Type]:
    """Yield a type and all types it consists of, each once."""
    seen: set[int] = set()
    waiting: list[object] = [kind]
    while waiting:
        each = waiting.pop()
        if isinstance(each, shape.Field):
            waiting.append(each.type)
        elif isinstance(each, tuple):
            waiting.extend(each)
        elif isinstance(each, shape.Type) and id(each) not in seen:
            seen.add(id(each))
            yield each
            waiting.extend(getattr(each, name) for name in each.__struct_fields__)


def _refuse_clashes(group: SettingGroup) -> None:
    """Refuse two fields that one variable would set.

    Raises:
        UsageError: There are such fields.
    """
    owners: dict[str, SettingField] = {}
    for field in group.walk():
        other = owners.setdefault(field.variable, field)
        if other is not field:
            raise UsageError(
                f"{group.kind.__name__}: {field.variable} would set both {other.name!r} and "
                f"{field.name!r}",
                hint="rename one of them",
            )
    for field in owners.values():
        other_file = owners.get(field.variable + FILE_SUFFIX)
        if other_file is not None:
            raise UsageError(
                f"{group.kind.__name__}: {other_file.variable} would set {other_file.name!r}, and "
                f"would also be the file with the value of {field.name!r}",
                hint=f"remove or rename {other_file.name!r}: any setting can be read from a file",
            )
