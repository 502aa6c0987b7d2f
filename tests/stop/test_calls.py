"""Kills and stops of a job with calls to a service that fails, hangs and drops connections."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator

import pytest

from streamkit.dataflow.dead_letters import Letter, decode_letter
from streamkit.runtime.shutdown import EXIT_CLEAN
from tests.http_service.faults import Fault
from tests.http_service.running import HttpService
from tests.stop.job_environment import (
    Place,
    Row,
    assert_first_occurrences_ascend,
)
from tests.stop.running import Job

LANES = 3
# Every row with such a number is refused by the service, for ever.
REFUSED_EVERY = 29
FAULTS = (
    Fault("status", "busy", status=503, share_of_keys=0.08, first=2),
    Fault("status", "later", status=429, retry_after_s=1, share_of_keys=0.01, first=1),
    Fault("drop", share_of_requests=0.02),
    Fault("cut", share_of_requests=0.01),
    Fault("truncated-json", share_of_requests=0.01),
    Fault("hang", share_of_keys=0.005, first=1),
    Fault("slow", seconds=0.05, share_of_requests=0.02),
)


def is_refused(number: int) -> bool:
    return number % REFUSED_EVERY == 7


def refusing(count: int) -> Fault:
    keys = [f"{lane}-{n}" for lane in range(LANES) for n in range(count) if is_refused(n)]
    return Fault("status", "refused", status=404, keys=tuple(keys))


@pytest.fixture
def service() -> Iterator[HttpService]:
    with HttpService() as found:
        yield found


class Calling:
    """The job, its service and its rows."""

    def __init__(self, place: Place, service: HttpService, count: int) -> None:
        self.place = place
        self.service = service
        self.count = count
        place.produce_rows("numbers", lanes=LANES, count=count)

    def job(self, *options: str, **variables: str) -> Job:
        return self.place.job("calling.py", *options, SERVICE=self.service.url, **variables)

    def run(self, *options: str, **variables: str) -> Job:
        return self.place.run("calling.py", *options, SERVICE=self.service.url, **variables)

    def letters(self) -> list[Letter]:
        return list(map(decode_letter, self.place.values("refused")))

    def posted(self) -> list[Row]:
        return self.place.rows_of_file("posted")

    def assert_all_is_accounted_for(self, *, repeats: bool) -> int:
        """Assert that each row is written or put aside; return how many came more than once."""
        rows = {(lane, number) for lane in range(LANES) for number in range(self.count)}
        refused = {row for row in rows if is_refused(row[1])}
        letters = self.letters()
        found = {(each.partition, each.offset) for each in letters}
        assert found == refused, "the offset of a row is its number"
        assert all(each.error_type == "Refused" and each.attempts >= 1 for each in letters)
        posted = self.posted()
        partitions = self.place.rows_by_partition("copies")
        copied = [row for partition in partitions.values() for row in partition]
        accepted = self.service.tally.rows
        assert set(posted) == set(copied) == rows - refused
        assert {f"{lane}-{number}" for lane, number in rows - refused} == set(accepted)
        assert_first_occurrences_ascend(posted)
        for partition in partitions.values():
            assert_first_occurrences_ascend(partition)
        extra = [len(letters) - len(refused), len(copied) - len(set(copied))]
        extra.append(len(posted) - len(set(posted)))
        if not repeats:
            assert extra == [0, 0, 0]
        return sum(extra)


@pytest.mark.timeout(900)
def test_a_repeatedly_killed_job_with_calls_loses_nothing_and_keeps_the_order(
    place: Place, service: HttpService, is_deep: bool
) -> None:
    kills = 50 if is_deep else 6
    count = kills * 200 // LANES
    service.use(refusing(count), *FAULTS)
    calling = Calling(place, service, count)
    chosen = random.Random(kills)
    for _ in range(kills):
        where = chosen.choice(["look up", "look up", "post"])
        aim = f"{where}:{chosen.randint(20, 190)}:{int(signal.SIGKILL)}"
        with calling.job("--commit-interval", "50ms", AIM=aim) as job:
            assert job.wait() == -signal.SIGKILL, job.words
    rest = calling.run("--once")
    assert rest.process.returncode == EXIT_CLEAN, rest.words
    assert rest.ended["pending"] == 0
    assert calling.assert_all_is_accounted_for(repeats=True), "no kill has interrupted any work"
    assert service.tally.fired["hang"], "the service has not hung"
    nothing = calling.run("--once")
    assert nothing.process.returncode == EXIT_CLEAN, nothing.words
    assert (nothing.ended["records_in"], nothing.ended["pending"]) == (0, 0)


@pytest.mark.timeout(600)
def test_a_job_stopped_with_calls_in_progress_repeats_nothing(
    place: Place, service: HttpService, is_deep: bool
) -> None:
    stops = 20 if is_deep else 2
    count = stops * 300 // LANES
    service.use(refusing(count), *FAULTS)
    calling = Calling(place, service, count)
    chosen = random.Random(stops)
    pending = 0
    for _ in range(stops):
        aim = f"look up:{chosen.randint(50, 250)}:{int(signal.SIGTERM)}"
        with calling.job("--commit-interval", "100ms", AIM=aim) as job:
            assert job.wait() == EXIT_CLEAN, job.words
        pending += job.ended["pending"]
        assert job.ended["reason"] == "stopped"
    assert pending, "no stop has come while records waited"
    rest = calling.run("--once")
    assert rest.process.returncode == EXIT_CLEAN, rest.words
    assert rest.ended["pending"] == 0
    calling.assert_all_is_accounted_for(repeats=False)


def test_a_stop_stores_parked_retries_and_records_behind_an_open_circuit(
    place: Place, service: HttpService
) -> None:
    count = 100
    service.use(refusing(count))
    service.go_down("unavailable")
    calling = Calling(place, service, count)
    variables = {"OPEN_AFTER": "5", "DELAY_S": "0.1", "ATTEMPTS": "3"}
    for _ in range(2):
        with calling.job("--commit-interval", "100ms", **variables) as job:
            job.wait_for_note("the circuit is open")
            sent_s = job.signal(signal.SIGTERM)
            assert job.wait() == EXIT_CLEAN, job.words
        assert job.ended_s - sent_s < 10
        assert job.ended["pending"] + job.ended["lag"] == LANES * count
    assert not calling.letters(), "an outage uses up no attempts"
    service.recover()
    rest = calling.run("--once", **variables)
    assert rest.process.returncode == EXIT_CLEAN, rest.words
    calling.assert_all_is_accounted_for(repeats=False)


def test_once_waits_for_retries(place: Place, service: HttpService) -> None:
    count = 24
    busy = Fault("status", "busy", status=503, retry_after_s=1, share_of_keys=0.15, first=1)
    service.use(refusing(count), busy)
    calling = Calling(place, service, count)
    job = calling.run("--once")
    assert job.process.returncode == EXIT_CLEAN, job.words
    assert job.ended["reason"] == "reached the end"
    assert (job.ended["pending"], job.ended["lag"]) == (0, 0)
    assert service.tally.fired["busy"] > 5
    calling.assert_all_is_accounted_for(repeats=False)


def test_a_call_that_hangs_is_given_up_at_the_deadline_and_made_again(
    place: Place, service: HttpService
) -> None:
    count = 20
    hang = Fault("hang", keys=("1-5",))
    service.use(refusing(count), hang)
    calling = Calling(place, service, count)
    for _ in range(2):
        with calling.job("--stop-deadline", "3s", CALL_TIMEOUT_S="600") as job:
            service.wait_for(lambda tally: tally.fired["hang"] > 0)
            sent_s = job.signal(signal.SIGTERM)
            assert job.wait() == 3, job.words
            assert job.ended_s - sent_s < 10
        assert job.ended["reason"] == "stopped at the deadline"
        service.reset()
    service.use(refusing(count))
    rest = calling.run("--once")
    assert rest.process.returncode == EXIT_CLEAN, rest.words
    assert len(set(calling.posted())) == LANES * sum(
        not is_refused(number) for number in range(count)
    )
    assert_first_occurrences_ascend(calling.posted())
