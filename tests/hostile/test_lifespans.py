"""A lifespan function that misbehaves: an error names it, and no record is lost or repeated."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from streamkit import App, Context
from streamkit.errors import StreamKitError
from streamkit.runtime.shutdown import EXIT_CLEAN, EXIT_FAILED, EXIT_LATE
from tests.hostile.behaviours import CANCELS, HARMLESS, RAISES, Behaviour
from tests.hostile.graphs import TOPIC
from tests.hostile.running import Outcome, Place
from tests.hostile.test_call_rules import NUMBERS, ONCE, run

_names = itertools.count()


def new_job(recorded: list[int]) -> App:
    app = App(f"lifespans-{next(_names)}")

    @app.stage(app.stream(TOPIC, int))
    async def passed(value: int, context: Context[bytes]) -> int:
        assert context.lifespan == "open"
        return value

    app.sink(passed, name="recorder")(recorded.append)
    return app


@pytest.mark.parametrize("moment", ["enter", "leave"])
@pytest.mark.parametrize("behaviour", [*RAISES, *HARMLESS], ids=lambda each: each.name)
def test_a_hostile_lifespan_loses_and_repeats_nothing(
    place: Place, tmp_path: Path, behaviour: Behaviour, moment: str
) -> None:
    recorded, is_hostile = list[int](), [True]
    app = new_job(recorded)

    @app.lifespan
    async def hostile() -> AsyncIterator[str]:
        if is_hostile and moment == "enter":
            behaviour.act()
        yield "open"
        if is_hostile and moment == "leave":
            behaviour.act()

    options = replace(ONCE, data_dir=tmp_path)
    outcome = run(place, app, options)
    if behaviour.words is None:
        assert outcome.code == EXIT_CLEAN, outcome.error
    else:
        assert outcome.code == EXIT_FAILED
        assert f"the lifespan of {app.name!r} failed: " in outcome.error
        assert behaviour.words in outcome.error
        assert "tests/hostile/" in outcome.error
        assert "\x1b" not in outcome.error
        assert not outcome.reports.notes
    is_hostile.clear()
    assert run(place, app, options).code == EXIT_CLEAN
    assert recorded == NUMBERS


@pytest.mark.parametrize("moment", ["enter", "leave"])
def test_a_lifespan_that_cancels_its_own_task_does_not_end_the_job(
    place: Place, moment: str
) -> None:
    recorded = list[int]()
    app = new_job(recorded)

    @app.lifespan
    async def hostile() -> AsyncIterator[str]:
        if moment == "enter":
            CANCELS.act()
        yield "open"
        if moment == "leave":
            CANCELS.act()

    assert run(place, app).code == EXIT_CLEAN
    assert recorded == NUMBERS


def test_a_lifespan_that_swallows_errors_does_not_hide_that_of_the_start(place: Place) -> None:
    app = App(f"lifespans-{next(_names)}")

    @app.lifespan
    async def hostile() -> AsyncIterator[str]:
        try:
            yield "open"
        except BaseException:
            pass

    app.sink(app.stream("a-topic-that-is-missing", int), name="recorder")(lambda value: None)
    prepared, reports = place.run(app, options=replace(ONCE, create_topics=False))
    outcome: Outcome = place.finish(prepared, reports)
    assert outcome.code not in (EXIT_CLEAN, None)
    assert "a-topic-that-is-missing" in outcome.error


def test_a_task_group_may_be_open_for_the_whole_lifespan(place: Place) -> None:
    recorded = list[int]()
    app = new_job(recorded)
    left = list[str]()

    @app.lifespan
    async def grouped() -> AsyncIterator[str]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep_forever)
            yield "open"
            tasks.cancel_scope.cancel()
        left.append("left")

    assert run(place, app).code == EXIT_CLEAN
    assert recorded == NUMBERS
    assert left == ["left"]


def test_a_lifespan_that_does_not_end_is_given_up_at_the_deadline(place: Place) -> None:
    recorded = list[int]()
    app = new_job(recorded)

    @app.lifespan
    async def hangs() -> AsyncIterator[str]:
        yield "open"
        await asyncio.sleep(60)

    outcome = run(place, app, replace(ONCE, stop_deadline_s=0.5))
    assert outcome.code == EXIT_LATE
    assert "did not end within 0.5 s" in outcome.error
    assert recorded == NUMBERS


@pytest.mark.parametrize("yields", [0, 2])
def test_a_lifespan_must_yield_once(place: Place, yields: int) -> None:
    recorded = list[int]()
    app = new_job(recorded)

    @app.lifespan
    async def odd() -> AsyncIterator[str]:
        for _ in range(yields):
            yield "open"

    outcome = run(place, app)
    assert outcome.code == EXIT_FAILED
    assert "the lifespan of" in outcome.error
    assert recorded == (NUMBERS if yields else [])


def test_errors_of_a_lifespan_are_errors_of_streamkit(place: Place) -> None:
    app = new_job([])

    @app.lifespan
    async def fails() -> AsyncIterator[str]:
        raise OSError("no service")
        yield "open"

    prepared, _ = place.run(app, options=ONCE)
    with pytest.raises(StreamKitError, match="no service"):
        anyio.run(prepared.main)
