"""Settings of an app: where their values come from, and which ones are refused."""

from __future__ import annotations

import os
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamkit import App, Secret
from streamkit.errors import ConfigError, StageError, StreamKitError, UsageError
from streamkit.settings import load_settings
from streamkit.settings.fields import group_of
from streamkit.settings.load import OwnSources, OwnTable
from streamkit.settings.resolve import Resolved, resolve

ENV = "STREAMKIT_SETTINGS_"


class Database(msgspec.Struct, frozen=True):
    host: str
    port: int = 5432
    tags: list[str] = []


class Example(msgspec.Struct):
    minutes: Annotated[int, msgspec.Meta(ge=1)] = 15
    name: str = "late"
    ratio: float = 0.5
    is_dry: bool = False
    every: timedelta = timedelta(minutes=1)
    folder: Path = Path("out")
    carriers: list[str] = []
    labels: dict[str, int] = {}
    level: Literal["low", "high"] = "low"
    token: Secret | None = None
    keys: list[Secret] = []
    limit: int | None = 7
    database: Database = Database(host="db", port=1)
    replica: Database | None = None


class Required(msgspec.Struct):
    url: str
    password: Secret
    database: Database


def resolved(
    kind: type[msgspec.Struct] = Example,
    *,
    folder: Path = Path("/nowhere"),
    variables: dict[str, str] | None = None,
    given: dict[str, str] | None = None,
) -> Resolved:
    group = group_of(kind)
    names = [field.name for field in group.walk()]
    settings = load_settings(folder, variables or {}, given or {}, names)
    return resolve("late", group, settings.own)


def one(name: str, text: str) -> object:
    """Return the field ``name`` of settings with one variable."""
    return field_of(resolved(variables={variable_of(name): text}).values, name)


def refused(kind: type[msgspec.Struct] = Example, **sources: object) -> str:
    with pytest.raises(ConfigError) as error:
        resolved(kind, **sources)  # type: ignore[arg-type]  # by name
    text = f"{error.value}; {error.value.hint}"
    for secret in ("hunter2", "55512345678"):
        assert secret not in "".join(traceback.format_exception(error.value))
    return text


# --- priority ----------------------------------------------------------------------------


def test_the_value_with_the_highest_priority_is_used(tmp_path: Path) -> None:
    def found(
        variables: dict[str, str] | None = None, given: dict[str, str] | None = None
    ) -> tuple[str, str]:
        result = resolved(folder=tmp_path, variables=variables, given=given)
        report = next(each for each in result.reports if each.name == "name")
        return report.value, report.origin

    assert found() == ('"late"', "default")
    (tmp_path / "pyproject.toml").write_text("[tool.streamkit.settings]\nname = '1'\n")
    assert found() == ('"1"', str(tmp_path / "pyproject.toml"))
    (tmp_path / "streamkit.toml").write_text("[settings]\nname = '2'\n")
    assert found() == ('"2"', str(tmp_path / "streamkit.toml"))
    (tmp_path / "secret").write_text("3\n")
    by_file = {f"{ENV}NAME_FILE": str(tmp_path / "secret")}
    assert found(variables=by_file) == ('"3"', f"{ENV}NAME_FILE")
    assert found(variables={f"{ENV}NAME": "4"}) == ('"4"', f"{ENV}NAME")
    for by in (by_file, {f"{ENV}NAME": "4"}):
        assert found(variables=by, given={"name": "5"}) == ('"5"', "--set name")


LEAVES = ("minutes", "name", "carriers", "database.host", "database.port")


@given(st.lists(st.dictionaries(st.sampled_from(LEAVES), st.integers(1, 9)), max_size=4))
def test_each_field_has_the_value_of_the_last_source_that_sets_it(
    sources: list[dict[str, int]],
) -> None:
    """Two files, the variables and the options set any of the fields."""
    first, second, variables, options = (*sources, {}, {}, {}, {})[:4]
    own = OwnSources(
        (OwnTable("1.toml", "settings", nested(first)), OwnTable("2.toml", "s", nested(second))),
        {variable_of(name): text_of(name, number) for name, number in variables.items()},
        {name: text_of(name, number) for name, number in options.items()},
    )
    values = resolve("late", group_of(Example), own).values
    for name in LEAVES:
        numbers = [each[name] for each in (first, second, variables, options) if name in each]
        expected = value_of(name, numbers[-1]) if numbers else field_of(Example(), name)
        assert field_of(values, name) == expected


