"""Copies numbered rows between Fluvio and Kafka, both ways.

SERVERS are those of Kafka; FROM and TO are its topics.
"""

import os

import msgspec

from streamkit import App
from streamkit.connectors.kafka import KafkaSink, KafkaSource
from tests.stop.jobs.aim import passing

SERVERS = os.environ["SERVERS"]
FROM = os.environ.get("FROM", "in")
TO = os.environ.get("TO", "out")
QUICK = {"reconnect.backoff.max.ms": 200}
_COST = 1_000  # some microseconds of work per row, so that the job has a backlog for a while

app = App("copying-kafka")


class Numbered(msgspec.Struct):
    lane: int
    number: int


@app.source("numbers")
def to_kafka(row: Numbered) -> Numbered:
    passing("fluvio")
    sum(range(_COST))
    return row


@app.source(KafkaSource(SERVERS, FROM, tombstones="skip", config=QUICK))
def to_fluvio(row: Numbered) -> Numbered:
    passing("kafka")
    sum(range(_COST))
    return row


to_kafka.to(KafkaSink(SERVERS, TO, config=QUICK))
to_fluvio.to("copied")
