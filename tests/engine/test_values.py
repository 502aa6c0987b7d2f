"""A value written with a type can be read with that type, or writing it is refused."""

from __future__ import annotations

import enum
import math
import uuid
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, TypedDict, TypeVar

import msgspec
import pydantic
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from streamkit import App, Record, Topic
from streamkit.connectors.files import JsonLines
from streamkit.dataflow.encoding import Encode
from streamkit.dataflow.steps import RowFailed, Unlimited
from streamkit.errors import StageError, TopologyError
from streamkit.record import Chunk
from streamkit.serde.values import encoder_for, format_for

T = TypeVar("T")
Code = NewType("Code", str)
HERE = Path(__file__)


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Word(enum.StrEnum):
    HI = "hi"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Pair(NamedTuple):
    a: int
    b: float


class Airport(TypedDict):
    code: str
    height: float | None


@dataclass
class Place:
    name: str
    at: tuple[float, float]


class Row(msgspec.Struct):
    number: int
    ratio: float
    maybe: float | None
    text: str
    raw: bytes
    when: datetime
    day: date
    span: timedelta
    money: Decimal
    tags: set[str]
    counts: dict[int, float]
    color: Color
    level: Level
    pair: Pair
    inner: list[Place]
    id: uuid.UUID


class Tree(msgspec.Struct):
    weight: float
    children: list[Tree] = []


class Box(msgspec.Struct, Generic[T]):
    inside: T


class Model(pydantic.BaseModel):
    name: str = pydantic.Field(alias="title")
    ratio: float
    when: datetime | None = None


@pydantic.dataclasses.dataclass
class ModelPlace:
    name: str
    height: float


FLOATS = st.floats()
ROWS = st.builds(
    Row,
    number=st.integers(),
    ratio=FLOATS,
    maybe=st.none() | FLOATS,
    text=st.text(st.characters()),  # lone surrogates among them
    raw=st.binary(),
    when=st.datetimes(timezones=st.sampled_from([None, UTC, timezone(timedelta(hours=-3))])),
    day=st.dates(),
    span=st.timedeltas(),
    money=st.decimals(allow_nan=False),
    tags=st.sets(st.text()),
    counts=st.dictionaries(st.integers(), FLOATS, max_size=3),
    color=st.sampled_from(Color),
    level=st.sampled_from(Level),
    pair=st.builds(Pair, st.integers(), FLOATS),
    inner=st.lists(st.builds(Place, st.text(), st.tuples(FLOATS, FLOATS)), max_size=2),
    id=st.uuids(),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | FLOATS | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
TREES = st.recursive(
    st.builds(Tree, FLOATS),
    lambda trees: st.builds(Tree, FLOATS, st.lists(trees, max_size=2)),
    max_leaves=4,
)
MODELS = st.builds(Model, **{"title": st.text(), "ratio": FLOATS})
KINDS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (bytes, st.binary()),
    (bytearray, st.binary().map(bytearray)),
    (str, st.text(st.characters())),
    (Code, st.text()),
    (Annotated[str, "a note"], st.text()),
    (Annotated[str, msgspec.Meta(max_length=9)], st.text(max_size=9)),
    (Literal["5", "null"], st.sampled_from(["5", "null"])),
    (str | None, st.text() | st.none()),
    (int | str | dict[str, Any], st.integers() | st.text() | st.dictionaries(st.text(), JSON)),
    (bytes | None, st.binary() | st.none()),
    (Any, JSON),
    (object, JSON),
    (dict[str, Any], st.dictionaries(st.text(), JSON)),
    (list[Any], st.lists(JSON)),
    (int, st.integers(-(10**400), 10**400)),
    (float, FLOATS),
    (float | None, st.none() | FLOATS),
    (bool, st.booleans()),
    (Decimal, st.decimals(allow_nan=False)),
    (datetime, st.datetimes() | st.datetimes(timezones=st.just(UTC))),
    (time, st.times()),
    (timedelta, st.timedeltas()),
    (Color, st.sampled_from(Color)),
    (Word, st.sampled_from(Word)),
    (set[float], st.sets(FLOATS)),
    (tuple[int, str], st.tuples(st.integers(), st.text())),
    (dict[int, str], st.dictionaries(st.integers(), st.text())),
    (dict[float, int], st.dictionaries(st.floats(allow_nan=False), st.integers())),
    (Airport, st.fixed_dictionaries({"code": st.text(), "height": st.none() | FLOATS})),
    (Place, st.builds(Place, st.text(), st.tuples(FLOATS, FLOATS))),
    (Row, ROWS),
    (list[Row], st.lists(ROWS, max_size=2)),
    (Tree, TREES),
    (Box[float], st.builds(Box, FLOATS)),
    (Box[Any], st.builds(Box, JSON)),
    (Model, MODELS),
    (list[Model] | None, st.none() | st.lists(MODELS, max_size=2)),
    (ModelPlace, st.builds(ModelPlace, st.text(), FLOATS)),
]  # fmt: skip