def nested(source: dict[str, int]) -> dict[str, object]:
    """Return a source as a table of a TOML file."""
    table: dict[str, object] = {}
    database: dict[str, object] = {}
    for name, number in source.items():
        first, _, second = name.partition(".")
        (database if second else table)[second or first] = value_of(name, number)
    return {**table, "database": database} if database else table


def value_of(name: str, number: int) -> object:
    if name == "carriers":
        return [str(number)]
    return str(number) if name in ("name", "database.host") else number


def text_of(name: str, number: int) -> str:
    value = value_of(name, number)
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def variable_of(name: str) -> str:
    return f"{ENV}{name.upper().replace('.', '__')}"


def field_of(values: object, name: str) -> object:
    for part in name.split("."):
        values = getattr(values, part)
    return values


def test_sources_with_different_fields_of_a_struct_are_combined(tmp_path: Path) -> None:
    (tmp_path / "streamkit.toml").write_text("[settings.database]\nhost = 'a'\ntags = ['x']\n")
    values = resolved(
        folder=tmp_path,
        variables={f"{ENV}DATABASE": '{"port": 2, "tags": ["y"]}', f"{ENV}DATABASE__PORT": "3"},
        given={"database.host": "b"},
    ).values
    assert isinstance(values, Example)
    assert values.database == Database("b", 3, ["y"])


def test_one_field_of_a_struct_keeps_the_other_values_of_its_default() -> None:
    assert one("database.tags", '["x"]') == ["x"]
    values = resolved(variables={f"{ENV}DATABASE__TAGS": '["x"]'}).values
    assert isinstance(values, Example)
    assert values.database == Database("db", 1, ["x"])


def test_an_optional_struct_can_be_set_by_its_fields_and_to_null(tmp_path: Path) -> None:
    (tmp_path / "streamkit.toml").write_text("[settings.replica]\nhost = 'a'\n")
    values = resolved(folder=tmp_path).values
    assert isinstance(values, Example)
    assert values.replica == Database("a")
    values = resolved(folder=tmp_path, given={"replica": "null"}).values
    assert isinstance(values, Example)
    assert values.replica is None
    both = {f"{ENV}REPLICA": "null"}
    values = resolved(folder=tmp_path, variables=both, given={"replica.host": "b"}).values
    assert isinstance(values, Example)
    assert values.replica == Database("b")
    assert "replica.host (str)" in refused(variables={f"{ENV}REPLICA__PORT": "1"})


class Retry(msgspec.Struct, frozen=True):
    attempts: int = 3


class Retrying(msgspec.Struct):
    retry: Retry | None = None


def test_an_optional_struct_can_be_set_to_its_defaults(tmp_path: Path) -> None:
    (tmp_path / "streamkit.toml").write_text("[settings.retry]\n")
    assert resolved(Retrying, folder=tmp_path).values == Retrying(Retry())
    null = {f"{ENV}RETRY": "null"}
    assert resolved(Retrying, folder=tmp_path, variables=null).values == Retrying()
    values = resolved(Retrying, variables=null, given={"retry": "{}"}).values
    assert values == Retrying(Retry())


# --- conversion --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("minutes", "20", 20),
        ("name", "00000000", "00000000"),
        ("name", "null", "null"),
        ("name", " x ", " x "),
        ("name", '["a"]', '["a"]'),
        ("limit", "0", 0),
        ("limit", "null", None),
        ("is_dry", "true", True),
        ("is_dry", "0", False),
        ("every", "300", timedelta(minutes=5)),
        ("every", "PT5M", timedelta(minutes=5)),
        ("folder", "/var/x", Path("/var/x")),
        ("carriers", '["AA", "UA"]', ["AA", "UA"]),
        ("labels", '{"a": 1}', {"a": 1}),
        ("level", "high", "high"),
        ("token", "00", Secret("00")),
        ("keys", '["a"]', [Secret("a")]),
        ("database.port", "9", 9),
        ("database", '{"host": "x"}', Database("x", 1)),
    ],
)
def test_text_is_converted_to_the_type_of_its_setting(name: str, text: str, value: object) -> None:
    assert one(name, text) == value
    assert type(one(name, text)) is type(value)


@given(st.text(min_size=1).filter(lambda text: text.strip() and "\0" not in text))
def test_text_and_secrets_are_kept_as_they_are(text: str) -> None:
    values = resolved(given={"name": text, "token": text}).values
    assert isinstance(values, Example)
    assert (values.name, values.token) == (text, Secret(text))


