"""What a run has open: its sources, sinks, lookups and its store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from streamkit.dataflow.contracts import SinkWriter, SourceReader
from streamkit.dataflow.topology import Node
from streamkit.record import Value
from streamkit.runtime.called_sinks import called_functions
from streamkit.runtime.row_lookups import OpenLookup
from streamkit.state.states import States
from streamkit.state.store import Store

Port = SourceReader | SinkWriter | OpenLookup


@dataclass(frozen=True, slots=True)
class Ports:
    """The open sources, sinks and lookups of a graph, and the store of its positions."""

    readers: Mapping[Node, SourceReader]
    writers: Mapping[Node, SinkWriter]
    store: Store
    states: States = field(default_factory=States)
    lookups: Mapping[Node, OpenLookup] = field(default_factory=dict)

    def all(self) -> Iterator[tuple[Node, Port]]:
        """Return everything that is to be closed."""
        for ports in (self.readers, self.writers, self.lookups):
            yield from ports.items()

    def functions(self) -> dict[Node, Callable[..., Value]]:
        """Return what the calls of stages and sinks call that belong to this run."""
        looked_up = {node: lookup.call for node, lookup in self.lookups.items()}
        return {**called_functions(self.writers), **looked_up}
