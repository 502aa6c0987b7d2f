"""Invalid sources."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from streamkit import App, Topic

from ..rows import Flight, Late

app = App("sources")


@app.source  # error: source
def bare_on_a_plain_function(flight: Flight) -> Flight:
    return flight


@app.source  # error: source
def bare_on_a_generator_with_a_parameter(flight: Flight) -> Iterator[Flight]:
    yield flight


@app.source  # error: source
async def bare_on_a_coroutine() -> int:
    return 1


@app.source  # error: source
def resume_without_positions(resume: int | None) -> Iterator[str]:
    yield "a value"


@app.source  # error: source
def resume_of_another_type(resume: int | None) -> Iterator[tuple[str, float]]:
    yield "a position", 1.0


@app.source  # error: source
async def resume_without_positions_async(resume: int | None) -> AsyncIterator[str]:
    yield "a value"


@app.source("flights", start="middle")  # error: source
def bad_start(flight: Flight) -> Flight:
    return flight


@app.source("flights", colour="red")  # error: source
def unknown_option(flight: Flight) -> Flight:
    return flight


@app.source("flights", isolation="none")  # error: source
def bad_isolation(flight: Flight) -> Flight:
    return flight


@app.source("flights")  # error: Takes / too few positional
def no_parameter() -> int:
    return 1


@app.source(Topic("flights", Flight))  # error: Flight
def another_type_than_the_topic(row: Late) -> Late:
    return row


app.stream("flights", Flight, value=42)  # error: stream
app.stream("flights", Flight, partitions=0)  # error: stream
app.stream("flights")  # error: stream
app.stream("flights", Flight, start="middle")  # error: stream
app.stream("flights", Flight("UA", 1, None))  # error: stream
app.stream(Flight)  # error: stream
