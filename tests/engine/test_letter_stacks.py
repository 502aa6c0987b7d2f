"""The stack in a dead letter is that of the error of its record."""

from __future__ import annotations

import json

from streamkit import App
from streamkit.policies import dead_letter


def test_the_stack_in_a_letter_does_not_show_the_error_of_an_earlier_record() -> None:
    app = App("stacks")
    numbers = app.stream("numbers", int)

    @app.stage(numbers, on_error=dead_letter("dead"))
    def refused(number: int) -> int:
        raise ValueError(f"number {number}")

    with app.test() as job:
        job.send(numbers, 1, 2, 3)
        stacks = [json.loads(letter)["stack"] for letter in job.output("dead")]
    assert [stack.count("ValueError: number") for stack in stacks] == [1, 1, 1]
    assert [stack.splitlines()[-1] for stack in stacks] == [
        "ValueError: number 1",
        "ValueError: number 2",
        "ValueError: number 3",
    ]