def copied(kind: Any, *values: bytes) -> list[Record[bytes]]:
    """Send stored values through a stream of a type; return the records it writes."""
    app = App("copy")
    app.stream("a", kind).to("b")
    with app.test() as job:
        job.send("a", *(Record(value) for value in values))
        return job.records("b")


@pytest.mark.parametrize(("kind", "values"), KINDS, ids=lambda each: str(each)[:40])
def test_a_value_of_a_type_can_be_read_back_or_is_refused(
    kind: Any, values: st.SearchStrategy[Any]
) -> None:
    write, read = Encode(encoder_for(kind)), format_for(kind).loads or bytes

    @settings(max_examples=60, deadline=None, phases=[Phase.explicit, Phase.generate])
    @given(values)
    def check(value: Any) -> None:
        if refusable(value):
            with pytest.raises(RowFailed):
                write.apply(Chunk([value], [None], [1], [0]), Unlimited())
        else:
            (stored,) = write.apply(Chunk([value], [None], [1], [0]), Unlimited()).values
            assert read(stored) == value

    check()


@pytest.mark.parametrize("text", ["NaN", "sNaN", "-Infinity", "1E+400"])
def test_special_decimals_can_be_written_and_read(text: str) -> None:
    chunk = Chunk([Decimal(text)], [None], [1], [0])
    (stored,) = Encode(encoder_for(Decimal)).apply(chunk, Unlimited()).values
    loads = format_for(Decimal).loads
    assert loads is not None
    assert str(loads(stored)) == text


def refusable(value: Any) -> bool:
    """Return whether a value has NaN, infinity or a lone surrogate, which JSON does not have."""
    if isinstance(value, str):
        return any("\ud800" <= each <= "\udfff" for each in value)
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, dict):
        # Keys are strings in JSON, so a float key may be NaN or infinity.
        return any(map(refusable, (*value.values(), *(k for k in value if isinstance(k, str)))))
    if isinstance(value, list | tuple | set):
        return any(map(refusable, value))
    if isinstance(value, msgspec.Struct):
        return any(refusable(getattr(value, name)) for name in value.__struct_fields__)
    if isinstance(value, (pydantic.BaseModel, Place, ModelPlace)):
        return any(map(refusable, vars(value).values()))
    return False


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda bad: bad,
        lambda bad: {"x": [1, {"y": bad}]},
        lambda bad: Tree(1.0, [Tree(bad)]),
        lambda bad: Place("x", (1.0, bad)),
        lambda bad: Box(bad),
        lambda bad: Model(title="x", ratio=bad),
        lambda bad: {"models": [Model(title="x", ratio=bad)]},
        lambda bad: ModelPlace("x", bad),
        lambda bad: Pair(1, bad),
    ],
    ids=["alone", "dict", "Struct in Struct", "dataclass", "generic", "model", "models in a dict",
         "pydantic dataclass", "NamedTuple"],
)  # fmt: skip
def test_a_record_with_nan_or_infinity_fails_or_is_skipped(
    bad: float, wrap: Callable[[float], Any], tmp_path: Path
) -> None:
    for target in ("b", JsonLines(tmp_path / "b.jsonl")):
        app = App("bad")
        numbers = app.stream("a", int)
        wrapped = numbers.map(lambda number: wrap(bad if number in (3, 6) else number + 0.5))
        wrapped.to(target, name="out", on_error="skip")
        failing = App("failing")
        failing.stream("a", int).map(lambda number: wrap(bad)).to(target, name="out")
        with app.test() as job:
            job.send("a", *range(8))
            out = app.topology.get("out")
            assert len(job._given[out][0]) == 6
        with failing.test() as job, pytest.raises(StageError, match="NaN or infinity") as caught:
            job.send("a", 1)
        assert caught.value.stage == "out"


