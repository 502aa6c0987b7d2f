"""Load the vectors and the recorded sessions."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from msgspec.structs import replace

from streamkit.protocol.apis import SC_APIS, SPU_APIS, Api

FOLDER: Final = Path(__file__).parent.parent / "vectors"
CAPTURES: Final = FOLDER / "captures"
APIS: Final = {"sc": SC_APIS, "spu": SPU_APIS}
REQUEST_HEAD_BYTES: Final = 8
RESPONSE_HEAD_BYTES: Final = 4


@dataclass(frozen=True)
class Vector:
    """Bytes and the values they encode; ``raw`` is the whole entry of the file."""

    id: str
    kind: str
    data: bytes
    expect: Any
    raw: dict[str, Any]

    @property
    def is_partial(self) -> bool:
        return bool(self.raw["partial"])

    @property
    def version(self) -> int:
        return int(self.raw["api_version"] or 0)

    @property
    def api(self) -> Api[Any, Any]:
        return APIS[self.raw["port"]][self.raw["api_key"]]


@cache
def read_json(name: str) -> Any:
    return json.loads((FOLDER / name).read_text())


def vectors(*names: str) -> list[Vector]:
    return [
        Vector(raw["id"], raw["kind"], bytes.fromhex(raw["hex"]), raw["expect"], raw)
        for name in names
        for raw in read_json(name)
    ]


def body_at(frame: bytes, kind: str) -> int:
    """Return the position of the body in a complete frame."""
    if kind == "response":
        return 4 + RESPONSE_HEAD_BYTES
    client_id_at = 4 + REQUEST_HEAD_BYTES
    return client_id_at + 2 + int.from_bytes(frame[client_id_at : client_id_at + 2], "big")


@dataclass(frozen=True)
class Line:
    """One frame of a recorded session."""

    session: str
    n: int
    connection: tuple[str, int]
    is_client: bool
    data: bytes
    note: str

    @property
    def port(self) -> str:
        return self.connection[0]

    @property
    def correlation_id(self) -> int:
        at = 8 if self.is_client else 4
        return int.from_bytes(self.data[at : at + 4], "big")

    @property
    def name(self) -> tuple[str, int]:
        return self.session, self.n


@cache
def session(name: str) -> tuple[Line, ...]:
    """Return the frames of a session in order, without the connection events."""
    text = (CAPTURES / f"{name}.jsonl").read_text()
    return tuple(
        Line(
            name,
            raw["n"],
            (raw["port"], raw["conn"]),
            raw["direction"] == "client",
            bytes.fromhex(raw["hex"]),
            raw["note"],
        )
        for raw in map(json.loads, text.splitlines())
        if raw["hex"]
    )


SESSIONS: Final = tuple(sorted(path.stem for path in CAPTURES.glob("*.jsonl")))
SEGMENTS: Final = tuple(sorted(path.stem for path in (CAPTURES / "segments").glob("*.json")))


@dataclass(frozen=True)
class LogFile:
    data: bytes
    batches: tuple[dict[str, int], ...]


def segment_folder(name: str) -> tuple[tuple[LogFile, ...], tuple[dict[str, Any], ...]]:
    """Return the log files of a partition, oldest first, and the records a consumer reads."""
    raw = read_json(f"captures/segments/{name}.json")
    logs = tuple(
        LogFile(base64.b64decode(file["base64"]), tuple(file["batches"]))
        for file in sorted(raw["files"], key=lambda file: str(file["name"]))
        if file["name"].endswith(".log")
    )
    return logs, tuple(raw["records"])


def speaking(api: Api[Any, Any], version: int) -> Api[Any, Any]:
    """Return the request type of a client that supports only this version."""
    return replace(api, min_version=version, max_version=version)


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]
