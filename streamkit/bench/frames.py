"""`frames`: one computation with frames, record by record, and with the library by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from random import Random
from typing import Any, Final

import msgspec
import numpy
import pandas
import polars

from streamkit.app import App
from streamkit.bench.in_memory import kept, run_in_memory
from streamkit.bench.result import Comparison, Result, Scale, Timing, WrongOutput
from streamkit.bench.timing import best_of, inputs_not_collected, measured
from streamkit.frames.functions import Frames
from streamkit.frames.kinds import PANDAS, POLARS, FrameKind
from streamkit.limits import CHUNK_RECORDS_MAX

# As many rows as a slice has at most, so that all sides compute the same frames.
BATCH: Final = CHUNK_RECORDS_MAX
_EARTH_KM: Final = 6_371.0
_LONG_KM: Final = 2_000.0
_TOLERANCE: Final = 1e-9
_SEED: Final = 7


class Flight(msgspec.Struct):
    """A flight from one airport to another."""

    carrier: str
    latitude: float
    longitude: float
    to_latitude: float
    to_longitude: float
    air_minutes: float
    delay: float | None


class Leg(msgspec.Struct):
    """What is computed of a flight."""

    carrier: str
    km: float
    km_per_h: float
    risk: float
    is_long: bool


def run(scale: Scale) -> Result:
    flights = flights_of(scale.records)
    expected: dict[str, list[Any]] = {
        "legs": list(map(leg, flights)),
        "scores": list(map(score, flights)),
    }

    def checked(name: str, side: Callable[..., tuple[list[Any], Timing]]) -> Callable[[], Timing]:
        def timed() -> Timing:
            with inputs_not_collected():
                results, timing = side(flights)
            _check(results, expected["scores" if name.startswith("model") else "legs"])
            return timing

        return timed

    best = best_of(scale.rounds, {name: checked(name, side) for name, side in _SIDES.items()})
    comparisons = [
        Comparison("polars", best["polars job"], best["record job"], "a stage of single records"),
        Comparison("pandas", best["pandas job"], best["record job"], "a stage of single records"),
        Comparison(
            "model", best["model frames"], best["model record"], "a stage of single records"
        ),
        Comparison("polars, job", best["polars job"], best["polars loop"], "a loop with polars"),
        Comparison("pandas, job", best["pandas job"], best["pandas loop"], "a loop with pandas"),
        Comparison("polars, rows", best["polars"], best["polars loop"], "a loop with polars"),
        Comparison("pandas, rows", best["pandas"], best["pandas loop"], "a loop with pandas"),
    ]
    work = f"{scale.records:,} flights: distance, speed and risk, frames of {BATCH:,} rows"
    rate = scale.records / best["polars job"].seconds
    return Result("frames", work, comparisons, [f"{rate:,.0f} records per second with polars"])


# --- the computation -----------------------------------------------------------------


def leg(flight: Flight) -> Leg:
    """Compute one flight."""
    start, end = math.radians(flight.latitude), math.radians(flight.to_latitude)
    across = math.radians(flight.to_longitude - flight.longitude)
    half = (
        math.sin((end - start) / 2) ** 2
        + math.cos(start) * math.cos(end) * math.sin(across / 2) ** 2
    )
    km = 2 * _EARTH_KM * math.asin(math.sqrt(half))
    km_per_h = km / (flight.air_minutes / 60)
    delay = 0.0 if flight.delay is None else flight.delay
    risk = 1 / (1 + math.exp(2 - 0.03 * delay - 0.0002 * km + 0.001 * km_per_h))
    return Leg(flight.carrier, km, km_per_h, risk, km > _LONG_KM)


def legs_of_polars(frame: polars.DataFrame) -> polars.DataFrame:
    """Compute a frame of flights."""
    start, end = polars.col("latitude").radians(), polars.col("to_latitude").radians()
    across = (polars.col("to_longitude") - polars.col("longitude")).radians()
    half = ((end - start) / 2).sin() ** 2 + start.cos() * end.cos() * (across / 2).sin() ** 2
    km, km_per_h = polars.col("km"), polars.col("km_per_h")
    delay = polars.col("delay").fill_null(0.0)
    return (
        frame.with_columns(km=2 * _EARTH_KM * half.sqrt().arcsin())
        .with_columns(km_per_h=km / (polars.col("air_minutes") / 60))
        .select(
            "carrier",
            "km",
            "km_per_h",
            risk=1 / (1 + (2 - 0.03 * delay - 0.0002 * km + 0.001 * km_per_h).exp()),
            is_long=km > _LONG_KM,
        )
    )


def legs_of_pandas(frame: pandas.DataFrame) -> pandas.DataFrame:
    """Compute a frame of flights."""
    start, end = numpy.radians(frame["latitude"]), numpy.radians(frame["to_latitude"])
    across = numpy.radians(frame["to_longitude"] - frame["longitude"])
    half = (
        numpy.sin((end - start) / 2) ** 2
        + numpy.cos(start) * numpy.cos(end) * numpy.sin(across / 2) ** 2
    )
    km = 2 * _EARTH_KM * numpy.arcsin(numpy.sqrt(half))
    km_per_h = km / (frame["air_minutes"] / 60)
    exponent = 2 - 0.03 * frame["delay"].fillna(0.0) - 0.0002 * km + 0.001 * km_per_h
    columns = {"carrier": frame["carrier"], "km": km, "km_per_h": km_per_h}
    risk, is_long = 1 / (1 + numpy.exp(exponent)), km > _LONG_KM
    return pandas.DataFrame({**columns, "risk": risk, "is_long": is_long})


class Score(msgspec.Struct):
    """What a model says of a flight."""

    carrier: str
    score: float


def score(flight: Flight) -> Score:
    """Apply the model to one flight: a layer of units, and their weighted sum."""
    inputs = (flight.latitude, flight.longitude, flight.to_latitude, flight.to_longitude)
    total = 0.0
    for weights, weight in _UNITS:
        unit = sum(one * other for one, other in zip(weights, inputs, strict=True))
        total += max(unit, 0.0) * weight
    return Score(flight.carrier, total)


def scores_of_pandas(frame: pandas.DataFrame) -> pandas.DataFrame:
    """Apply the model to a frame of flights."""
    inputs = frame[["latitude", "longitude", "to_latitude", "to_longitude"]].to_numpy()
    units = numpy.maximum(inputs @ _WEIGHTS.T, 0.0)
    return pandas.DataFrame({"carrier": frame["carrier"], "score": units @ _OUTPUT})


def _units() -> list[tuple[tuple[float, ...], float]]:
    draw = Random(_SEED).uniform
    return [(tuple(draw(-1, 1) for _ in range(4)), draw(-1, 1)) for _ in range(16)]


_UNITS: Final = _units()
_WEIGHTS: Final = numpy.array([weights for weights, _ in _UNITS])
_OUTPUT: Final = numpy.array([weight for _, weight in _UNITS])


def flights_of(count: int) -> list[Flight]:
    """Return flights between random places."""
    chance = Random(_SEED)
    draw = chance.uniform
    return [
        Flight(
            f"C{number % 20}",
            draw(-80, 80),
            draw(-180, 180),
            draw(-80, 80),
            draw(-180, 180),
            draw(40, 900),
            None if number % 10 == 0 else draw(-20, 200),
        )
        for number in range(count)
    ]


# --- the sides -----------------------------------------------------------------------


def _job(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Return a side that runs a whole job with one stage."""

    def run_job(flights: list[Flight]) -> tuple[list[Any], Timing]:
        app = App("bench-frames")

        @app.source
        def source() -> Iterator[Flight]:
            yield from ()

        decorate: Any = app.stage(source, name="legs", **options)
        results = kept(app, decorate(function))
        watch = run_in_memory(app, source.node, flights)
        return results, watch.timing(len(flights))

    return run_job