def test_a_bad_float_before_an_encoding_error_is_also_skipped() -> None:
    values = [1.5, math.nan, 2.5, object(), 3.5, math.inf, object(), 4.5]
    app = App("bad")
    app.stream("a", int).map(lambda row: values[row]).to("b", on_error="skip")
    with app.test() as job:
        job.send("a", *range(len(values)))
        assert job.output("b") == [b"1.5", b"2.5", b"3.5", b"4.5"]


def test_a_struct_with_unresolved_annotations_is_written() -> None:
    app = App("fine")
    numbers = app.stream("a", float)
    numbers.map(lambda number: Unresolved(number)).to("b", on_error="skip")
    with app.test() as job:
        job.send("a", 1.5, 2.5)
        assert job.output("b") == [b'{"other":1.5}', b'{"other":2.5}']


def test_none_is_written_as_null() -> None:
    app = App("fine")
    app.stream("a", list[float | None]).to("b")
    with app.test() as job:
        job.send("a", [1.0, None], [None, 1e308, 1e308])
        assert job.output("b") == [b"[1.0,null]", b"[null,1e308,1e308]"]


def test_large_floats_whose_sum_overflows_are_written() -> None:
    app = App("fine")
    app.stream("a", float).map(lambda each: Tree(each)).to("b")
    with app.test() as job:
        job.send("a", 1e308, 1e308, 1e308)
        assert len(job.output("b")) == 3


@pytest.mark.parametrize(
    "text", [b'"5"', b'"null"', b'"hello"', b"5", b"null", b'{"a":"5"}', b"[]"]
)
@pytest.mark.parametrize("kind", [Any, int | str | dict[str, Any] | list[int] | None, object])
def test_json_values_pass_through_unchanged(kind: Any, text: bytes) -> None:
    assert [each.value for each in copied(kind, text)] == [text]


def test_untyped_json_passes_filters_merges_and_stages_unchanged() -> None:
    app = App("any")
    one = app.stream("a", Any).filter(lambda value: True)
    two = app.stream("a2", Any)

    @app.stage(one.merge(two))
    def same(value: T) -> T:
        return value

    def as_it_is(value: Any) -> Any:
        return value

    one.merge(two).to("merged")
    same.to("same")
    one.map(as_it_is).to("mapped")
    one.flat_map(listed).to("listed")
    with app.test() as job:
        job.send("a", Record(b'"5"'))
        for topic in ("merged", "same", "mapped", "listed"):
            assert job.output(topic) == [b'"5"'], topic


def listed(value: Any) -> list[Any]:
    return [value]


def test_the_type_of_a_topic_decides_how_values_are_written() -> None:
    app = App("topic")
    texts = app.stream("a", str)
    texts.to(Topic("any", Any))
    texts.map(lambda text: text).to(Topic("text", str))
    texts.map(lambda text: text).to(Topic("literal", Literal["x"]))
    texts.map(lambda text: Record(b"raw", b"k")).to(Topic("raw", Tree))  # type: ignore[arg-type]
    texts.to("plain")
    with app.test() as job:
        job.send("a", "x")
        found = {name: job.output(name)[0] for name in ("any", "text", "literal", "raw", "plain")}
    assert found == {
        "any": b'"x"', "text": b"x", "literal": b'"x"', "raw": b"raw", "plain": b"x",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "value", "word"),
    [
        (str, 5, "declared type is str"),
        (bytes, "5", "declared type is bytes"),
        (Any, b"5", "annotate bytes"),
    ],
)
def test_a_value_of_another_type_than_declared_is_refused(
    kind: Any, value: object, word: str
) -> None:
    app = App("lie")
    numbers = app.stream("a", int)
    app.stage(numbers, output_type=kind, name="lie")(lambda number: value).to("b")
    with app.test() as job, pytest.raises(StageError, match=word):
        job.send("a", 1)