@given(st.lists(st.text()), st.integers(1), st.floats(allow_nan=False), st.booleans())
def test_values_that_are_written_as_json_are_read_again(
    carriers: list[str], minutes: int, ratio: float, is_dry: bool
) -> None:
    expected = Example(carriers=carriers, minutes=minutes, ratio=ratio, is_dry=is_dry)
    names = ("carriers", "minutes", "is_dry")
    texts = {name: msgspec.json.encode(getattr(expected, name)).decode() for name in names}
    assert resolved(given={**texts, "ratio": repr(ratio)}).values == expected


@given(st.text(), st.sampled_from([field.name for field in group_of(Example).walk()]))
def test_any_text_gives_a_value_or_the_documented_error(text: str, name: str) -> None:
    variable = variable_of(name)
    problem = variable
    try:
        resolved(variables={variable: text})
    except ConfigError as error:
        problem = str(error)
    # Only a part of an optional Struct may be set.
    assert problem.startswith((variable, "'late' needs settings that are not set: replica.host"))


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("minutes", "x", "'x' is not valid for 'minutes' (int): Expected `int`; use a whole"),
        ("minutes", "0", "'0' is not valid for 'minutes' (int): Expected `int` >= 1"),
        ("minutes", " 5", "' 5' is not valid"),
        ("is_dry", "yes", "use true or false"),
        ("every", "5m", "use seconds, such as 300, or an ISO 8601 duration"),
        ("carriers", "AA,UA", 'not valid JSON; write it as JSON, such as \'["a", "b"]\''),
        ("carriers", "[1]", "Expected `str`"),
        ("carriers", "[" * 100_000, "not valid JSON"),
        ("labels", "a=1", 'write it as JSON, such as \'{"name": "value"}\''),
        ("level", "middle", "use one of: high, low"),
        ("database", "x", "not valid JSON"),
        ("database", "[]", "it has several fields"),
        ("database", "null", "it has several fields"),
        ("database", '{"hots": "x"}', "'database' has no 'hots'; did you mean 'database.host'?"),
        ("database.port", "tcp://10.0.0.1:80", "is not valid for 'database.port' (int)"),
        ("keys", "hunter2", "the value is not valid for 'keys' (list[Secret]); it is not shown"),
        ("keys", '[1, "hunter2"]', "the value is not valid for 'keys'"),
        ("keys", '{"hunter2": "hunter2"}', "the value is not valid for 'keys'"),
    ],
)
def test_an_invalid_value_is_refused_with_its_place(name: str, text: str, words: str) -> None:
    variable = variable_of(name)
    error = refused(variables={variable: text})
    assert variable in error
    assert words in error
    assert words in refused(given={name: text})


def test_a_secret_that_is_not_text_is_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "streamkit.toml"
    path.write_text("[settings]\ntoken = 55512345678\n")
    assert f"{path}: settings.token: the value is not valid for 'token'" in refused(folder=tmp_path)
    path.write_text("[settings]\nminutes = 'x'\n")
    assert f"{path}: settings.minutes: 'x' is not valid" in refused(folder=tmp_path)


class Account(msgspec.Struct):
    password: Secret


class HasAccount(msgspec.Struct):
    account: Account


def test_a_struct_with_a_secret_is_not_shown() -> None:
    for text in ('"hunter2"', "hunter2", '{"password": 55512345678}'):
        error = refused(HasAccount, variables={f"{ENV}ACCOUNT": text})
        assert "the value is not valid for 'account" in error


def test_reports_do_not_show_secrets() -> None:
    sources = {"token": "hunter2", "keys": '["hunter2", "hunter2"]', "folder": "a/b"}
    reports = {each.name: each.value for each in resolved(given=sources).reports}
    assert (reports["token"], reports["keys"]) == ("***", '["***","***"]')
    assert (reports["folder"], reports["every"], reports["limit"]) == ('"a/b"', '"PT60S"', "7")
    long_text = {each.name: each.value for each in resolved(given={"name": "x" * 99}).reports}
    assert long_text["name"] == '"' + "x" * 76 + "..."


def test_an_argument_that_is_not_text_is_refused_without_its_value() -> None:
    assert "--set token is int, not text" in refused(given={"token": 55512345678})
    assert "--set token is Secret, not text" in refused(given={"token": Secret("hunter2")})


