"""The contract of connectors, for people who write their own; each connector has its module."""

from __future__ import annotations

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
from streamkit.dataflow.steps import RowFailed
from streamkit.record import Chunk

__all__ = [
    "AcknowledgedWriter",
    "AtOnceWriter",
    "Chunk",
    "ConnectorEnv",
    "Decoder",
    "Positions",
    "Prepared",
    "RowFailed",
    "Sink",
    "SinkWriter",
    "Source",
    "SourceFacts",
    "SourceReader",
    "WriteFailed",
]
