"""A job keeps its embedded broker running, and restarts it if it is killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from streamkit.broker.attach import attach
from streamkit.sync import Client
from tests.stop.running import Job

APP = """\
from streamkit import App

app = App("copying")
app.stream("words", bytes).to("copies")
"""


def produce(data_dir: Path, values: list[bytes]) -> int:
    """Write values to the broker of a folder; return its process id."""
    with attach(data_dir) as attachment, Client.connect(attachment.sc_address) as client:
        if not client.admin.list_topics():
            client.admin.create_topic("words")
        with client.producer("words") as producer:
            producer.send_many(values)
        return attachment.pid


def copies(data_dir: Path) -> list[bytes]:
    with attach(data_dir) as attachment, Client.connect(attachment.sc_address) as client:
        return [record.value for record in client.consumer("copies", until_end=True)]


def test_a_job_restarts_its_embedded_broker_and_loses_nothing(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    app = tmp_path / "app.py"
    app.write_text(APP)
    before, after = [b"%d" % each for each in range(500)], [b"more", b"and more"]
    with attach(data_dir) as held:
        produce(data_dir, before)
        with Job(app, tmp_path, "--embedded", "--data-dir", str(data_dir)) as job:
            job.wait_for(lambda event: event.get("records_in") == len(before))
            os.kill(held.pid, signal.SIGKILL)
            job.wait_for_note("the embedded broker runs again")
            assert produce(data_dir, after) != held.pid
            job.wait_for(lambda event: event.get("records_in") == len(before) + len(after))
            job.signal()
            assert job.wait() == 0
    assert copies(data_dir) == before + after
