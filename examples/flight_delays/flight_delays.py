"""How late do flights leave New York: by hour and weather, in busy times, and by manufacturer?

It reads flights and weather from topics, and planes from a file. Event time is the scheduled
departure. It writes three topics:

* ``hourly-delays``: the departure delays of each airport and hour, with the weather of that hour.
* ``congestion``: times in which many flights of an airport left at least 30 minutes late.
* ``manufacturer-days``: flights and seats by the manufacturer of the plane, for each local day.

Run it in this folder; nothing else needs to be running:

    streamkit produce weather --file weather.jsonl.gz --key-field origin
    streamkit produce flights --file flights.jsonl.gz --key-field origin
    streamkit run flight_delays.py --once --drain
    streamkit consume congestion -B -d

To compare, ``python expected.py`` computes the same results without streamkit.
"""

from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from streamkit import App, Topic
from streamkit.aggregates import Count, Max, Mean, Sum
from streamkit.connectors.tables import CsvTable
from streamkit.windows import Session, Tumbling

app = App("flight-delays")


class Flight(msgspec.Struct):
    origin: str
    tailnum: str | None
    time_hour: datetime
    sched_dep_time: int
    dep_delay: int | None

    @property
    def scheduled(self) -> datetime:
        """The scheduled departure: a local time of 517 is 17 minutes after the full hour."""
        return self.time_hour + timedelta(minutes=self.sched_dep_time % 100)

    @property
    def is_late(self) -> bool:
        return self.dep_delay is not None and self.dep_delay >= 30


class Weather(msgspec.Struct):
    time_hour: datetime
    temp: float | None
    wind_speed: float | None
    precip: float | None
    visib: float | None


class Plane(msgspec.Struct):
    tailnum: str
    manufacturer: str
    seats: int


# At night no flight leaves for up to 6.4 hours. A topic that is quiet for so long is not idle yet.
QUIET = timedelta(hours=8)

# Flights come in the order in which they left; the longest delay of the year is below 22 hours.
flights = app.stream(
    "flights",
    Flight,
    event_time=lambda flight: flight.scheduled,
    out_of_order=timedelta(days=1),
    idle=QUIET,
)
weather = app.table("weather", Weather, event_time=lambda weather: weather.time_hour, idle=QUIET)
planes = app.table(
    CsvTable(Path(__file__).with_name("planes.csv")), Plane, key=lambda plane: plane.tailnum
)


# --- delays by hour, with the weather of the hour


class Delays(msgspec.Struct, rename={"key": "origin"}):
    key: str
    window_start: datetime
    flights: int
    departed: int
    mean_delay: float | None
    max_delay: int | None


class HourlyDelays(msgspec.Struct):
    delays: Delays
    weather: Weather | None


hours = (
    flights.key_by(lambda flight: flight.origin)
    .window(Tumbling(hours=1))
    .aggregate(
        Delays,
        flights=Count(),
        departed=Count(lambda flight: flight.dep_delay),
        mean_delay=Mean(lambda flight: flight.dep_delay),
        max_delay=Max(lambda flight: flight.dep_delay),
        name="hours",
    )
)
# The event time of a result is the last millisecond of its hour: it gets the weather of its hour.
hourly = hours.lookup(
    weather,
    on=lambda delays: delays.key,
    combine=HourlyDelays,
    how="left",
    as_of=True,
    name="weather-of-hour",
)
hourly.to(Topic("hourly-delays", HourlyDelays))


# --- times of congestion


class Congestion(msgspec.Struct, rename={"key": "origin"}):
    key: str
    window_start: datetime
    window_end: datetime
    flights: int
    mean_delay: float


congestion = (
    flights.filter(lambda flight: flight.is_late, name="late")
    .key_by(lambda flight: flight.origin)
    .window(Session(gap=timedelta(minutes=20)))
    .aggregate(
        Congestion,
        flights=Count(),
        mean_delay=Mean(lambda flight: flight.dep_delay),
        name="sessions",
    )
)
congestion.to(Topic("congestion", Congestion))


# --- flights by manufacturer and local day


class PlaneFlight(msgspec.Struct):
    flight: Flight
    plane: Plane | None


class ManufacturerDay(msgspec.Struct, rename={"key": "manufacturer"}):
    key: str
    window_start: datetime
    window_end: datetime
    flights: int
    seats: int


manufacturer_days = (
    flights.lookup(planes, on=lambda flight: flight.tailnum or "", combine=PlaneFlight, how="left")
    .key_by(lambda flown: flown.plane.manufacturer if flown.plane else "unknown")
    .window(Tumbling(days=1, time_zone="America/New_York"))
    .aggregate(
        ManufacturerDay,
        flights=Count(),
        seats=Sum(lambda flown: flown.plane.seats if flown.plane else 0),
        name="days",
    )
)
manufacturer_days.to(Topic("manufacturer-days", ManufacturerDay))