# --- records ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Record, Record[bytes], Record[Any], Record[dict[str, str]]])
def test_records_are_written_with_value_key_and_timestamp(kind: Any) -> None:
    app = App("records")
    app.stream("a", kind).filter(lambda record: record.key == b"k").to("b")
    with app.test() as job:
        job.send("a", Record(b'{"a":"x"}', b"k", 77))
        (stored,) = job.records("b")
    assert (stored.value, stored.key, stored.timestamp_ms) == (b'{"a":"x"}', b"k", 77)


def test_a_record_returned_by_a_stage_is_written_with_value_key_and_timestamp() -> None:
    app = App("records")
    values = app.stream("a", bytes)

    @app.stage(values)
    def keyed(value: bytes) -> Record[bytes]:
        return Record(value, b"new", 5)

    @app.stage(values)
    def several(value: bytes) -> Iterator[Record[Any] | dict[str, int]]:
        yield Record("text", b"one")
        yield {"two": 2}

    keyed.to("b")
    several.to("c")
    values.map(lambda value: Record(value, b"lambda")).to("d")
    keyed.to("by-key", key=lambda record: record.value.upper())
    with app.test() as job:
        job.send("a", Record(b"v", b"old", 77))
        found = {name: job.records(name) for name in ("b", "c", "d", "by-key")}
    assert [(each.value, each.key, each.timestamp_ms) for each in found["b"]] == [(b"v", b"new", 5)]
    assert [(each.value, each.key) for each in found["c"]] == [
        (b'"text"', b"one"), (b'{"two":2}', b"old"),
    ]  # fmt: skip
    assert [(each.value, each.key) for each in found["d"]] == [(b"v", b"lambda")]
    assert [(each.value, each.key, each.timestamp_ms) for each in found["by-key"]] == [
        (b"v", b"V", 5)
    ]


def test_a_file_gets_the_value_of_a_record(tmp_path: Path) -> None:
    app = App("records")
    app.stream("a", Record[dict[str, int]]).to(JsonLines(tmp_path / "b.jsonl"), name="file")
    with app.test() as job:
        job.send("a", Record(b'{"a": 1}', b"k"))
        assert job._given[app.topology.get("file")][0].values == [b'{"a":1}']


# --- types that cannot be written as JSON ----------------------------------------------


class Plain:
    def __init__(self, x: int) -> None:
        self.x = x


class HasPlain(msgspec.Struct):
    plain: Plain


class Unresolved(msgspec.Struct):
    other: "NowhereToBeFound"  # type: ignore[name-defined]  # noqa: F821, UP037


class Odd(enum.Enum):
    X = 1.5


@pytest.mark.parametrize(
    ("kind", "hint"),
    [
        (Plain, "msgspec.Struct"),
        (HasPlain, "msgspec.Struct"),
        (list[Plain], "msgspec.Struct"),
        (Plain | None, "msgspec.Struct"),
        (deque, "use list"),
        (deque[int], "use list"),
        (OrderedDict, "use dict"),
        (Iterable[int], "use list"),
        (complex, "value="),
        (Unresolved, ""),
        (Odd, ""),
        ("Flight", ""),
    ],
)
def test_a_type_that_cannot_be_read_is_refused_with_the_line_of_the_user_code(
    kind: Any, hint: str
) -> None:
    app = App("types")
    with pytest.raises(TopologyError) as caught:
        app.stream("a", kind)
    assert caught.value.at.startswith(f"{HERE}:")
    assert hint in caught.value.hint

    def rows(row: Any) -> Any:
        return row

    rows.__annotations__["row"] = kind
    with pytest.raises(TopologyError) as caught:
        app.source("a")(rows)
    assert caught.value.at.startswith(f"{HERE}:")


