"""SmartModules in the SC: which files are accepted, and how they are created and deleted."""

from __future__ import annotations

import gzip
from itertools import count
from pathlib import Path
from typing import Final

import pytest

from streamkit import Client
from streamkit.client import SmartModuleInfo
from streamkit.client.smartmodules.wasm import compressed_module
from streamkit.errors import SmartModuleNotFound, UsageError
from streamkit.protocol import apis, specs
from streamkit.protocol.control_plane import ListRequest
from tests import wasm

MODULE: Final = wasm.module()
_numbers = count()


@pytest.fixture
def name() -> str:
    return f"module-{next(_numbers)}"


async def payload_of(client: Client, name: str) -> bytes:
    answer = await client.cluster.admin(apis.LIST, ListRequest(specs.SMARTMODULE, (name,)))
    (item,) = answer.items
    payload: bytes = item.spec.payload
    return payload


# --- Life cycle --------------------------------------------------------------------------


async def test_a_module_is_stored_compressed_listed_and_deleted(client: Client, name: str) -> None:
    await client.admin.create_smartmodule(name, MODULE)
    stored = await payload_of(client, name)
    assert gzip.decompress(stored) == MODULE
    info = SmartModuleInfo(name, len(stored))
    assert await client.admin.list_smartmodules(name) == [info]
    assert info in await client.admin.list_smartmodules()
    await client.admin.delete_smartmodule(name)
    assert await client.admin.list_smartmodules(name) == []


async def test_a_module_is_read_from_a_file(client: Client, name: str, tmp_path: Path) -> None:
    path = tmp_path / "m.wasm"
    path.write_bytes(MODULE)
    for given in (path, str(path)):
        await client.admin.create_smartmodule(name, given)
        assert gzip.decompress(await payload_of(client, name)) == MODULE
    with pytest.raises(UsageError, match=r"cannot read .*none\.wasm: No such file"):
        await client.admin.create_smartmodule(name, tmp_path / "none.wasm")


async def test_a_missing_module_is_reported_with_a_similar_name(client: Client, name: str) -> None:
    await client.admin.create_smartmodule(name, MODULE)
    with pytest.raises(SmartModuleNotFound, match=f"{name}x") as caught:
        await client.admin.delete_smartmodule(f"{name}x")
    assert caught.value.hint == f"did you mean {name!r}?"
    assert (caught.value.name, caught.value.code) == (f"{name}x", 6001)


async def test_a_dry_run_stores_nothing_even_though_servers_ignore_the_option(
    client: Client, name: str
) -> None:
    await client.admin.create_smartmodule(name, MODULE, dry_run=True)
    assert await client.admin.list_smartmodules(name) == []
    with pytest.raises(UsageError):
        await client.admin.create_smartmodule(name, b"no module", dry_run=True)


# --- Names -------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", ["", "Upper", "a_b", "-a", "a" * 64, "g/m@0.1.0"])
async def test_a_bad_name_is_refused_before_it_is_sent(client: Client, bad: str) -> None:
    with pytest.raises(UsageError, match="is not a valid name for a SmartModule") as caught:
        await client.admin.create_smartmodule(bad, MODULE)
    assert "1 to 63 characters: a-z, 0-9 and -" in caught.value.hint


@pytest.mark.parametrize("bad", ["m@", "g/m@1", "m@one"])
async def test_a_bad_version_is_refused_before_it_is_sent(client: Client, bad: str) -> None:
    with pytest.raises(UsageError, match="is not a valid version"):
        await client.admin.list_smartmodules(bad)
    with pytest.raises(UsageError, match="is not a valid version"):
        await client.admin.delete_smartmodule(bad)
    with pytest.raises(SmartModuleNotFound, match=r"g/m@1\.0\.0"):
        await client.admin.delete_smartmodule("g/m@1.0.0")


# --- Valid modules -----------------------------------------------------------------------


def test_a_module_is_compressed_once_and_always_to_the_same_bytes() -> None:
    packed = compressed_module(MODULE)
    assert gzip.decompress(packed) == MODULE
    assert compressed_module(MODULE) == packed
    assert compressed_module(packed) is packed
    assert gzip.decompress(compressed_module(wasm.HEAD)) == wasm.HEAD


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is not a wasm binary"),
        (b"hello", "begins with b'hell'"),
        (b"\0as", "is not a wasm binary"),
        (b"\0asm", "version 0x0"),
        (b"\0asm\x0d\0\1\0", "version 0x1000d"),
        (wasm.HEAD + b"\x0e\0", "section 14 at byte 8"),
        (MODULE[:-1], "is incomplete"),
        (MODULE + b"\x0a", "is incomplete"),
        (MODULE + b"\x0a\xff\xff", "is incomplete"),
        (gzip.compress(b"hello", mtime=0), "begins with b'hell'"),
        (gzip.compress(MODULE, mtime=0)[:-9], "not valid gzip"),
        (gzip.compress(MODULE[:-1], mtime=0), "damaged"),
    ],
)
def test_an_invalid_module_is_refused_with_the_reason(data: bytes, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        compressed_module(data)
    assert words in str(caught.value)


def test_a_module_in_text_form_is_refused_with_a_hint() -> None:
    with pytest.raises(UsageError) as caught:
        compressed_module(b"\n(module)")
    assert "wat2wasm" in caught.value.hint


@pytest.mark.parametrize("end", range(len(wasm.HEAD) + 1, len(MODULE)))
def test_a_module_cut_inside_a_section_is_refused(end: int) -> None:
    bounds = {
        8 + size for size in (6, 10, 22)
    }  # a cut between two sections leaves a valid, shorter module
    if end in bounds:
        compressed_module(MODULE[:end])
    else:
        with pytest.raises(UsageError, match="damaged"):
            compressed_module(MODULE[:end])
