"""The Kafka broker of the tests ends with them, and is not needed by them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.inner_pytest import ROOT, run_tests
from tests.kafka.server import jars

CRASHES = """
import os, sys
from tests.kafka.server import KafkaServer

with KafkaServer() as server:
    print(server._pid, server._folder, flush=True)
    sys.stdin.readline()
    os._exit(1)
"""
NEEDS_KAFKA = """
from tests.kafka.conftest import kafka

def test_talks_to_kafka(kafka):
    raise AssertionError("it runs")
"""


@pytest.mark.skipif(jars() is None, reason="needs Apache Kafka")
def test_the_broker_ends_if_the_tests_crash() -> None:
    crashing = subprocess.Popen(
        [sys.executable, "-c", CRASHES],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert crashing.stdout is not None
    pid, folder = crashing.stdout.readline().split()
    assert Path(f"/proc/{pid}").exists() or sys.platform != "linux"
    assert Path(folder, "data").is_dir()
    crashing.communicate("\n")  # ends with the guard, which holds the same standard error
    assert crashing.returncode == 1
    assert not Path(f"/proc/{pid}").exists()
    assert not Path(folder).exists()


def test_without_the_jars_the_tests_are_skipped(tmp_path: Path) -> None:
    last = run_tests(tmp_path, NEEDS_KAFKA, STREAMKIT_TEST_KAFKA_JARS=str(tmp_path)).splitlines()[
        -1
    ]
    assert "1 skipped" in last