@pytest.mark.parametrize("kind", [Plain, HasPlain, list[Plain], deque[int], complex])
def test_a_type_that_cannot_be_written_is_refused_with_the_line_of_the_user_code(kind: Any) -> None:
    app = App("types")
    made = app.stage(app.stream("a", int), output_type=kind, name="made")(lambda number: number)
    with pytest.raises(TopologyError, match="cannot be written as JSON") as caught:
        made.to("b")
    assert caught.value.at.startswith(f"{HERE}:")


def test_pydantic_models_are_validated_when_they_are_read() -> None:
    app = App("models")

    @app.source("a", on_error="skip")
    def models(model: Model) -> Model:
        return model

    with app.test() as job:
        job.send("a", Record(b'{"title":"x","ratio":1}'), Record(b'{"ratio":"no"}'))
        assert job.output(models) == [Model(title="x", ratio=1.0)]


def test_a_pydantic_model_of_an_untyped_stage_can_be_read_back() -> None:
    model = Model(title="x", ratio=1.0)
    app = App("models")
    numbers = app.stream("a", int)
    numbers.map(lambda number: model).to("b")
    numbers.map(lambda number: {"models": [model]}).to("c")
    with app.test() as job:
        job.send("a", 1)
        assert Model.model_validate_json(job.output("b")[0]) == model
        assert job.output("c") == [b'{"models":[' + job.output("b")[0] + b"]}"]


class LeftOut(pydantic.BaseModel):
    number: int = pydantic.Field(exclude=True)


class Secret(pydantic.BaseModel):
    password: pydantic.SecretStr


class TwoNames(pydantic.BaseModel):
    number: int = pydantic.Field(validation_alias="read")


class WrittenElse(pydantic.BaseModel):
    number: int = pydantic.Field(serialization_alias="written")


class Around(pydantic.BaseModel):
    inside: list[Secret | None]


@pytest.mark.parametrize("kind", [LeftOut, Secret, TwoNames, WrittenElse, Around, list[Around]])
def test_a_model_that_could_not_be_read_back_is_refused(kind: Any) -> None:
    app = App("models")
    made = app.stage(app.stream("a", int), output_type=kind, name="made")(lambda number: number)
    with pytest.raises(TopologyError, match="the field '") as caught:
        made.to("b")
    assert caught.value.at.startswith(f"{HERE}:")
    app.stream("c", kind)  # which may be read


