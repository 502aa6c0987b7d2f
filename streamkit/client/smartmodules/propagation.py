"""SmartModules that a cluster has but an SPU does not know yet.

Source: docs/protocol/smartmodules.md, "Naming a module":
an SPU knows a new one about half a second later.
"""

from __future__ import annotations

from typing import Final

from streamkit.client.cluster import Cluster
from streamkit.errors import StreamKitError
from streamkit.protocol import specs
from streamkit.protocol.apis import LIST
from streamkit.protocol.control_plane import ListRequest

_PATIENCE_S: Final = 3.0


class SmartModulePropagation:
    """Distinguishes SmartModules that are still propagating from those that do not exist."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._first_missed_s: dict[str, float] = {}

    async def is_propagating(self, name: str) -> bool:
        """Whether the SC has a module that an SPU did not find; false after a few seconds."""
        now_s = self._cluster.clock.monotonic_s()
        first_s = self._first_missed_s.setdefault(name, now_s)
        if now_s - first_s > _PATIENCE_S:
            return False
        try:
            request = ListRequest(specs.SMARTMODULE, (name,), summary=True)
            return bool((await self._cluster.admin(LIST, request)).items)
        except StreamKitError:
            return False  # the error from the SPU is reported instead
