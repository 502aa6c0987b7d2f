"""SmartModules as values: what a user writes, and the bytes that requests carry."""

from __future__ import annotations

import gzip
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from streamkit.client import Lookback, SmartModule
from streamkit.client.consume.positions import output_offsets
from streamkit.client.smartmodules.smartmodule import chain_of, check_carried, may_multiply
from streamkit.errors import SmartModuleError, SmartModuleNotFound, UnsupportedServer, UsageError
from streamkit.protocol.apis import PRODUCE, STREAM_FETCH
from streamkit.protocol.batch import decode_output_batch, read_batch_header
from streamkit.protocol.data_plane import ACKS_ALL, ProduceRequest, StreamFetchRequest
from streamkit.protocol.error_codes import (
    Code,
    ErrorCode,
    InvalidModulePayload,
    TextPayload,
    TransformErrorPayload,
)
from streamkit.protocol.schema import encode
from streamkit.protocol.server_errors import as_exception
from streamkit.protocol.smartmodules import AdHoc, SmartModuleInvocation
from tests.client.stock_cluster import output_batch
from tests.protocol.recorded import body_at, session, vectors

WASM: Final = b"\0asm\x01\0\0\0"
VECTORS: Final = {vector.id: vector for vector in vectors("data_plane.json")}
MAP: Final = SmartModule("fluvio_smartmodule_map", kind="map", params={"b": "2", "a": "1"})
CONTAINS: Final = SmartModule("contains", kind="filter", params={"key": "a"})


def with_wasm(step: SmartModule, module: bytes) -> SmartModuleInvocation:
    """Return a step with bytes in place of its module, as the vectors have it."""
    made = step.invocation()
    return SmartModuleInvocation(AdHoc(module), made.kind, made.params, made.name)


def recorded_body(name: str, n: int) -> bytes:
    line = next(line for line in session(name) if line.n == n)
    return line.data[body_at(line.data, "request") :]


# --- What requests carry -------------------------------------------------------------------


def test_a_request_with_a_named_module_is_that_of_the_stock_client() -> None:
    vector = VECTORS["stream-fetch-request-predefined-map"]
    request = StreamFetchRequest("t1", 0, 0, 1_048_890, smartmodules=chain_of([MAP]))
    body = encode(STREAM_FETCH.request, request, vector.version)
    assert body == vector.data[body_at(vector.data, "request") :]


@pytest.mark.parametrize(
    ("id", "options"),
    [
        ("produce-adhoc-v25", {"label": "adhoc-test"}),
        ("produce-adhoc-lookback-v24", {"lookback": Lookback(1)}),
        ("produce-adhoc-v8", {}),
    ],
)
def test_a_produce_request_with_a_module_is_as_upstream_tests_have_it(
    id: str, options: dict[str, Any]
) -> None:
    step = with_wasm(SmartModule(wasm=WASM, kind="filter", **options), bytes.fromhex("deadbeef"))
    request = ProduceRequest("t_id", ACKS_ALL, 1_000, (), (step,))
    assert encode(PRODUCE.request, request, VECTORS[id].version) == VECTORS[id].data


@pytest.mark.parametrize(
    ("id", "options"),
    [
        ("stream-fetch-adhoc-v18", {}),
        ("stream-fetch-adhoc-lookback-v24", {"lookback": Lookback(1)}),
        ("stream-fetch-adhoc-lookback-v25", {"lookback": Lookback(1), "label": "test-adhoc"}),
    ],
)
def test_a_stream_with_a_module_is_as_upstream_tests_have_it(
    id: str, options: dict[str, Any]
) -> None:
    step = with_wasm(SmartModule(wasm=WASM, kind="filter", **options), bytes.fromhex("deadbeef"))
    request = StreamFetchRequest("one", 3, 0, 0, smartmodules=(step,))
    assert encode(STREAM_FETCH.request, request, VECTORS[id].version) == VECTORS[id].data


@pytest.mark.parametrize(
    ("n", "version", "max_bytes", "step"),
    [
        (3, 22, 1_048_890, CONTAINS),
        (10, 22, 10, CONTAINS),
        (13, 25, 1_000, SmartModule("missing", kind="filter")),
        (15, 25, 1_000, SmartModule("contains", kind="filter")),
    ],
)
def test_streams_are_those_that_were_recorded(
    n: int, version: int, max_bytes: int, step: SmartModule
) -> None:
    request = StreamFetchRequest("sf", 0, 0, max_bytes, smartmodules=chain_of([step]))
    body = encode(STREAM_FETCH.request, request, version)
    assert body == recorded_body("raw-smartmodule-filter", n)


@pytest.mark.parametrize(("n", "name"), [(65, "tiny"), (69, "unknown-module")])
def test_a_bare_name_is_what_the_stock_python_client_sends(n: int, name: str) -> None:
    request = StreamFetchRequest("smt", 0, 0, 1_048_890, smartmodules=chain_of([name]))
    body = encode(STREAM_FETCH.request, request, 24)
    assert body == recorded_body("py-smartmodule-admin", n)