# --- names -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "hint"),
    [
        ("MINUTS", f"did you mean {ENV}MINUTES?"),
        ("DATABASE_PORT", f"did you mean {ENV}DATABASE__PORT?"),
        ("DATABASE__PROT", f"did you mean {ENV}DATABASE__PORT?"),
        ("DATABASEX__PORT", f"did you mean {ENV}DATABASE__PORT?"),
        ("LABELS__A", f"{ENV}LABELS sets 'labels' as a whole"),
        ("COLOR", f"the variables of its settings are: {ENV}MINUTES,"),
        ("minutes", f"did you mean {ENV}MINUTES?"),
        ("TOKEN_FILE_FILE", "the variables of its settings are"),
        ("DATABASE__PORT_FIL", f"did you mean {ENV}DATABASE__PORT?"),
    ],
)
def test_an_unknown_variable_is_refused(variable: str, hint: str) -> None:
    error = refused(variables={f"{ENV}{variable}": "hunter2"})
    assert f"{ENV}{variable}: this app has no such setting" in error
    assert hint in error


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("minuts", "did you mean 'minutes'?"),
        ("database.prot", "did you mean 'database.port'?"),
        ("databse.port", "did you mean 'database.port'?"),
        ("labels.a", "'labels' is set as a whole; write it as JSON"),
        ("zzz", "valid settings: cluster, topics.NAME, minutes, name"),
        ("settings.zzz", "its settings are: minutes"),
        ("settings.", "valid settings"),
    ],
)
def test_an_unknown_name_in_an_option_is_refused(key: str, hint: str) -> None:
    assert hint in refused(given={key: "hunter2"})


def test_an_unknown_name_in_a_file_is_refused_if_it_is_similar_to_a_name(tmp_path: Path) -> None:
    path = tmp_path / "streamkit.toml"
    path.write_text("[settings]\nminuts = 1\n")
    error = refused(folder=tmp_path)
    assert f"{path}: settings.minuts: this app has no such setting" in error
    assert "did you mean 'minutes'?" in error
    path.write_text("[settings.database]\nzzz = 1\n")
    assert "'database' has no 'zzz'" in refused(folder=tmp_path)
    path.write_text("[settings]\nzzz = 1\n")
    (note,) = resolved(folder=tmp_path).notes
    assert "settings.zzz: this app has no such setting; its settings are: minutes" in note


def test_an_option_can_have_the_name_of_the_table() -> None:
    class Taken(msgspec.Struct):
        cluster: str = ""
        topics: list[str] = []

    sources = {"settings.cluster": "a", "settings.topics": '["b"]'}
    assert resolved(Taken, given=sources).values == Taken("a", ["b"])
    both = {"minutes": "1", "settings.minutes": "2"}
    assert "--set gives 'minutes' twice" in refused(given=both)


def test_renamed_fields_have_their_new_names() -> None:
    class Renamed(msgspec.Struct, rename="kebab"):
        max_minutes: int = 1

    assert resolved(Renamed, variables={f"{ENV}MAX_MINUTES": "2"}).values == Renamed(2)
    assert resolved(Renamed, given={"max-minutes": "2"}).values == Renamed(2)


def test_all_missing_settings_are_listed_with_how_to_set_them() -> None:
    error = refused(Required, variables={f"{ENV}DATABASE__PORT": "1"})
    assert "'late' needs settings that are not set: url (str), password (Secret)" in error
    assert "database.host (str)" in error
    assert f"url: --set url=VALUE, {ENV}URL, or url in the table [settings]" in error
    assert f"password: {ENV}PASSWORD_FILE with the path of a file" in error
    assert "--set password" not in error  # other users of the machine can see options


def test_a_value_is_not_shown_if_another_one_is_missing() -> None:
    secrets = {f"{ENV}PASSWORD": "hunter2", f"{ENV}URL": "hunter2"}
    assert "database.host" in refused(Required, variables=secrets)
    assert "'database.port'" in refused(
        Required, variables={**secrets, f"{ENV}DATABASE__PORT": "x"}
    )


