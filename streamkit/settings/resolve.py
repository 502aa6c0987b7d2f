"""The values of an app's own settings, from everything that is set."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Final

import msgspec

from streamkit.errors import ConfigError, UsageError, shown
from streamkit.observe.facts import SettingReport
from streamkit.settings.fields import FILE_SUFFIX, VARIABLE_PREFIX, SettingField, SettingGroup
from streamkit.settings.load import OwnSources, OwnTable
from streamkit.settings.secret_file import read_secret_file
from streamkit.settings.text import NotValid, converted, decoded, form_of, shown_setting

_DEFAULT: Final = "default"
_SET_WHOLE: Final = "settings."


@dataclass(frozen=True, slots=True)
class Resolved:
    """The values, a report for each, and notes for the user."""

    values: msgspec.Struct
    reports: tuple[SettingReport, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Given:
    """A value, and where it was set: ``place`` is for errors, ``origin`` for reports.

    ``is_text`` is true if lists and objects are written as JSON in it.
    """

    value: object
    place: str
    origin: str
    error: type[ConfigError]
    is_text: bool


def resolve(app: str, group: SettingGroup, sources: OwnSources) -> Resolved:
    """Find the values of an app's own settings.

    Raises:
        ConfigError: A name is not known, a value is not valid, or a required setting is missing.
        UsageError: The same, set by a variable or an option.
    """
    found = _Found(group)
    for table in sources.tables:
        found.read_table(table)
    found.read_variables(sources.variables)
    found.read_assignments(sources.assignments)
    building = _Building(found.given, found.objects)
    values = building.build(group)
    if building.missing:
        raise _missing(app, building.missing)
    assert values is not None, "nothing is missing"
    return Resolved(values, tuple(building.reports(group, values)), tuple(found.notes))


class _Found:
    """What is set, by the path of its field. What is read later has priority."""

    def __init__(self, group: SettingGroup) -> None:
        self._fields = {field.path: field for field in group.walk()}
        self.given: dict[tuple[str, ...], _Given] = {}
        self.objects: set[tuple[str, ...]] = set()  # nested Structs that are set, maybe to {}
        self.notes: list[str] = []

    def read_table(self, table: OwnTable) -> None:
        """Read a table of a settings file, which other apps may use too."""
        for name, value in table.values.items():
            field = self._fields.get((name,))
            place = f"{table.path}: {table.name}.{name}"
            if field is not None:
                self._put(field, _Given(value, place, table.path, ConfigError, is_text=False))
                continue
            text = f"{place}: this app has no such setting"
            hint, is_similar = self._hint((name,))
            if is_similar:
                raise ConfigError(text, hint=hint)
            self.notes.append(f"{text}; {hint}")

    def read_variables(self, variables: Mapping[str, str]) -> None:
        """Read environment variables, and the files that they name."""
        fields = {field.variable: field for field in self._fields.values()}
        chosen: list[tuple[SettingField, str, str]] = []
        for variable, value in variables.items():
            if variable in fields:
                chosen.append((fields[variable], value, variable))
                continue
            plain = variable.removesuffix(FILE_SUFFIX)
            if plain == variable or plain not in fields:
                raise UsageError(
                    f"{variable}: this app has no such setting", hint=self._variable_hint(variable)
                )
            if plain in variables:
                raise UsageError(
                    f"{plain} and {variable} are both set", hint="keep one of them, unset the other"
                )
            chosen.append((fields[plain], read_secret_file(variable, value), variable))
        self._read_texts(chosen)

    def read_assignments(self, assignments: Mapping[str, str]) -> None:
        """Read options ``--set NAME=VALUE``."""
        chosen: dict[tuple[str, ...], tuple[SettingField, str, str]] = {}
        for key, value in assignments.items():
            path = tuple(key.removeprefix(_SET_WHOLE).split("."))
            field = self._fields.get(path)
            if field is None:
                hint, _ = self._hint(path)
                raise UsageError(f"--set {key}: this app has no such setting", hint=hint)
            if path in chosen:
                raise UsageError(f"--set gives {field.name!r} twice", hint="keep one of them")
            chosen[path] = (field, value, f"--set {key}")
        self._read_texts(chosen.values())

    def _read_texts(self, chosen: Iterable[tuple[SettingField, str, str]]) -> None:
        # A nested Struct comes before its fields, which are more specific.
        for field, text, place in sorted(chosen, key=lambda each: len(each[0].path)):
            self._put(field, _Given(text, place, place, UsageError, is_text=True))

    def _put(self, field: SettingField, given: _Given) -> None:
        if field.group is None:
            self._forget_above(field.path)
            self.given[field.path] = given
            return
        value = _in_group(field, given)
        if value is None:
            for path in [each for each in self.given if _is_in(each, field)]:
                del self.given[path]
            self.objects -= {each for each in self.objects if _is_in(each, field)}
            self.given[field.path] = given
            return
        self._forget_above((*field.path, ""))
        self.objects.add(field.path)
        for name, each in value.items():
            inner = self._fields.get((*field.path, str(name)))
            if inner is None:
                hint, _ = self._hint((*field.path, str(name)))
                raise given.error(f"{given.place}: {field.name!r} has no {name!r}", hint=hint)
            self._put(inner, replace(given, value=each, is_text=False))

    def _forget_above(self, path: tuple[str, ...]) -> None:
        """Forget that a Struct was set to null: one of its fields is set with higher priority."""
        for length in range(1, len(path)):
            self.given.pop(path[:length], None)

    def _hint(self, path: tuple[str, ...]) -> tuple[str, bool]:
        """Return what to write for an unknown name, and whether a similar name exists."""
        for length in range(1, len(path)):
            whole = self._fields.get(path[:length])
            if whole is not None and whole.group is None:
                return f"{whole.name!r} is set as a whole; {form_of(whole)}".rstrip("; "), True
        name = ".".join(path)
        names = [field.name for field in self._fields.values()]
        close = get_close_matches(name, names, 1)
        if close:
            return f"did you mean {close[0]!r}?", True
        return f"its settings are: {', '.join(names) or 'none'}", False

    def _variable_hint(self, variable: str) -> str:
        fields = {field.variable: field for field in self._fields.values()}
        for name, field in fields.items():
            if field.group is None and variable.startswith(f"{name}__"):
                return f"{name} sets {field.name!r} as a whole; {form_of(field)}".rstrip("; ")
        ends = [name.removeprefix(VARIABLE_PREFIX) for name in fields]
        close = get_close_matches(variable.removeprefix(VARIABLE_PREFIX).upper(), ends, 1)
        if close:
            return f"did you mean {VARIABLE_PREFIX}{close[0]}?"
        return f"the variables of its settings are: {', '.join(fields) or 'none'}"


def _is_in(path: tuple[str, ...], field: SettingField) -> bool:
    return path[: len(field.path)] == field.path


def _in_group(field: SettingField, given: _Given) -> Mapping[str, object] | None:
    """Return the values of the fields of a nested Struct; None if it is set to null.

    Raises:
        ConfigError: It is set to something else.
    """
    value = given.value
    if given.is_text and isinstance(value, str):
        try:
            value = decoded(field, value)
        except NotValid as error:
            raise given.error(f"{given.place}: {error}", hint=error.hint) from None
    if isinstance(value, dict):
        return value
    if value is None and field.is_optional:
        return None
    what = "the value" if field.is_secret else shown(value)
    raise given.error(
        f"{given.place}: {what} is not valid for {field.name!r}: it has several fields",
        hint=form_of(field),
    )


class _Building:
    """Builds the Struct from what is set and from defaults; collects what is missing."""

    def __init__(
        self, given: Mapping[tuple[str, ...], _Given], objects: Collection[tuple[str, ...]]
    ) -> None:
        self._given = given
        self._objects = objects
        self.missing: list[SettingField] = []

    def build(
        self, group: SettingGroup, default: msgspec.Struct | None = None
    ) -> msgspec.Struct | None:
        """Build a Struct; None if a value is missing.

        Args:
            group: Its fields.
            default: Where the values come from that are not set.
        """
        missing_before = len(self.missing)
        values: dict[str, object] = {}
        for field in group.fields:
            if field.path in self._given:
                values[field.info.name] = self._converted(field, self._given[field.path])
            elif field.group is not None and (self._is_set(field) or field.info.required):
                start = _default_of(field) if default is None else getattr(default, field.info.name)
                values[field.info.name] = self.build(field.group, start)
            elif default is not None:
                values[field.info.name] = getattr(default, field.info.name)
            elif field.info.required:
                self.missing.append(field)
        if len(self.missing) > missing_before:
            return None
        try:
            return group.kind(**values)
        except (ValueError, TypeError) as error:  # of the user's __post_init__
            raise ConfigError(f"the settings are not valid: {error}") from error

    def reports(self, group: SettingGroup, values: msgspec.Struct) -> list[SettingReport]:
        """Return a report for each value."""
        found: list[SettingReport] = []
        for field in group.fields:
            value = getattr(values, field.info.name)
            if field.group is not None and isinstance(value, msgspec.Struct):
                found.extend(self.reports(field.group, value))
                continue
            given = self._given.get(field.path)
            place = _DEFAULT if given is None else given.origin
            found.append(SettingReport(field.name, shown_setting(value), place))
        return found

    def _is_set(self, field: SettingField) -> bool:
        return any(_is_in(path, field) for path in (*self._given, *self._objects))

    def _converted(self, field: SettingField, given: _Given) -> object:
        if field.group is not None:
            return None  # set to null
        try:
            return converted(field, given.value, is_text=given.is_text)
        except NotValid as error:
            problem, hint = str(error), error.hint
        raise given.error(f"{given.place}: {problem}", hint=hint)


def _default_of(field: SettingField) -> msgspec.Struct | None:
    info = field.info
    found = info.default if info.default_factory is msgspec.NODEFAULT else info.default_factory()
    return found if isinstance(found, msgspec.Struct) else None


def _missing(app: str, fields: Iterable[SettingField]) -> ConfigError:
    ways = []
    for field in fields:
        if field.is_secret:
            ways.append(
                f"{field.name}: {field.variable}{FILE_SUFFIX} with the path of a file that has the "
                f"value, or {field.variable}"
            )
        else:
            ways.append(
                f"{field.name}: --set {option_name(field)}=VALUE, {field.variable}, or "
                f"{field.name} in the table [settings] of streamkit.toml"
            )
    names = ", ".join(f"{field.name} ({field.type_name})" for field in fields)
    return ConfigError(
        f"{app!r} needs settings that are not set: {names}", hint="set\n    " + "\n    ".join(ways)
    )


def option_name(field: SettingField) -> str:
    """Return the name of a setting for ``--set``; two first names belong to streamkit."""
    is_taken = field.path[0] in ("cluster", "topics", "settings")
    return f"{_SET_WHOLE}{field.name}" if is_taken else field.name