def test_a_produce_request_is_that_which_was_recorded() -> None:
    recorded = recorded_body("raw-smartmodule-filter", 7)
    chain = encode(PRODUCE.request, ProduceRequest(smartmodules=chain_of([CONTAINS])), 22)
    nothing = encode(PRODUCE.request, ProduceRequest(), 22)
    assert recorded.endswith(chain[len(nothing) - 4 :])


def test_params_look_as_the_reference_has_them_with_a_lookback() -> None:
    step = SmartModule("m", params={"key": "a"}, lookback=Lookback(10, timedelta(seconds=20)))
    expected = "000100036b657900016101000000000000000a01000000000000001400000000"
    body = encode(PRODUCE.request, ProduceRequest(smartmodules=chain_of([step])), 25)
    assert body.endswith(bytes.fromhex(expected + "00"))


@pytest.mark.parametrize(
    ("step", "tail"),
    [
        (SmartModule("m", kind="aggregate", initial=b"ab"), "03000000026162"),
        (SmartModule("m", kind="aggregate"), "0300000000"),
        (SmartModule("m", initial="ab"), "0701000000026162"),
        (SmartModule("m"), "0700"),
        (SmartModule("m", kind="filter_map"), "04"),
        (SmartModule("m", kind="array_map"), "02"),
    ],
)
def test_kinds_and_what_an_aggregate_starts_from(step: SmartModule, tail: str) -> None:
    body = encode(PRODUCE.request, ProduceRequest(smartmodules=chain_of([step])), 25)
    assert body.endswith(bytes.fromhex("0000016d" + tail + "00000000"))


def test_a_chain_keeps_its_order() -> None:
    names = [step.wasm for step in chain_of(["b", SmartModule("a"), "c"])]
    assert [getattr(wasm, "name", None) for wasm in names] == ["b", "a", "c"]


# --- Modules that are sent along -----------------------------------------------------------


def test_wasm_goes_out_compressed_once_and_always_alike(tmp_path: Path) -> None:
    path = tmp_path / "module.wasm"
    path.write_bytes(WASM)
    from_file, plain = SmartModule.from_file(path), SmartModule(wasm=WASM)
    assert from_file == plain
    assert plain.wasm is not None
    assert gzip.decompress(plain.wasm) == WASM
    assert SmartModule(wasm=plain.wasm).wasm == plain.wasm


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"not wasm", "no wasm binary"),
        (b"", "no wasm binary"),
        (gzip.compress(b"not wasm", mtime=0), "no wasm binary"),
        (gzip.compress(WASM, mtime=0)[:-3], "broken gzip"),
    ],
    ids=["text", "nothing", "gzip of text", "gzip that is cut"],
)
def test_what_is_no_module_is_refused_with_its_path(tmp_path: Path, data: bytes, why: str) -> None:
    path = tmp_path / "module.wasm"
    path.write_bytes(data)
    with pytest.raises(UsageError, match=why) as caught:
        SmartModule.from_file(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent\.wasm: No such file"):
        SmartModule.from_file(tmp_path / "absent.wasm")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, "one of the two"),
        ({"name": "m", "wasm": WASM}, "one of the two"),
        ({"name": ""}, "name='' has 0 bytes"),
        ({"name": "m", "kind": "fliter"}, "is not one of"),
        ({"name": "m", "kind": "filter", "initial": b"x"}, "starts from nothing"),
        ({"name": "m", "params": {"a": 1}}, "is not text"),
        ({"name": "m", "params": {"a": "x" * 32_768}}, "32,768 bytes"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        SmartModule(**options)


@pytest.mark.parametrize("options", [{}, {"last": -1}, {"last": 1, "age": -1.0}])
def test_a_lookback_says_something(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="lookback"):
        Lookback(**options)


@pytest.mark.parametrize("steps", ["m", SmartModule("m"), [1], [None]])
def test_a_chain_is_a_list_of_steps(steps: Any) -> None:
    with pytest.raises(UsageError):
        chain_of(steps)


# --- Servers that cannot carry it ----------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "request_name", "too_old", "new_enough"),
    [
        (SmartModule("m"), "StreamFetch", 17, 18),
        (SmartModule("m", lookback=Lookback(1)), "StreamFetch", 19, 20),
        (SmartModule("m", lookback=Lookback(1)), "Produce", 19, 20),
        (SmartModule("m", lookback=Lookback(1, 5.0)), "Produce", 20, 21),
        (SmartModule("m", label="l"), "Produce", 24, 25),
    ],
)
def test_what_a_version_cannot_carry_is_refused_naming_both(
    step: SmartModule, request_name: str, too_old: int, new_enough: int
) -> None:
    check_carried(chain_of([step]), request_name, new_enough, "here:1")
    with pytest.raises(UnsupportedServer, match=f"version {too_old}.*version {new_enough}"):
        check_carried(chain_of([step]), request_name, too_old, "here:1")


