"""What the tests of functions of frames have in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import polars

from streamkit import App
from streamkit.dataflow.dead_letters import Letter
from streamkit.dataflow.stream import Stream
from streamkit.errors import RowError


class Flight(msgspec.Struct):
    carrier: str
    delay: float | None = None
    number: int = 0


class Late(msgspec.Struct):
    carrier: str
    is_late: bool


FLIGHTS = [Flight("UA", 3.0, 1), Flight("B6", None, 2), Flight("AA", 20.0, 3)]
LATE = [Late("UA", False), Late("B6", False), Late("AA", True)]
TOO_LARGE = "the field 'number' is 9223372036854775808: it does not fit into 64 bits"
ROWS = [msgspec.structs.asdict(each) for each in FLIGHTS]


def app_of() -> tuple[App, Stream[Flight]]:
    app = App("frames")
    return app, app.stream("flights", Flight)


def results(app: App, source: Stream[Any], stage: Stream[Any], values: Iterable[Any]) -> list[Any]:
    with app.test() as job:
        job.send(source, *values)
        return job.output(stage)


def errors_in(letters: list[bytes]) -> list[tuple[str, str]]:
    found = [msgspec.json.decode(each, type=Letter) for each in letters]
    return [(each.error_type, each.error) for each in found]


def late(frame: polars.DataFrame) -> polars.DataFrame:
    return frame.select("carrier", is_late=polars.col("delay").fill_null(0.0) > 15)


def same_frame(frame: polars.DataFrame) -> polars.DataFrame:
    return frame


def refusing(frame: polars.DataFrame) -> polars.DataFrame:
    if "B6" in frame["carrier"]:
        raise RowError(frame["carrier"].to_list().index("B6"), "no B6 here")
    return frame
