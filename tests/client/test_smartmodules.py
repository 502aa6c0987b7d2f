"""SmartModules as values, and their bytes in requests."""

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
    """Return a step with bytes instead of its module, as in the vectors."""
    made = step.invocation()
    return SmartModuleInvocation(AdHoc(module), made.kind, made.params, made.name)


def recorded_body(name: str, n: int) -> bytes:
    line = next(line for line in session(name) if line.n == n)
    return line.data[body_at(line.data, "request") :]


# --- Bytes of requests ---------------------------------------------------------------------


def test_a_request_with_a_named_module_equals_that_of_the_stock_client() -> None:
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
def test_a_produce_request_with_a_module_equals_that_of_upstream_tests(
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
def test_a_stream_request_with_a_module_equals_that_of_upstream_tests(
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
def test_stream_requests_equal_the_recorded_ones(
    n: int, version: int, max_bytes: int, step: SmartModule
) -> None:
    request = StreamFetchRequest("sf", 0, 0, max_bytes, smartmodules=chain_of([step]))
    body = encode(STREAM_FETCH.request, request, version)
    assert body == recorded_body("raw-smartmodule-filter", n)


@pytest.mark.parametrize(("n", "name"), [(65, "tiny"), (69, "unknown-module")])
def test_a_step_given_as_a_name_is_sent_as_by_the_stock_python_client(n: int, name: str) -> None:
    request = StreamFetchRequest("smt", 0, 0, 1_048_890, smartmodules=chain_of([name]))
    body = encode(STREAM_FETCH.request, request, 24)
    assert body == recorded_body("py-smartmodule-admin", n)


def test_a_produce_request_equals_the_recorded_one() -> None:
    recorded = recorded_body("raw-smartmodule-filter", 7)
    chain = encode(PRODUCE.request, ProduceRequest(smartmodules=chain_of([CONTAINS])), 22)
    nothing = encode(PRODUCE.request, ProduceRequest(), 22)
    assert recorded.endswith(chain[len(nothing) - 4 :])


def test_parameters_with_a_lookback_are_encoded_as_in_the_reference() -> None:
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
def test_kinds_and_initial_values_are_encoded_as_in_the_reference(
    step: SmartModule, tail: str
) -> None:
    body = encode(PRODUCE.request, ProduceRequest(smartmodules=chain_of([step])), 25)
    assert body.endswith(bytes.fromhex("0000016d" + tail + "00000000"))


def test_a_chain_keeps_its_order() -> None:
    names = [step.wasm for step in chain_of(["b", SmartModule("a"), "c"])]
    assert [getattr(wasm, "name", None) for wasm in names] == ["b", "a", "c"]


# --- Modules sent with requests ------------------------------------------------------------


def test_wasm_is_compressed_once_and_always_to_the_same_bytes(tmp_path: Path) -> None:
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
        (b"not wasm", "is not a wasm binary"),
        (b"", "is not a wasm binary"),
        (gzip.compress(b"not wasm", mtime=0), "is not a wasm binary"),
        (gzip.compress(WASM, mtime=0)[:-3], "not valid gzip"),
    ],
    ids=["text", "nothing", "gzip of text", "gzip that is cut"],
)
def test_an_invalid_module_is_refused_with_its_path(tmp_path: Path, data: bytes, why: str) -> None:
    path = tmp_path / "module.wasm"
    path.write_bytes(data)
    with pytest.raises(UsageError, match=why) as caught:
        SmartModule.from_file(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent\.wasm: No such file"):
        SmartModule.from_file(tmp_path / "absent.wasm")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, "needs either name or wasm"),
        ({"name": "m", "wasm": WASM}, "needs either name or wasm"),
        ({"name": ""}, "name='' has 0 bytes"),
        ({"name": "m", "kind": "fliter"}, "is not one of"),
        ({"name": "m", "kind": "filter", "initial": b"x"}, "has no initial value"),
        ({"name": "m", "params": {"a": 1}}, "is not text"),
        ({"name": "m", "params": {"a": "x" * 32_768}}, "32,768 bytes"),
    ],
)
def test_contradictory_options_are_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        SmartModule(**options)


