"""SmartModule invocations in requests.

Source: docs/protocol/smartmodules.md, "Invocation".
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

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


class Duration(msgspec.Struct, frozen=True):
    seconds: U64
    nanoseconds: U32 = 0


class Predefined(msgspec.Struct, frozen=True):
    name: Str


class AdHoc(msgspec.Struct, frozen=True):
    """A module that is sent with the request: a gzip-compressed wasm binary."""

    module: Bytes


class NoFields(msgspec.Struct, frozen=True):
    pass


class Filter(NoFields, frozen=True):
    pass


class Map(NoFields, frozen=True):
    pass


class ArrayMap(NoFields, frozen=True):
    pass


class FilterMap(NoFields, frozen=True):
    pass


class Aggregate(msgspec.Struct, frozen=True):
    accumulator: Bytes = b""


class Join(msgspec.Struct, frozen=True):
    topic: Str = ""


class JoinStream(msgspec.Struct, frozen=True):
    topic: Str = ""
    derived_stream: Str = ""


GENERIC_CONTEXT = union[Any]({0: NoFields, 1: Aggregate, 2: Join, 3: JoinStream})


class Generic(msgspec.Struct, frozen=True):
    context: Annotated[NoFields | Aggregate | Join | JoinStream, GENERIC_CONTEXT] = NoFields()


class Lookback(msgspec.Struct, frozen=True):
    """The ``last`` records of the log, or those younger than ``age``."""

    last: U64
    age: Annotated[Duration | None, option(Duration), since(LOOKBACK_AGE_SINCE)] = None


class ExtraParams(msgspec.Struct, frozen=True):
    params: Annotated[dict[str, str], mapping(STRING, STRING)] = msgspec.field(default_factory=dict)
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


class SmartModuleInvocation(msgspec.Struct, frozen=True):
    wasm: Annotated[Predefined | AdHoc, WASM]
    kind: Annotated[Kind, KIND] = Generic()
    params: Annotated[ExtraParams, struct(ExtraParams)] = msgspec.field(default_factory=ExtraParams)
    name: Annotated[str | None, option(STRING), since(INVOCATION_NAME_SINCE)] = None


SMARTMODULES = vec[SmartModuleInvocation](SmartModuleInvocation)
SmartModules = Annotated[tuple[SmartModuleInvocation, ...], SMARTMODULES]
