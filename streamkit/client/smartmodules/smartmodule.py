"""SmartModules: programs that a server runs on records while it stores or serves them.

A chain is a sequence of steps; each one gets the output of the step before it. Pure, except
`SmartModule.from_file`.

Source: docs/protocol/smartmodules.md, "Invocation" and "Transforms in files".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final, Literal

from streamkit.client import checks
from streamkit.client.smartmodules.wasm import compressed_module
from streamkit.errors import UnsupportedServer, UsageError
from streamkit.limits import MAP_ENTRIES_MAX
from streamkit.protocol import smartmodules as wire
from streamkit.protocol.smartmodules import SmartModuleInvocation

ModuleKind = Literal["generic", "filter", "map", "filter_map", "array_map", "aggregate"]

# In older versions a StreamFetch carries at most one module, which servers ignore.
CHAIN_SINCE: Final = 18
_KINDS: Final[dict[str, wire.Kind]] = {
    "generic": wire.Generic(),
    "filter": wire.Filter(),
    "map": wire.Map(),
    "filter_map": wire.FilterMap(),
    "array_map": wire.ArrayMap(),
    "aggregate": wire.Aggregate(),
}
# For each input record these have at most one output record.
_AT_MOST_ONE_OUTPUT: Final = (wire.Filter, wire.Map, wire.FilterMap, wire.Aggregate)


@dataclass(frozen=True, slots=True)
class Lookback:
    """Earlier records that a module reads before its first record.

    Args:
        last: The number of earlier records. With an age, 0 means all records within that age.
        age: Only records younger than this, in seconds or as a timedelta.

    Raises:
        UsageError: Both are missing, or one is negative.
    """

    last: int = 0
    age: float | timedelta | None = None

    def __post_init__(self) -> None:
        checks.whole("last of a lookback", self.last, 0, checks.I64_MAX)
        age_s = checks.optional(checks.seconds, "age of a lookback", self.age)
        if self.last == 0 and age_s is None:
            raise UsageError(
                "a lookback needs last or age", hint="Lookback(last=10), Lookback(age=60), or both"
            )

    @property
    def age_s(self) -> float | None:
        return self.age.total_seconds() if isinstance(self.age, timedelta) else self.age


@dataclass(frozen=True, slots=True)
class SmartModule:
    """One step of a chain: a module stored in the cluster, or one sent with the request.

    Args:
        name: A name from ``smartmodule create`` or the hub: ``my-filter``, ``group/name@0.1.0``.
        wasm: The module itself instead of a name: a wasm binary, gzipped or not.
        kind: The kind of the module. With ``generic`` the module's exports decide.
        params: The parameters for the module's ``init``.
        lookback: Earlier records that the module reads first.
        initial: The initial value of an aggregate.
        label: The name of this step in the server's metrics.

    Raises:
        UsageError: The options contradict each other, or ``wasm`` is not a module.
    """

    name: str | None = None
    wasm: bytes | None = field(default=None, repr=False)
    kind: ModuleKind = "generic"
    params: Mapping[str, str] = field(default_factory=dict)
    lookback: Lookback | None = None
    initial: bytes | str | None = None
    label: str | None = None

    def __post_init__(self) -> None:
        if (self.name is None) == (self.wasm is None):
            raise UsageError("a SmartModule needs either name or wasm")
        checks.optional(checks.text, "name", self.name)
        checks.optional(checks.text, "label", self.label)
        checks.choice("kind", self.kind, _KINDS)
        checks.optional(checks.instance, "lookback", self.lookback, Lookback)
        if self.initial is not None and self.kind not in ("aggregate", "generic"):
            raise UsageError(
                f"a {self.kind} has no initial value", hint='use kind="aggregate", or leave it out'
            )
        if self.initial is not None:
            object.__setattr__(self, "initial", checks.as_bytes("initial value", self.initial))
        params = checks.pairs("params", self.params, MAP_ENTRIES_MAX)
        object.__setattr__(self, "params", params)
        if self.wasm is not None:
            checks.instance("wasm", self.wasm, bytes)
            object.__setattr__(self, "wasm", compressed_module(self.wasm))

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        *,
        kind: ModuleKind = "generic",
        params: Mapping[str, str] | None = None,
        lookback: Lookback | None = None,
        initial: bytes | str | None = None,
        label: str | None = None,
    ) -> SmartModule:
        """Read a module from a file with wasm, gzipped or not. Every request contains it.

        Raises:
            UsageError: The file cannot be read, or is not a module.
        """
        file = checks.path("path", path)
        try:
            data = file.read_bytes()
        except OSError as error:
            raise UsageError(f"cannot read the SmartModule {path}: {error.strerror}") from error
        try:
            return cls(
                wasm=data,
                kind=kind,
                params=params or {},
                lookback=lookback,
                initial=initial,
                label=label,
            )
        except UsageError as error:
            raise UsageError(f"{path}: {error}", hint=error.hint) from error

    def invocation(self) -> SmartModuleInvocation:
        """Return the step in the form of the wire protocol."""
        module = (
            wire.AdHoc(self.wasm) if self.wasm is not None else wire.Predefined(self.name or "")
        )
        lookback = None
        if self.lookback is not None:
            age_s = self.lookback.age_s
            age = None if age_s is None else _duration(age_s)
            lookback = wire.Lookback(self.lookback.last, age)
        params = wire.ExtraParams(dict(sorted(self.params.items())), lookback)
        return SmartModuleInvocation(module, self._wire_kind(), params, self.label)

    def _wire_kind(self) -> wire.Kind:
        initial = self.initial.encode() if isinstance(self.initial, str) else self.initial
        if self.kind == "aggregate":
            return wire.Aggregate(initial or b"")
        if initial is not None:
            return wire.Generic(wire.Aggregate(initial))
        return _KINDS[self.kind]


def chain_of(steps: Iterable[SmartModule | str]) -> tuple[SmartModuleInvocation, ...]:
    """Return a chain in the form of the wire protocol; a text is the name of a module.

    Raises:
        UsageError: A step is neither a `SmartModule` nor a text.
    """
    if isinstance(steps, str | SmartModule):
        raise UsageError("smartmodules must be a list", hint=f"smartmodules=[{steps!r}]")
    return tuple(_step(each).invocation() for each in checks.listed("smartmodules", steps))


def may_multiply(chain: Iterable[SmartModuleInvocation]) -> bool:
    """Whether a step may produce several records from one, as far as the client can know."""
    return any(not isinstance(step.kind, _AT_MOST_ONE_OUTPUT) for step in chain)


def keeps_state(chain: Iterable[SmartModuleInvocation]) -> bool:
    """Whether a step is declared as an aggregate, which starts over when a stream reopens."""
    return any(
        isinstance(step.kind, wire.Aggregate)
        or (isinstance(step.kind, wire.Generic) and isinstance(step.kind.context, wire.Aggregate))
        for step in chain
    )


def check_carried(
    chain: tuple[SmartModuleInvocation, ...], request: str, version: int, address: str
) -> None:
    """Refuse a server whose version of a request does not support all parts of a chain.

    Args:
        chain: The chain for the request.
        request: ``StreamFetch`` or ``Produce``.
        version: The version negotiated with the server.
        address: The address of the server.

    Raises:
        UnsupportedServer: Parts of the chain would be silently dropped.
    """
    if request == "StreamFetch" and chain and version < CHAIN_SINCE:
        raise _too_old("a SmartModule", request, version, CHAIN_SINCE, address)
    for step in chain:
        lookback = step.params.lookback
        if lookback is not None and version < wire.LOOKBACK_SINCE:
            raise _too_old("a lookback", request, version, wire.LOOKBACK_SINCE, address)
        if lookback is not None and lookback.age is not None and version < wire.LOOKBACK_AGE_SINCE:
            raise _too_old("a lookback's age", request, version, wire.LOOKBACK_AGE_SINCE, address)
        if step.name is not None and version < wire.INVOCATION_NAME_SINCE:
            raise _too_old(
                "a SmartModule's label", request, version, wire.INVOCATION_NAME_SINCE, address
            )


def _step(given: SmartModule | str) -> SmartModule:
    if isinstance(given, str):
        return SmartModule(given)
    if not isinstance(given, SmartModule):
        raise UsageError(
            f"{given!r} is not a valid step of a chain", hint="give a SmartModule or a name"
        )
    return given


def _too_old(what: str, request: str, version: int, since: int, address: str) -> UnsupportedServer:
    return UnsupportedServer(
        f"{address} supports {request} version {version}, but {what} needs version {since}",
        hint=f"upgrade the cluster, or leave out {what}",
    )


def _duration(seconds: float) -> wire.Duration:
    nanoseconds = round(seconds * 1_000_000_000)
    return wire.Duration(*divmod(nanoseconds, 1_000_000_000))
