"""SmartModule invocations in requests.

Source: docs/protocol/smartmodules.md, "Invocation".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from streamkit.protocol.schema import (
    STRING,
    U32,
    U64,
    Bytes,
    Str,
    mapping,
    option,
    since,
    struct,
    union,
    vec,
)

LOOKBACK_SINCE = 20
LOOKBACK_AGE_SINCE = 21
INVOCATION_NAME_SINCE = 25


@dataclass(frozen=True, slots=True)
class Duration:
    seconds: U64
    nanoseconds: U32 = 0


@dataclass(frozen=True, slots=True)
class Predefined:
    name: Str


@dataclass(frozen=True, slots=True)
class AdHoc:
    """A module that is sent with the request: a gzip-compressed wasm binary."""

    module: Bytes


@dataclass(frozen=True, slots=True)
class NoFields:
    pass


@dataclass(frozen=True, slots=True)
class Filter(NoFields):
    pass


@dataclass(frozen=True, slots=True)
class Map(NoFields):
    pass


@dataclass(frozen=True, slots=True)
class ArrayMap(NoFields):
    pass


@dataclass(frozen=True, slots=True)
class FilterMap(NoFields):
    pass


@dataclass(frozen=True, slots=True)
class Aggregate:
    accumulator: Bytes = b""


@dataclass(frozen=True, slots=True)
class Join:
    topic: Str = ""


@dataclass(frozen=True, slots=True)
class JoinStream:
    topic: Str = ""
    derived_stream: Str = ""


GENERIC_CONTEXT = union[Any]({0: NoFields, 1: Aggregate, 2: Join, 3: JoinStream})


@dataclass(frozen=True, slots=True)
class Generic:
    context: Annotated[NoFields | Aggregate | Join | JoinStream, GENERIC_CONTEXT] = NoFields()


@dataclass(frozen=True, slots=True)
class Lookback:
    """The ``last`` records of the log, or those younger than ``age``."""

    last: U64
    age: Annotated[Duration | None, option(Duration), since(LOOKBACK_AGE_SINCE)] = None


@dataclass(frozen=True, slots=True)
class ExtraParams:
    params: Annotated[dict[str, str], mapping(STRING, STRING)] = field(default_factory=dict)
    lookback: Annotated[Lookback | None, option(Lookback), since(LOOKBACK_SINCE)] = None


WASM = union[Any]({0: Predefined, 1: AdHoc})
KIND = union[Any](
    {
        0: Filter,
        1: Map,
        2: ArrayMap,
        3: Aggregate,
        4: FilterMap,
        5: Join,
        6: JoinStream,
        7: Generic,
    }
)
Kind = Filter | Map | ArrayMap | Aggregate | FilterMap | Join | JoinStream | Generic


@dataclass(frozen=True, slots=True)
class SmartModuleInvocation:
    wasm: Annotated[Predefined | AdHoc, WASM]
    kind: Annotated[Kind, KIND] = Generic()
    params: Annotated[ExtraParams, struct(ExtraParams)] = field(default_factory=ExtraParams)
    name: Annotated[str | None, option(STRING), since(INVOCATION_NAME_SINCE)] = None


SMARTMODULES = vec[SmartModuleInvocation](SmartModuleInvocation)
SmartModules = Annotated[tuple[SmartModuleInvocation, ...], SMARTMODULES]
