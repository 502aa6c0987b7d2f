"""SmartModules of a running broker: stored, listed, watched, deleted; kept across restarts."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest

from streamkit.broker.broker import Broker
from streamkit.errors import StateError
from streamkit.limits import SMARTMODULES_BYTES_MAX
from streamkit.protocol import apis, specs
from streamkit.protocol.control_plane import (
    CreateRequest,
    DeleteRequest,
    ListRequest,
    Metadata,
    StatusResponse,
    UnknownObject,
    WatchRequest,
)
from streamkit.protocol.error_codes import Code, ErrorCode, TextPayload, other
from streamkit.protocol.specs import (
    ModuleMeta,
    ModulePackage,
    ModuleParam,
    ModuleSummary,
    SmartModuleSpec,
)
from streamkit.protocol.topic_specs import Deduplication
from tests import wasm
from tests.broker.recording_disk import Mark, RecordingDisk, Step, crashes
from tests.broker.running import create as create_topic
from tests.broker.running import running, topic_spec
from tests.broker.wire import Wire
from tests.broker_process import BrokerProcess

WASM: Final = wasm.module()
PACKED: Final = gzip.compress(WASM, mtime=0)


def spec(payload: bytes = PACKED, package: ModulePackage | None = None) -> SmartModuleSpec:
    params = {"p": ModuleParam("what it takes", optional=True)}
    meta = None if package is None else ModuleMeta(package, params)
    return SmartModuleSpec(meta, payload=payload)


def packaged(name: str, group: str = "fluvio", version: str = "0.1.0") -> ModulePackage:
    return ModulePackage(name, group, version, "0.1.0")


async def create(
    sc: Wire, name: str, content: SmartModuleSpec | None = None, *, dry_run: bool = False
) -> StatusResponse:
    request = CreateRequest(specs.SMARTMODULE, name, content or spec(), dry_run)
    answer: StatusResponse = await sc.ask(apis.CREATE, request)
    return answer


async def delete(sc: Wire, name: str) -> StatusResponse:
    answer: StatusResponse = await sc.ask(apis.DELETE, DeleteRequest(specs.SMARTMODULE, name))
    return answer


async def listed(sc: Wire, *filters: str, summary: bool = False) -> tuple[Metadata, ...]:
    answer = await sc.ask(apis.LIST, ListRequest(specs.SMARTMODULE, filters, summary))
    items: tuple[Metadata, ...] = answer.items
    return items


async def names(sc: Wire, *filters: str) -> list[str]:
    return [item.name for item in await listed(sc, *filters)]


# --- A life --------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [WASM, PACKED], ids=["wasm", "gzip"])
async def test_a_module_is_kept_as_it_came(broker: Broker, payload: bytes) -> None:
    async with await Wire.open(broker.sc_address) as sc:
        assert await create(sc, "upper", spec(payload)) == StatusResponse("upper")
        (item,) = await listed(sc)
        assert (item.name, item.spec) == ("upper", spec(payload))
        assert await delete(sc, "upper") == StatusResponse("upper")
        assert await listed(sc) == ()
        gone = StatusResponse(
            "upper", ErrorCode(Code.SMARTMODULE_NOT_FOUND, TextPayload("upper")), "not found"
        )
        assert await delete(sc, "upper") == gone


async def test_a_summary_has_the_length_in_place_of_the_payload(broker: Broker) -> None:
    async with await Wire.open(broker.sc_address) as sc:
        await create(sc, "upper")
        (item,) = await listed(sc, summary=True)
        assert item.spec == SmartModuleSpec(None, ModuleSummary(len(PACKED)))


async def test_a_module_takes_the_place_of_its_namesake(broker: Broker, tmp_path: Path) -> None:
    async with await Wire.open(broker.sc_address) as sc:
        for payload in (WASM, PACKED):
            assert not (await create(sc, "upper", spec(payload))).error
        (item,) = await listed(sc)
        assert item.spec.payload == PACKED
    assert len(list((tmp_path / "broker" / "smartmodules").iterdir())) == 1


async def test_a_dry_run_stores_nothing(broker: Broker) -> None:
    async with await Wire.open(broker.sc_address) as sc:
        assert not (await create(sc, "upper", dry_run=True)).error
        assert await listed(sc) == ()


# --- Names ---------------------------------------------------------------------------------


async def test_a_package_is_stored_under_all_of_its_name(broker: Broker) -> None:
    async with await Wire.open(broker.sc_address) as sc:
        answer = await create(sc, "asked", spec(package=packaged("dedup")))
        assert answer == StatusResponse("dedup-fluvio-0.1.0")
        (item,) = await listed(sc)
        assert item.spec.meta.params == {"p": ModuleParam("what it takes", optional=True)}
        assert not (await delete(sc, "fluvio/dedup@0.1.0")).error
        assert await names(sc) == []


async def test_filters_compare_names_or_the_parts_of_a_package(broker: Broker) -> None:
    async with await Wire.open(broker.sc_address) as sc:
        await create(sc, "plain")
        await create(sc, "", spec(package=packaged("dedup")))
        await create(sc, "", spec(package=packaged("dedup", "mine", "0.2.0")))
        assert await names(sc, "plain") == ["plain"]
        assert await names(sc, "plai") == []
        assert await names(sc, "dedup") == ["dedup-fluvio-0.1.0", "dedup-mine-0.2.0"]
        assert await names(sc, "mine/dedup") == ["dedup-mine-0.2.0"]
        assert await names(sc, "mine/dedup@0.1.0") == []
        assert await names(sc, "fluvio/dedup@0.1.0", "plain") == ["dedup-fluvio-0.1.0", "plain"]
        assert await names(sc, "dedup-fluvio-0.1.0") == []
        assert len(await names(sc)) == 3


@pytest.mark.parametrize("name", ["a@", "a@1", "g/a@1.2", "a@01.0.0"])
async def test_a_bad_version_in_a_name_costs_the_connection(broker: Broker, name: str) -> None:
    async with await Wire.open(broker.sc_address) as sc:
        sc.start(apis.LIST, ListRequest(specs.SMARTMODULE, (name,)))
        assert await sc.until_closed() == b""
    async with await Wire.open(broker.sc_address) as sc:
        sc.start(apis.DELETE, DeleteRequest(specs.SMARTMODULE, name))
        assert await sc.until_closed() == b""


# --- Refusals ------------------------------------------------------------------------------


@pytest.mark.parametrize("package", [packaged(""), packaged("dedup", "")])
async def test_a_package_needs_name_and_group(broker: Broker, package: ModulePackage) -> None:
    async with await Wire.open(broker.sc_address) as sc:
        answer = await create(sc, "asked", spec(package=package))
        assert answer == StatusResponse(
            "asked", ErrorCode(Code.SMARTMODULE_ERROR), "invalid SmartModule package"
        )
        assert await listed(sc) == ()


@pytest.mark.parametrize(
    "payload", [b"", b"(module)", gzip.compress(b"text", mtime=0), PACKED[:12], b"\x1f\x8bgarbage"]
)
async def test_what_is_no_module_is_refused(broker: Broker, payload: bytes) -> None:
    async with await Wire.open(broker.sc_address) as sc:
        answer = await create(sc, "m", spec(payload))
        assert answer.error == ErrorCode(Code.SMARTMODULE_ERROR)
        assert "neither wasm nor the gzip of wasm" in (answer.error_message or "")
        assert await listed(sc) == ()


async def test_all_modules_together_have_a_size(broker: Broker) -> None:
    most = spec(WASM + bytes(SMARTMODULES_BYTES_MAX - 1_000))
    async with await Wire.open(broker.sc_address) as sc:
        assert await listed(sc) == ()  # the first request of a connection is small
        assert not (await create(sc, "large", most)).error
        answer = await create(sc, "other", spec(WASM + bytes(1_000)))
        assert answer.error == ErrorCode(Code.SMARTMODULE_ERROR)
        assert f"{SMARTMODULES_BYTES_MAX} allowed" in (answer.error_message or "")
        assert not (await create(sc, "large", spec())).error, "it makes room itself"
        assert not (await create(sc, "other", spec(WASM + bytes(1_000)))).error


async def test_a_topic_is_not_promised_to_deduplicate(broker: Broker) -> None:
    wanted = topic_spec(deduplication=Deduplication(5, None, "fluvio/dedup@0.1.0"))
    async with await Wire.open(broker.sc_address) as sc:
        missing = await create_topic(sc, "t", wanted)
        assert (missing.error, missing.name) == (
            ErrorCode(Code.DEDUPLICATION_SMARTMODULE_NOT_LOADED),
            "fluvio/dedup@0.1.0",
        )
        assert "not loaded" in (missing.error_message or "")
        await create(sc, "", spec(package=packaged("dedup")))
        refused = await create_topic(sc, "t", wanted)
        assert refused.error == ErrorCode(Code.DEDUPLICATION_SMARTMODULE_NOT_LOADED)
        assert "does not run SmartModules yet" in (refused.error_message or "")


@pytest.mark.parametrize(
    ("api", "name"),
    [(apis.CREATE, "create error"), (apis.DELETE, "create error"), (apis.UPDATE, "update error")],
)
async def test_a_type_that_nobody_knows_gets_an_answer(broker: Broker, api: Any, name: str) -> None:
    async with await Wire.open(broker.sc_address) as sc:
        answer = await sc.ask(api, UnknownObject("Foo", b"\0\x01a\0\0"))
        assert answer == StatusResponse(name, other("unknown admin object type"))
        assert await listed(sc) == (), "the connection goes on"


# --- Watches -------------------------------------------------------------------------------


@pytest.mark.parametrize("is_summary", [False, True])
async def test_a_watch_tells_what_comes_and_goes(broker: Broker, is_summary: bool) -> None:
    whole = spec()
    shown = SmartModuleSpec(None, ModuleSummary(len(PACKED))) if is_summary else whole
    async with await Wire.open(broker.sc_address) as sc:
        await create(sc, "a")
        watch = sc.start(apis.WATCH, WatchRequest(specs.SMARTMODULE, summary=is_summary))
        first = await sc.reply(watch)
        assert [(item.name, item.spec) for item in first.all] == [("a", shown)]
        await create(sc, "b")
        await delete(sc, "a")
        told = [(await sc.reply(watch)).changes for _ in range(2)]
        assert [(c.item.name, c.item.spec, c.is_delete) for changes in told for c in changes] == [
            ("b", shown, False),
            ("a", shown, True),
        ]


async def test_a_watch_of_no_modules_begins_with_an_empty_list(broker: Broker) -> None:
    async with await Wire.open(broker.sc_address) as sc:
        first = await sc.reply(sc.start(apis.WATCH, WatchRequest(specs.SMARTMODULE)))
        assert (first.epoch, first.changes, first.all) == (1, (), ())


# --- Restarts ------------------------------------------------------------------------------


async def test_modules_survive_a_kill(tmp_path: Path) -> None:
    with BrokerProcess(tmp_path) as process:
        async with await Wire.open(process.address) as sc:
            for name in ("a", "b", "c"):
                assert not (await create(sc, name, spec(WASM + name.encode()))).error
            assert not (await delete(sc, "b")).error
            assert not (await create(sc, "c", spec(package=packaged("c")))).error
        process.restart()
        async with await Wire.open(process.address) as sc:
            assert [(item.name, item.spec) for item in await listed(sc)] == [
                ("a", spec(WASM + b"a")),
                ("c", spec(WASM + b"c")),
                ("c-fluvio-0.1.0", spec(package=packaged("c"))),
            ]
            assert not (await delete(sc, "a")).error
        process.restart()
        async with await Wire.open(process.address) as sc:
            assert await names(sc) == ["c", "c-fluvio-0.1.0"]


async def test_what_a_crash_has_left_over_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "broker" / "smartmodules"
    async with running(tmp_path) as broker, await Wire.open(broker.sc_address) as sc:
        await create(sc, "kept")
        (file,) = folder.iterdir()
        (folder / "half").write_bytes(b"a file whose entry never came")
    async with running(tmp_path) as broker, await Wire.open(broker.sc_address) as sc:
        assert await names(sc) == ["kept"]
        assert list(folder.iterdir()) == [file]


async def test_a_damaged_module_is_not_served_and_the_others_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "broker" / "smartmodules"
    async with running(tmp_path) as broker, await Wire.open(broker.sc_address) as sc:
        await create(sc, "bad")
        (file,) = folder.iterdir()
        await create(sc, "good")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    async with running(tmp_path) as broker, await Wire.open(broker.sc_address) as sc:
        assert await names(sc) == ["good"]
        assert "SmartModule 'bad' is not served" in caplog.text
        assert file.exists(), "what is damaged is kept"
        assert not (await create(sc, "bad")).error
    async with running(tmp_path) as broker, await Wire.open(broker.sc_address) as sc:
        assert await names(sc) == ["bad", "good"]


# --- Power cuts ----------------------------------------------------------------------------

# A mark is whether it was answered, which module, and what that is then; None is gone.
NAMES: Final = ("a", "b", "c")


async def work(
    root: Path, random: Random, forgets: Callable[[Path], bool] = lambda _: False
) -> list[Step]:
    """Create, replace and delete some modules on a recording disk; return all steps."""
    disk = RecordingDisk(root, forgets=forgets)
    async with (
        running(root / "data", disk=disk) as broker,
        await Wire.open(broker.sc_address) as sc,
    ):
        for number in range(25):
            name, payload = random.choice(NAMES), WASM + b"%d" % number
            is_delete = number > 3 and random.random() < 0.3
            fact = name, None if is_delete else payload
            disk.mark((False, *fact))
            answer = await (delete(sc, name) if is_delete else create(sc, name, spec(payload)))
            assert answer.error.code in (0, 6001)
            disk.mark((True, *fact))
    return disk.steps


def possible(steps: list[Step]) -> dict[str, set[bytes | None]]:
    """Return what may be found of each module: what was answered last, or asked for since."""
    found: dict[str, set[bytes | None]] = {name: {None} for name in NAMES}
    for step in steps:
        if isinstance(step, Mark):
            is_answered, name, payload = step.fact
            found[name] = {payload} if is_answered else found[name] | {payload}
    return found


async def judge_crashes(tmp_path: Path, steps: list[Step], random: Random, count: int) -> None:
    root, left = tmp_path / "work", tmp_path / "left"
    points = [random.randrange(len(steps) + 1) for _ in range(count)]
    for point, model in crashes(root, steps, points):
        model.leave(left, random, random.choice((0.0, 0.5, 1.0)))
        async with (
            running(left / "data") as broker,
            await Wire.open(broker.sc_address) as sc,
        ):
            found = {item.name: item.spec.payload for item in await listed(sc)}
            for name, payloads in possible(steps[:point]).items():
                assert found.get(name) in payloads, name
        shutil.rmtree(left)


async def test_a_power_cut_leaves_every_module_that_was_acknowledged(
    tmp_path: Path, is_deep: bool
) -> None:
    steps = await work(tmp_path / "work", Random(1))
    await judge_crashes(tmp_path, steps, Random(2), 2_000 if is_deep else 60)


@pytest.mark.parametrize(
    "forgets",
    [
        lambda path: path.parent.name == "smartmodules",
        lambda path: path.name == "smartmodules",
        lambda path: path.stem == "journal",
    ],
    ids=["files", "their names", "the journal"],
)
async def test_a_forgotten_sync_of_a_module_is_noticed(
    tmp_path: Path, forgets: Callable[[Path], bool]
) -> None:
    steps = await work(tmp_path / "work", Random(1), forgets)
    with pytest.raises((AssertionError, StateError)):
        await judge_crashes(tmp_path, steps, Random(2), 200)
