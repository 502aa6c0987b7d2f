"""What a task gets of the world: which job it is, time, and chance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from streamkit.env import Clock, random_bits
from streamkit.runtime.letters import JobFacts, Poison
from streamkit.runtime.pending_queue import Chances


@dataclass(slots=True)
class Lifespan:
    """What the function of ``@app.lifespan`` has yielded; None before, or without one."""

    value: object = None


@dataclass(frozen=True, slots=True)
class TaskEnv:
    """The job, the time and chance, as a task gets them.

    ``now_s`` returns the monotonic time and ``wall_ms`` that since 1970.
    """

    job: JobFacts = field(default_factory=JobFacts)
    now_s: Callable[[], float] = lambda: 0.0
    wall_ms: Callable[[], int] = lambda: 0
    chances: Chances = field(default_factory=Chances)
    lifespan: Lifespan = field(default_factory=Lifespan)
    poison: Poison | None = None

    @classmethod
    def of_clock(
        cls, clock: Clock, job: JobFacts, lifespan: Lifespan, poison: Poison | None
    ) -> TaskEnv:
        """Return the world of a real run."""
        return cls(
            job,
            clock.monotonic_s,
            clock.wall_ms,
            Chances(_random_share, lambda: clock.wall_ms() / 1_000),
            lifespan,
            poison,
        )


def _random_share() -> float:
    return random_bits(32) / 2**32