def _converted(function: Callable[..., Any], kind: FrameKind) -> Callable[..., Any]:
    """Return a side that only does what a call does, without a job."""

    def run_calls(flights: list[Flight]) -> tuple[list[Any], Timing]:
        frames = Frames(kind, Flight, Leg, is_row_by_row=True)
        legs: list[Leg] = []
        with measured() as watch:
            for start in range(0, len(flights), BATCH):
                rows = flights[start : start + BATCH]
                legs += frames.results(function(frames.given(rows)), len(rows))
        return legs, watch.timing(len(flights))

    return run_calls


def _by_hand(
    function: Callable[..., Any], make: Callable[..., Any], rows_of: Callable[..., Any]
) -> Callable[..., Any]:
    """Return a side that is a loop as most programs have it."""

    def run_loop(flights: list[Flight]) -> tuple[list[Any], Timing]:
        legs: list[Leg] = []
        with measured() as watch:
            for start in range(0, len(flights), BATCH):
                rows = flights[start : start + BATCH]
                columns = {
                    name: [getattr(row, name) for row in rows] for name in Flight.__struct_fields__
                }
                legs += [Leg(*row) for row in rows_of(function(make(columns)))]
        return legs, watch.timing(len(flights))

    return run_loop


def _rows_of_pandas(frame: pandas.DataFrame) -> Iterator[tuple[Any, ...]]:
    return zip(*(frame[name].tolist() for name in frame), strict=True)


_SIDES: Final = {
    "record job": _job(leg),
    "polars job": _job(legs_of_polars, batch=BATCH, output_type=Leg),
    "pandas job": _job(legs_of_pandas, batch=BATCH, output_type=Leg),
    "model record": _job(score),
    "model frames": _job(scores_of_pandas, batch=BATCH, output_type=Score),
    "polars": _converted(legs_of_polars, POLARS),
    "pandas": _converted(legs_of_pandas, PANDAS),
    "polars loop": _by_hand(legs_of_polars, polars.DataFrame, polars.DataFrame.iter_rows),
    "pandas loop": _by_hand(legs_of_pandas, pandas.DataFrame, _rows_of_pandas),
}


def _check(results: list[Any], expected: list[Any]) -> None:
    """Compare results; the libraries round sines and exponents differently in the last place.

    Raises:
        WrongOutput: They differ.
    """
    if len(results) != len(expected):
        raise WrongOutput(f"{len(expected)} results were expected, but there are {len(results)}")
    for number, (found, right) in enumerate(zip(results, expected, strict=True)):
        numbers = zip(msgspec.structs.astuple(found), msgspec.structs.astuple(right), strict=True)
        is_equal = type(found) is type(right) and all(
            math.isclose(one, other, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
            if type(one) is float
            else one == other
            for one, other in numbers
        )
        if not is_equal:
            raise WrongOutput(f"result {number} is {found}, not {right}")
