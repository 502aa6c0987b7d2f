"""The contract of connectors, for people who write their own; each connector has its module."""

from __future__ import annotations

from streamkit.connectors.transactional import StoredCommit, TransactionalWriter
from streamkit.dataflow.contracts import (
    AcknowledgedWriter,
    AtOnceWriter,
    ConnectorEnv,
    Decoder,
    Positions,
    Prepared,
    Sink,
    SinkWriter,
    Source,
    SourceFacts,
    SourceReader,
    WriteFailed,
)
from streamkit.dataflow.lookup_tables import LookupTable, RowFinder
from streamkit.dataflow.steps import RowFailed
from streamkit.record import Chunk

__all__ = [
    "AcknowledgedWriter",
    "AtOnceWriter",
    "Chunk",
    "ConnectorEnv",
    "Decoder",
    "LookupTable",
    "Positions",
    "Prepared",
    "RowFailed",
    "RowFinder",
    "Sink",
    "SinkWriter",
    "Source",
    "SourceFacts",
    "SourceReader",
    "StoredCommit",
    "TransactionalWriter",
    "WriteFailed",
]