@pytest.mark.parametrize("options", [{}, {"last": -1}, {"last": 1, "age": -1.0}])
def test_an_empty_lookback_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="lookback"):
        Lookback(**options)


@pytest.mark.parametrize("steps", ["m", SmartModule("m"), [1], [None]])
def test_a_chain_that_is_not_a_list_of_steps_is_refused(steps: Any) -> None:
    with pytest.raises(UsageError):
        chain_of(steps)


# --- Servers without support ---------------------------------------------------------------


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
def test_an_unsupported_option_is_refused_with_both_versions(
    step: SmartModule, request_name: str, too_old: int, new_enough: int
) -> None:
    check_carried(chain_of([step]), request_name, new_enough, "here:1")
    with pytest.raises(UnsupportedServer, match=f"version {too_old}.*version {new_enough}"):
        check_carried(chain_of([step]), request_name, too_old, "here:1")


# --- Offsets of the output ----------------------------------------------------------------


def offsets_of(
    deltas: list[int],
    span: int,
    wanted: int = 0,
    *,
    base: int = 0,
    may_multiply: bool = False,
    is_reliable: bool = True,
) -> tuple[list[int], int]:
    batch = output_batch([(delta, (b"v", None)) for delta in deltas], base, span)
    header = read_batch_header(batch)
    _, found = decode_output_batch(batch, 0, header)
    assert found == deltas
    return output_offsets(header, found, wanted, may_multiply=may_multiply, is_reliable=is_reliable)


def test_ascending_deltas_are_used_as_offsets() -> None:
    assert offsets_of([0, 2, 7], 10, base=100) == ([100, 102, 107], 0)


def test_the_wrong_deltas_of_a_stock_server_give_the_lowest_possible_offset() -> None:
    # Recorded: apple, banana and grape have offsets 0, 2 and 4, in batches at 0, 3 and 4.
    assert offsets_of([0, 2, -4], 5) == ([0, 2, 4], 0)
    # The second batch begins at 3; its records are 4 and 7.
    assert offsets_of([0, 2, -2, 1], 13) == ([0, 2, 3, 4], 0)
    # As stock servers answer: both have delta 0, but the second is really 2.
    assert offsets_of([0, 0], 4) == ([0, 1], 0)


def test_offsets_are_always_inside_the_batch() -> None:
    found, _ = offsets_of([0] * 9, 4)
    assert found == [0, 1, 2, 3, 3, 3, 3, 3, 3]


def test_records_that_may_come_from_one_input_share_its_offset() -> None:
    assert offsets_of([0, 0, 0, -3, -3], 6, may_multiply=True) == ([0, 0, 0, 3, 3], 0)


def test_records_before_the_start_offset_are_counted() -> None:
    # The start is inside the first batch, and servers send that whole batch.
    assert offsets_of([1, 4, 6, 8], 10, 6) == ([1, 4, 6, 8], 2)
    assert offsets_of([1, 4, -3], 13, 6) == ([1, 4, 6], 2)
    assert offsets_of([7], 10, 6) == ([7], 0)


def test_a_record_that_may_be_after_the_start_is_kept() -> None:
    # The first is from the first batch; the second may be from a long batch after it.
    assert offsets_of([1, 4, 8], 100, 6, is_reliable=False) == ([1, 6, 8], 1)
    # It may come from any record of the batch, including one after the start.
    assert offsets_of([0, 0, 0], 10, 6, may_multiply=True) == ([6, 6, 6], 0)


def test_only_some_kinds_have_at_most_one_output_per_input() -> None:
    for kind in ("filter", "map", "filter_map", "aggregate"):
        assert not may_multiply(chain_of([SmartModule("m", kind=kind)]))
    assert may_multiply(chain_of([SmartModule("m", kind="array_map")]))
    assert may_multiply(chain_of([SmartModule("m", kind="filter"), "unknown"]))


# --- Errors --------------------------------------------------------------------------------


def test_the_record_that_a_module_failed_on_is_reported() -> None:
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


def test_an_unknown_module_is_reported() -> None:
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
def test_an_unusable_module_is_reported_in_one_line(code: ErrorCode, text: str) -> None:
    error = as_exception(code, about="t-0")
    assert isinstance(error, SmartModuleError)
    assert str(error) == text
    assert not error.retryable