# --- Offsets of what came out --------------------------------------------------------------


def offsets_of(
    deltas: list[int],
    span: int,
    wanted: int = 0,
    *,
    base: int = 0,
    may_multiply: bool = False,
    is_sure: bool = True,
) -> tuple[list[int], int]:
    batch = output_batch([(delta, (b"v", None)) for delta in deltas], base, span)
    header = read_batch_header(batch)
    _, found = decode_output_batch(batch, 0, header)
    assert found == deltas
    return output_offsets(header, found, wanted, may_multiply=may_multiply, is_sure=is_sure)


def test_deltas_that_ascend_are_offsets() -> None:
    assert offsets_of([0, 2, 7], 10, base=100) == ([100, 102, 107], 0)


def test_the_wrong_deltas_of_a_stock_server_give_the_lowest_offset_possible() -> None:
    # Recorded: apple, banana and grape have offsets 0, 2 and 4, in batches at 0, 3 and 4.
    assert offsets_of([0, 2, -4], 5) == ([0, 2, 4], 0)
    # The second batch begins at 3; its records are 4 and 7.
    assert offsets_of([0, 2, -2, 1], 13) == ([0, 2, 3, 4], 0)
    # Of the reference, 8.7: both say 0, the second is really 2.
    assert offsets_of([0, 0], 4) == ([0, 1], 0)


def test_offsets_never_leave_what_the_batch_covers() -> None:
    found, _ = offsets_of([0] * 9, 4)
    assert found == [0, 1, 2, 3, 3, 3, 3, 3, 3]


def test_records_that_may_come_from_one_share_its_offset() -> None:
    assert offsets_of([0, 0, 0, -3, -3], 6, may_multiply=True) == ([0, 0, 0, 3, 3], 0)


def test_records_in_front_of_the_start_are_told() -> None:
    # The start lies inside the first batch; servers begin with all of it.
    assert offsets_of([1, 4, 6, 8], 10, 6) == ([1, 4, 6, 8], 2)
    assert offsets_of([1, 4, -3], 13, 6) == ([1, 4, 6], 2)
    assert offsets_of([7], 10, 6) == ([7], 0)


def test_what_may_lie_behind_the_start_is_kept() -> None:
    # The first is of the first batch; the second may be one of a long batch behind it.
    assert offsets_of([1, 4, 8], 100, 6, is_sure=False) == ([1, 6, 8], 1)
    # Made of any record of the batch, so also of one behind the start.
    assert offsets_of([0, 0, 0], 10, 6, may_multiply=True) == ([6, 6, 6], 0)


def test_only_kinds_that_give_one_at_most_are_sure_to_do_so() -> None:
    for kind in ("filter", "map", "filter_map", "aggregate"):
        assert not may_multiply(chain_of([SmartModule("m", kind=kind)]))
    assert may_multiply(chain_of([SmartModule("m", kind="array_map")]))
    assert may_multiply(chain_of([SmartModule("m", kind="filter"), "unknown"]))


# --- Errors --------------------------------------------------------------------------------


def test_a_record_that_a_module_fails_on_is_named() -> None:
    payload = TransformErrorPayload("expected value", 7, 2, b"k", b"apple")
    error = as_exception(ErrorCode(Code.SMARTMODULE_RUNTIME_ERROR, payload), about="t-0")
    assert isinstance(error, SmartModuleError)
    assert (error.reason, error.offset, error.key, error.value) == (
        "expected value",
        7,
        b"k",
        b"apple",
    )
    assert str(error) == (
        "t-0: the SmartModule (array_map) failed at offset 7: expected value; "
        "its input was 'apple' (key 'k')"
    )
    assert not error.retryable


def test_an_unknown_module_is_named() -> None:
    error = as_exception(ErrorCode(Code.SMARTMODULE_NOT_FOUND, TextPayload("gone")), about="t-0")
    assert isinstance(error, SmartModuleNotFound)
    assert (error.name, str(error)) == ("gone", "t-0: SmartModule not found: gone")


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (
            ErrorCode(Code.SMARTMODULE_INVALID, InvalidModulePayload("invalid gzip header", None)),
            "t-0: SmartModule is invalid: invalid gzip header",
        ),
        (
            ErrorCode(
                Code.SMARTMODULE_CHAIN_INIT_ERROR,
                TextPayload("Missing param key\n\nSmartModule Init Error: \n"),
            ),
            "t-0: SmartModule chain: Missing param key; SmartModule Init Error:",
        ),
        (ErrorCode(Code.OTHER, TextPayload("SmartModule err trap")), "t-0: SmartModule err trap"),
        (
            ErrorCode(Code.OTHER, TextPayload("smartmodule chain failed: trap")),
            "t-0: smartmodule chain failed: trap",
        ),
    ],
)
def test_a_module_that_cannot_be_used_says_why_in_one_line(code: ErrorCode, text: str) -> None:
    error = as_exception(code, about="t-0")
    assert isinstance(error, SmartModuleError)
    assert str(error) == text
    assert not error.retryable
