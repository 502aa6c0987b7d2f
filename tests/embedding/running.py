"""Jobs on the embedded broker of one data folder, and programs in processes of their own."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from streamkit import App, Topic
from streamkit.errors import TopicNotFound
from streamkit.run import RunKeywords
from streamkit.sync import Client
from tests.stop.running import PATIENCE_S, PROJECT

COUNT = 40
NUMBERS = list(range(COUNT))
TOPIC = "numbers"
_names = itertools.count()


class Place:
    """A data folder with a running broker and the numbers in a topic."""

    def __init__(self, folder: Path, address: str) -> None:
        self.folder = folder
        self.address = address
        # A long interval, so only the stop commits.
        self.options: RunKeywords = {
            "embedded": True,
            "data_dir": folder / "data",
            "commit_interval": 60,
            "stop_deadline": 10,
        }
        with Client.connect(address) as client:
            client.admin.create_topic(TOPIC)
            with client.producer(TOPIC) as producer:
                producer.send_many([b"%d" % number for number in NUMBERS])

    def app(self, change: Callable[[int], int] = lambda number: number) -> App:
        """Return a job that copies the numbers to a topic ``out-NAME``."""
        app = App(f"embedded-{next(_names)}")
        stage = app.stream(TOPIC, int).map(change, name="change")
        stage.to(Topic(f"out-{app.name}", int), name="copies")
        return app

    def values(self, app: App | str) -> list[int]:
        """Return what a job has written; it may not have created its topic yet."""
        name = app if isinstance(app, str) else app.name
        with suppress(TopicNotFound), Client.connect(self.address) as client:
            consumer = client.consumer(f"out-{name}", start="beginning", until_end=True)
            return [int(value) for chunk in consumer.chunks() for value in chunk.values]
        return []

    def rest(self, app: App) -> int:
        """Run the job once more to the end; return how many records it read."""
        with app.start(**(self.options | {"once": True})) as job:
            assert job.wait(PATIENCE_S) == 0
        return job.progress.records_in

    def program(self, name: str, **variables: str) -> Program:
        return Program(name, self.folder, variables)


class Program:
    """A program of ``programs/`` in a process of its own."""

    def __init__(self, name: str, folder: Path, variables: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, Path(__file__).parent / "programs" / name],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(PROJECT), "PYTHONUNBUFFERED": "1"} | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.printed = ""
        self.errors = ""

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def wait_for(self, line: str) -> None:
        """Wait until the program prints a line."""
        assert self.process.stdout is not None, "it is a pipe"
        for printed in self.process.stdout:
            self.printed += printed
            if printed.strip() == line:
                return
        raise AssertionError(f"it ended without {line!r}: {self.printed} {self.end_text()}")

    def wait(self) -> int:
        """Wait for the end of the program; return its exit code."""
        printed, self.errors = self.process.communicate(timeout=PATIENCE_S)
        self.printed += printed
        return self.process.returncode

    def end_text(self) -> str:
        self.wait()
        return self.printed + self.errors


def wait_until(is_so: Callable[[], object]) -> None:
    """Wait until a condition is true."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline_s, "it did not become true in time"
        time.sleep(0.01)