# --- files with one value ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"a", "a"),
        (b"a\n", "a"),
        (b"a\r\n", "a"),
        (b"a\n\n", "a\n"),
        (b" a \n", " a "),
        (b"a\r", "a\r"),
        (b"\xef\xbb\xbfa\n", "a"),
        (b"-----BEGIN-----\nx\n-----END-----\n", "-----BEGIN-----\nx\n-----END-----"),
    ],
)
def test_one_newline_at_the_end_of_a_file_is_removed(
    tmp_path: Path, data: bytes, text: str
) -> None:
    path = tmp_path / "secret"
    path.write_bytes(data)
    values = resolved(variables={f"{ENV}TOKEN_FILE": str(path)}).values
    assert isinstance(values, Example)
    assert values.token == Secret(text)


def test_a_file_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    variable = f"{ENV}TOKEN_FILE"
    path = tmp_path / "secret"

    def error(text: str = str(path)) -> str:
        found = refused(variables={variable: text})
        assert variable in found
        return found

    assert f"cannot read the file '{path}': No such file" in error()
    assert "Is a directory" in error(str(tmp_path))
    assert "cannot read the file: " in error("hunter2")  # the secret itself instead of a path
    path.write_bytes(b"hunter2\xff")
    assert "is not UTF-8 text" in error()
    path.write_bytes(b"\n")
    assert "is empty" in error()
    path.write_bytes(b"x" * 1_048_577)
    assert "is larger than 1 MiB" in error()
    path.chmod(0)
    if os.geteuid() != 0:
        assert "Permission denied" in error()


def test_a_value_and_a_file_for_one_setting_are_refused(tmp_path: Path) -> None:
    both = {f"{ENV}TOKEN": "hunter2", f"{ENV}TOKEN_FILE": str(tmp_path)}
    assert f"{ENV}TOKEN and {ENV}TOKEN_FILE are both set" in refused(variables=both)
    one_is_empty = {f"{ENV}TOKEN": "a", f"{ENV}TOKEN_FILE": ""}
    assert resolved(variables=one_is_empty).values == Example(token=Secret("a"))


def test_a_nested_struct_can_be_a_json_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text('{"host": "x"}\n')
    file = {f"{ENV}DATABASE_FILE": str(tmp_path / "secret")}
    assert resolved(variables=file).values == Example(database=Database("x", 1))


# --- the class ---------------------------------------------------------------------------


class HasObject(msgspec.Struct):
    value: StreamKitError


class HasFile(msgspec.Struct):
    key: str
    key_file: Path


class Twice(msgspec.Struct):
    name: str
    NAME: str


class Inside(msgspec.Struct):
    b: int


class Deep(msgspec.Struct):
    a: Inside
    a__b: int


class ShownDefault(msgspec.Struct):
    key: Secret = "hunter2"  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (dict, "is not a msgspec.Struct class; declare the settings as class MySettings"),
        (Example(), "an object is not a msgspec.Struct class; give the class"),
        ("Example", "is not a msgspec.Struct class"),
        (HasObject, "HasObject.value has the type StreamKitError, which cannot be set"),
        (ShownDefault, "the default of ShownDefault.key is a text, which would be shown"),
        (HasFile, f"{ENV}KEY_FILE would set 'key_file', and would also be the file"),
        (Twice, f"{ENV}NAME would set both 'name' and 'NAME'"),
        (Deep, f"{ENV}A__B would set both 'a.b' and 'a__b'"),
    ],
)
def test_a_class_that_cannot_be_set_is_refused(kind: type[Example], words: str) -> None:
    with pytest.raises(UsageError) as error:
        App("job").settings(kind)
    assert words in f"{error.value}; {error.value.hint}"


def test_an_annotation_that_does_not_exist_is_refused() -> None:
    class Hidden(msgspec.Struct):
        value: int

    class Outer(msgspec.Struct):
        hidden: Hidden

    with pytest.raises(UsageError, match="Outer has an annotation that cannot be used") as error:
        App("job").settings(Outer)
    assert error.value.hint == "declare the class and the types of its fields at module level"


def test_two_classes_of_settings_are_refused() -> None:
    app = App("job")
    settings = app.settings(Example)
    assert app.settings(Example) is settings
    with pytest.raises(UsageError, match="has settings of the class Example already"):
        app.settings(Required)


def test_an_error_of_the_class_itself_is_a_config_error() -> None:
    class Checked(msgspec.Struct):
        minutes: int = 5

        def __post_init__(self) -> None:
            if self.minutes > 60:
                raise ValueError("minutes must be at most 60")

    assert "not valid: minutes must be at most 60" in refused(Checked, given={"minutes": "61"})


