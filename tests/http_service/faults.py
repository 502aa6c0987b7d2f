"""Faults of the HTTP service as data, and the rule that decides which request has which fault."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final, Literal, get_args

Kind = Literal["status", "slow", "hang", "drop", "cut", "truncated-json", "invalid-json"]
KINDS: Final = get_args(Kind)


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault, and which requests have it.

    ``status`` responds with a status and does nothing else. ``slow`` responds after ``seconds``.
    ``hang`` does not respond until it is released. ``drop`` closes the connection before the
    request is processed, and ``cut`` in the middle of the response. ``truncated-json`` and
    ``invalid-json`` respond with 200 and a body that is not JSON.

    A request has the fault if ``keys`` contains its key, and its key and the request itself are in
    the shares, and it is one of the ``first`` requests with its key. The seed of the service
    decides what is in a share.
    """

    kind: Kind
    name: str = ""  # the fault is counted under its name
    status: int = 500
    retry_after_s: int | None = None
    retry_after_is_date: bool = False
    seconds: float = 0.0
    keys: tuple[str, ...] | None = None
    share_of_keys: float = 1.0
    share_of_requests: float = 1.0
    first: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"{self.kind!r} is not a valid fault: use one of {', '.join(KINDS)}")
        if not 400 <= self.status <= 599:
            raise ValueError(f"{self.status} is not the status of an error")
        for share in (self.share_of_keys, self.share_of_requests):
            if not 0 <= share <= 1:
                raise ValueError(f"{share} is not a share: use a number from 0 to 1")

    @property
    def label(self) -> str:
        """The name under which it is counted: by default its kind, or its status."""
        return self.name or (str(self.status) if self.kind == "status" else self.kind)

    def applies(self, seed: int, key: str, number: int) -> bool:
        """Return whether the request with this number, counted from 1 per key, has the fault."""
        if self.keys is not None and key not in self.keys:
            return False
        if self.first is not None and number > self.first:
            return False
        return _is_in(self.share_of_keys, seed, self.label, key) and _is_in(
            self.share_of_requests, seed, self.label, key, number
        )


def fault_of(faults: Iterable[Fault], seed: int, key: str, number: int) -> Fault | None:
    """Return the first fault that a request has."""
    return next((fault for fault in faults if fault.applies(seed, key, number)), None)


def checked(faults: Iterable[Fault]) -> tuple[Fault, ...]:
    """Return the faults.

    Raises:
        ValueError: Two of them have one name, so they would be counted together.
    """
    listed = tuple(faults)
    labels = [fault.label for fault in listed]
    if len(set(labels)) < len(labels):
        raise ValueError(f"two faults have the same name: {', '.join(labels)}")
    return listed


def from_json(rows: list[dict[str, Any]]) -> tuple[Fault, ...]:
    """Create faults from objects with the fields of ``Fault``.

    Raises:
        ValueError: A field or a value is not valid.
    """
    try:
        return checked(
            Fault(**{**row, "keys": tuple(row["keys"]) if row.get("keys") is not None else None})
            for row in rows
        )
    except TypeError as error:
        raise ValueError(f"not a list of faults: {error}") from error


def _is_in(share: float, *parts: object) -> bool:
    if share in (0, 1):
        return share == 1
    digest = blake2b(json.dumps(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64
