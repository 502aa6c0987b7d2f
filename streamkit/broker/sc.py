"""The SC port: create, list, watch and delete topics and SmartModules.

Source: docs/protocol/admin.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from msgspec.structs import replace

from streamkit.broker.catalog import Catalog
from streamkit.broker.connection import PLATFORM_VERSION, Connection
from streamkit.broker.module_names import ModuleName, parse_module_name
from streamkit.broker.smartmodules import SmartModuleService
from streamkit.broker.topics import TopicService
from streamkit.errors import RemoteProtocolError
from streamkit.protocol import apis, specs
from streamkit.protocol.connection import IncomingRequest
from streamkit.protocol.control_plane import (
    AddMirror,
    ApiRange,
    ApiVersionsResponse,
    Change,
    CreateRequest,
    DeleteRequest,
    ListRequest,
    ListResponse,
    Metadata,
    StatusResponse,
    UnknownObject,
    UpdateRequest,
    WatchRequest,
    WatchResponse,
)
from streamkit.protocol.error_codes import NO_ERROR, other
from streamkit.protocol.specs import ObjectKind

Response = TypeVar("Response")

HELLO = ApiVersionsResponse(
    NO_ERROR,
    tuple(
        ApiRange(api.key, low, apis.ADMIN_VERSION)
        for api, low in (
            (apis.CREATE, 9),
            (apis.DELETE, 1),
            (apis.LIST, 15),
            (apis.WATCH, 15),
            (apis.UPDATE, 11),
        )
    ),
    PLATFORM_VERSION,
)
_WATCHABLE = (
    specs.TOPIC,
    specs.PARTITION,
    specs.SPU,
    specs.SMARTMODULE,
    specs.SPU_GROUP,
    specs.TABLE_FORMAT,
)


class ScSession:
    """Handles the requests of one connection to the SC port."""

    def __init__(
        self,
        connection: Connection,
        catalog: Catalog,
        topics: TopicService,
        modules: SmartModuleService,
    ) -> None:
        self._connection = connection
        self._catalog = catalog
        self._topics = topics
        self._modules = modules
        self._watches: list[OpenWatch] = []
        self._latest: asyncio.Future[Any] | None = None
        self._unwatch = catalog.watch(self._on_change)

    def respond(self, request: IncomingRequest) -> Any:
        body = request.body
        match request.api.key:
            case apis.API_VERSIONS.key:
                return HELLO
            case apis.CREATE.key:
                return self._create(body)
            case apis.DELETE.key:
                return self._delete(body)
            case apis.UPDATE.key:
                return self._update(body)
            case apis.LIST.key:
                return self._list(body)
            case apis.WATCH.key:
                return self._watch(request, body)
        raise AssertionError(f"no case for {request.api.name}")

    def close(self) -> None:
        self._unwatch()

    def _create(self, body: CreateRequest | UnknownObject) -> Any:
        if isinstance(body, UnknownObject):
            return _unknown("create error")
        if body.kind is specs.TOPIC:
            return self._after_previous(
                self._topics.create(body.name, body.spec, dry_run=body.dry_run)
            )
        if body.kind is specs.SMARTMODULE:
            return self._after_previous(
                self._modules.create(body.name, body.spec, dry_run=body.dry_run)
            )
        return _unsupported(body.name, body.kind, "Create")

    def _delete(self, body: DeleteRequest | UnknownObject) -> Any:
        if isinstance(body, UnknownObject):
            return _unknown("create error")  # the stock SC uses this name for Delete too
        name = body.key if isinstance(body.key, str) else ""
        if body.kind is specs.TOPIC:
            return self._after_previous(self._topics.delete(name, force=body.force))
        if body.kind is specs.SMARTMODULE:
            parse_module_name(name)  # an invalid name closes the connection immediately
            return self._after_previous(self._modules.delete(name))
        return _unsupported(name, body.kind, "Delete")

    def _update(self, body: UpdateRequest | UnknownObject) -> Any:
        if isinstance(body, UnknownObject):
            return _unknown("update error")
        if body.kind is not specs.TOPIC:
            return _unsupported(body.key, body.kind, "Update")
        if isinstance(body.action, AddMirror):
            return self._after_previous(self._topics.add_mirror(body.key))
        return self._after_previous(self._topics.add_partitions(body.key, body.action.count))

    def _after_previous(self, work: Coroutine[Any, Any, Response]) -> asyncio.Future[Response]:
        """Start work after the previous request of this connection is done."""
        before = self._latest

        async def wait_and_work() -> Response:
            if before is not None and not before.done():
                await asyncio.wait([before])
            return await work

        self._latest = asyncio.ensure_future(wait_and_work())
        return self._latest

    def _list(self, body: ListRequest) -> Any:
        is_of_modules = body.kind is specs.SMARTMODULE
        modules = [parse_module_name(text) for text in body.filters] if is_of_modules else []
        if self._latest is None or self._latest.done():
            return self._listing(body, modules)

        async def listing() -> ListResponse:
            return self._listing(body, modules)

        return self._after_previous(listing())

    def _listing(self, body: ListRequest, modules: list[ModuleName]) -> ListResponse:
        items = self._catalog.listing(body.kind)
        if body.kind in (specs.TOPIC, specs.PARTITION):
            items = [item for item in items if item.spec.system == body.system]
        if modules:
            items = [
                item
                for item in items
                if any(each.matches(item.name, item.spec) for each in modules)
            ]
        elif body.filters and body.kind is not specs.PARTITION:
            items = [item for item in items if any(text in item.name for text in body.filters)]
        if body.kind is specs.CUSTOM_SPU:
            items = [_as_custom_spu(item) for item in items]
        if body.summary:
            items = list(map(_summarized, items))
        return ListResponse(body.kind, tuple(items))

    def _watch(self, request: IncomingRequest, body: WatchRequest) -> None:
        if body.kind not in _WATCHABLE:
            raise RemoteProtocolError(f"{body.kind.name} cannot be watched", at=0)
        watch = OpenWatch(request, body.kind, is_summary=body.summary)
        self._watches.append(watch)
        self._connection.streams += 1
        everything = tuple(map(watch.shown, self._catalog.listing(body.kind)))
        self._connection.push(request, WatchResponse(body.kind, watch.next_epoch(), (), everything))

    def _on_change(self, kind: ObjectKind, changes: list[Change]) -> None:
        for watch in self._watches:
            if watch.kind is kind:
                shown = tuple(replace(each, item=watch.shown(each.item)) for each in changes)
                delta = WatchResponse(kind, watch.next_epoch(), shown)
                self._connection.push(watch.request, delta)


class OpenWatch:
    """One open watch of a connection."""

    def __init__(self, request: IncomingRequest, kind: ObjectKind, *, is_summary: bool) -> None:
        self.request = request
        self.kind = kind
        self._is_summary = is_summary
        self._epoch = 0

    def shown(self, item: Metadata) -> Metadata:
        """Return an object in the form that this watch requested."""
        return _summarized(item) if self._is_summary else item

    def next_epoch(self) -> int:
        self._epoch += 1
        return self._epoch


def _summarized(item: Metadata) -> Metadata:
    """Replace the payload of a SmartModule with its length."""
    if not isinstance(item.spec, specs.SmartModuleSpec):
        return item
    summary = specs.ModuleSummary(len(item.spec.payload))
    return replace(item, spec=replace(item.spec, summary=summary, payload=b""))


def _as_custom_spu(item: Metadata) -> Metadata:
    spec = item.spec
    custom = specs.CustomSpuSpec(
        spec.id,
        spec.public_endpoint,
        spec.private_endpoint,
        spec.rack,
        spec.public_endpoint_local,
    )
    return Metadata(item.name, custom, item.status)


def _unknown(name: str) -> StatusResponse:
    return StatusResponse(name, other("unknown admin object type"))


def _unsupported(name: str, kind: ObjectKind, verb: str) -> StatusResponse:
    text = f"the embedded broker does not support {verb} for {kind.name}"
    return StatusResponse(name, other(text), text)