class Tree(msgspec.Struct):
    child: Tree | None = None
    size: int = 0


class Small(msgspec.Struct, tag="small"):
    size: int


class Large(msgspec.Struct, tag="large"):
    size: int


class Tagged(msgspec.Struct):
    either: Small | Large
    one: Small | None = None
    text: str | list[str] = ""


def test_structs_that_are_not_merged_are_set_as_json() -> None:
    assert resolved(Tree, given={"child": '{"size": 2}'}).values == Tree(Tree(size=2))
    large = {"either": '{"type": "large", "size": 2}', "one": '{"type": "small", "size": 3}'}
    assert resolved(Tagged, given=large).values == Tagged(Large(2), Small(3))
    texts = {**large, "text": '["a"]'}
    assert resolved(Tagged, given=texts).values == Tagged(Large(2), Small(3), ["a"])
    assert resolved(Tagged, given={**large, "text": "a"}).values == Tagged(Large(2), Small(3), "a")


# --- in tests of a job -------------------------------------------------------------------


class Limit(msgspec.Struct, frozen=True):
    minutes: int


def job_with_limit() -> tuple[App, list[int]]:
    app, seen = App("late"), list[int]()
    settings = app.settings(Limit)

    def is_late(minutes: int) -> bool:
        return minutes > settings.get().minutes

    def show(minutes: int) -> None:
        seen.append(minutes - settings.get().minutes)

    app.sink(app.stream("delays", int).filter(is_late))(show)
    return app, seen


def test_a_test_gives_the_values() -> None:
    app, seen = job_with_limit()
    with app.test(settings=Limit(10)) as job:
        job.send("delays", 5, 20)
    assert seen == [10]
    with app.test(settings=Limit(3)) as job:
        job.send("delays", 5)
    assert seen == [10, 2]


def test_each_of_two_tests_has_its_own_values() -> None:
    app, seen = job_with_limit()
    with app.test(settings=Limit(10)) as first, app.test(settings=Limit(3)) as second:
        first.send("delays", 20)
        second.send("delays", 20)
        first.send("delays", 20)
    assert seen == [10, 17, 10]


def test_a_test_without_values_fails_where_they_are_read() -> None:
    app, _ = job_with_limit()
    with app.test() as job, pytest.raises(StageError, match=r"app\.test\(settings=Limit\(\.\.\.\)"):
        job.send("delays", 5)


def test_a_test_has_the_defaults_of_the_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{ENV}MINUTES", "99")
    app = App("late")
    settings = app.settings(Example)
    app.stream("delays", int).to("out")
    with app.test():
        assert settings.get().minutes == 15


def test_values_cannot_be_read_before_and_after_a_job() -> None:
    app, _ = job_with_limit()
    settings = app.settings(Limit)
    for _ in range(2):
        with pytest.raises(UsageError, match="known only while the job runs"):
            settings.get()
        with app.test(settings=Limit(1)):
            assert settings.get() == Limit(1)


def test_a_job_that_does_not_open_leaves_no_values() -> None:
    class Broken:
        def open(self) -> None:
            raise OSError("no")

        def write(self, rows: list[int]) -> None: ...
        def flush(self) -> None: ...
        def close(self) -> None: ...

    app = App("late")
    settings = app.settings(Limit)
    app.stream("delays", int).to(Broken())
    with pytest.raises(OSError, match="no"), app.test(settings=Limit(1)):
        pass
    with pytest.raises(UsageError, match="known only while the job runs"):
        settings.get()


def test_values_of_another_class_are_refused() -> None:
    app, _ = job_with_limit()
    with pytest.raises(UsageError, match="is of the type Example, not Limit"):
        app.test(settings=Example())
    with pytest.raises(UsageError, match="is of the type StructMeta, not Limit"):
        app.test(settings=Limit)  # type: ignore[arg-type]
    other = App("other")
    other.stream("a", int).to("b")
    with pytest.raises(UsageError, match="this app has no settings"):
        other.test(settings=Limit(1))


def test_two_runs_with_other_values_are_refused() -> None:
    app, _ = job_with_limit()
    settings = app.settings(Limit)
    with settings.used_by_a_run(Limit(1)):
        with settings.used_by_a_run(Limit(1)):
            assert settings.get() == Limit(1)
        with (
            pytest.raises(UsageError, match="has other settings"),
            settings.used_by_a_run(Limit(2)),
        ):
            pass
        assert settings.get() == Limit(1)