class Both(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(populate_by_name=True)

    number: int = pydantic.Field(validation_alias="read")
    choice: int = pydantic.Field(
        alias="c", validation_alias=pydantic.AliasChoices("c", pydantic.AliasPath("d", 0))
    )
    shown: pydantic.SecretStr
    left_out: str = pydantic.Field(default="", exclude=True)

    @pydantic.field_serializer("shown")
    def show(self, value: pydantic.SecretStr) -> str:
        return value.get_secret_value()

    @pydantic.computed_field
    def double(self) -> int:
        return 2 * self.number


def test_a_model_with_special_fields_that_can_be_read_back_is_written() -> None:
    value = Both.model_validate({"read": 1, "c": 2, "shown": "s"})
    app = App("models")
    made = app.stage(app.stream("a", int), output_type=Both, name="made")(lambda number: value)
    made.to("b")
    app.stream("c", Both).map(repr).to("d")
    with app.test() as job:
        job.send("a", 1)
        job.send("c", Record(job.output("b")[0]))
        assert job.output("d") == [repr(value).encode()]


def test_a_model_of_another_class_is_refused() -> None:
    class Larger(Model):
        more: int = 1

    app = App("models")
    numbers = app.stream("a", int)
    made = app.stage(numbers, output_type=Model, name="made")(
        lambda number: Larger(title="x", ratio=1)
    )
    made.to("b")
    with app.test() as job, pytest.raises(StageError, match="the value is Larger"):
        job.send("a", 1)


def test_keys_of_mixed_types_are_refused() -> None:
    rows = App("keys").stream("a", dict[int | str, int])
    with pytest.raises(TopologyError, match="cannot be read back"):
        rows.to("b")


# --- user formats ------------------------------------------------------------


class Comma:
    """Rows of numbers, separated by commas."""

    def loads(self, data: bytes) -> list[int]:
        return [int(each) for each in data.split(b",")]

    def dumps(self, value: list[int]) -> bytes:
        return b",".join(b"%d" % each for each in value)


class Careless:
    def loads(self, data: bytes) -> Any:
        return data

    def dumps(self, value: Any) -> Any:
        return None if value == b"none" else value


class AsyncFormat:
    async def loads(self, data: bytes) -> Any: ...

    async def dumps(self, value: Any) -> Any: ...


def test_a_custom_format_reads_and_writes_values() -> None:
    app = App("formats")
    rows = app.stream("a", list[int], value=Comma())
    rows.to("b", value=Comma())

    @app.sink(rows, to=Topic("c", Plain), value=Comma())
    def shaped(row: list[int]) -> Any:
        return Record([each * 2 for each in row], b"k")

    app.stream("d", Plain, value=Comma()).to("e", value=Comma())
    with app.test() as job:
        job.send("a", b"1,2", [5])
        job.send("d", Record(b"3"))
        assert job.output("b") == [b"1,2", b"5"]
        assert [(each.value, each.key) for each in job.records("c")] == [
            (b"2,4", b"k"), (b"10", b"k"),
        ]  # fmt: skip
        assert job.output("e") == [b"3"]


def test_a_format_that_does_not_return_bytes_fails_on_that_record() -> None:
    app = App("formats")
    app.stream("a", bytes).to("b", value=Careless(), on_error="skip")
    with app.test() as job:
        job.send("a", b"one", b"none", b"two")
        assert job.output("b") == [b"one", b"two"]
    app = App("formats")
    app.stream("a", bytes).to("b", value=Careless())
    with app.test() as job, pytest.raises(StageError, match="returned NoneType") as caught:
        job.send("a", b"one", b"none")
    assert (caught.value.stage, caught.value.offset) == ("to-b", 1)


@pytest.mark.parametrize("bad", [Comma, 5, object(), AsyncFormat()])
def test_an_invalid_format_is_refused(bad: Any) -> None:
    app = App("formats")
    rows = app.stream("a", bytes)
    with pytest.raises(TopologyError, match="value=") as caught:
        app.stream("b", bytes, value=bad)
    assert caught.value.at.startswith(f"{HERE}:")
    with pytest.raises(TopologyError, match="value=") as caught:
        rows.to("c", value=bad)
    assert caught.value.at.startswith(f"{HERE}:")


def test_a_custom_format_for_a_file_sink_is_refused(tmp_path: Path) -> None:
    rows = App("formats").stream("a", bytes)
    with pytest.raises(TopologyError, match="value= is not possible here"):
        rows.to(JsonLines(tmp_path / "b"), value=Comma())


def test_encoders_of_types_without_floats_do_not_search_for_nan() -> None:
    class NoFloat(msgspec.Struct):
        number: int
        text: str | None

    assert [encoder_for(kind).fault for kind in (NoFloat, int, str, bytes)] == [None] * 4


@pytest.mark.parametrize(
    ("kind", "value", "stored"),
    [
        (Any, "hello", b'"hello"'),
        (Any, b'"5"', b'"5"'),
        (Literal["x"], "x", b'"x"'),
        (Word, Word.HI, b'"hi"'),
        (Color, Color.RED, b'"red"'),
        (str, "hello", b"hello"),
        (Code, "hello", b"hello"),
        (int, "5", b"5"),
        (Tree, '{"weight":1.5}', b'{"weight":1.5,"children":[]}'),
        (Record, "hello", b"hello"),
        (Record[Any], "hello", b'"hello"'),
        (date, "2013-01-02", b'"2013-01-02"'),
    ],
)
def test_values_sent_in_tests_are_encoded_by_the_type_of_the_source(
    kind: Any, value: Any, stored: bytes
) -> None:
    app = App("send")
    app.stream("a", kind).to("b")
    with app.test() as job:
        job.send("a", value)
        assert job.output("b") == [stored]
