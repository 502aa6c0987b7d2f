"""Generates its own input as long as it runs."""

import itertools
from collections.abc import Iterator

from streamkit import App

app = App("ticking")


@app.source
def ticks(resume: int | None) -> Iterator[tuple[int, int]]:
    for number in itertools.count(0 if resume is None else resume + 1):
        yield number, number


ticks.map(str).to("ticks")
