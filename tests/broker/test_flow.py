"""When a stream sends: a table, and a comparison with a plain state machine of a stock server.

Source: docs/protocol/produce-and-fetch.md, "Flow control".
"""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from streamkit.broker.flow import StreamFlow

END: Final = 10
# The state before, the event, its offset, and the offset to send from or None.
SENT_ALL: Final = "everything sent, nothing acknowledged"
CAUGHT_UP: Final = "no records to send"
TABLE: Final = [
    (SENT_ALL, "acknowledge", 10, None),
    (SENT_ALL, "acknowledge", 9, 9),
    (SENT_ALL, "acknowledge", 0, 0),
    (SENT_ALL, "acknowledge", 11, None),
    (SENT_ALL, "acknowledge", -1, None),
    (SENT_ALL, "acknowledge", -5, -5),
    (SENT_ALL, "end", 12, None),
    (CAUGHT_UP, "acknowledge", 10, None),
    (CAUGHT_UP, "acknowledge", 3, 3),
    (CAUGHT_UP, "acknowledge", -1, None),
    (CAUGHT_UP, "end", 12, 10),
    (CAUGHT_UP, "end", 10, None),
]


@pytest.mark.parametrize(("before", "event", "number", "send_from"), TABLE)
def test_an_event_determines_the_offset_that_a_stream_sends_from(
    before: str, event: str, number: int, send_from: int | None
) -> None:
    flow = StreamFlow.starting_at(0 if before == SENT_ALL else END)
    if before == SENT_ALL:
        flow.sent(END)
    else:
        flow.found_nothing(END)
    offset = flow.acknowledge(number, END) if event == "acknowledge" else flow.end_moved(number)
    assert offset == send_from


def test_an_acknowledgement_beyond_the_end_does_not_stop_a_stream() -> None:
    """A stock server would send nothing until the end of the log is above 1,000."""
    flow = StreamFlow.starting_at(0)
    flow.sent(END)
    assert flow.acknowledge(1_000, END) is None
    assert flow.end_moved(END + 1) == END


class Reference:
    """The state machine of a stock server, except for one line."""

    def __init__(self, start: int, end: int) -> None:
        self.sends: list[int] = []
        self.end = end
        self.last, waiting = self.send(start)
        self.known = None if waiting else self.last

    def send(self, start: int) -> tuple[int, bool]:
        if start >= self.end:
            return start, False
        self.sends.append(start)
        return self.end, True

    def acknowledged(self, offset: int) -> None:
        if offset == -1:
            return
        offset = min(offset, self.end)  # the difference
        if offset >= self.last:
            self.known = offset
        else:
            self.last, waiting = self.send(offset)
            self.known = None if waiting else self.last

    def end_moved(self, end: int) -> None:
        self.end = end
        if self.known is None or end <= self.known:
            self.last = end
        else:
            self.last, waiting = self.send(self.known)
            self.known = None if waiting else self.last


class OurStream:
    """Sends records like the broker, as the flow decides."""

    def __init__(self, start: int, end: int) -> None:
        self.sends: list[int] = []
        self.end = end
        self.flow = StreamFlow.starting_at(start)
        self.send(start)

    def send(self, start: int | None) -> None:
        if start is None:
            return
        if start >= self.end:
            self.flow.found_nothing(start)
        else:
            self.sends.append(start)
            self.flow.sent(self.end)

    def acknowledged(self, offset: int) -> None:
        self.send(self.flow.acknowledge(offset, self.end))

    def end_moved(self, end: int) -> None:
        self.end = end
        self.send(self.flow.end_moved(end))


class BothStreams(RuleBasedStateMachine):
    @initialize(start=st.integers(0, 20), records=st.integers(0, 20))
    def start(self, start: int, records: int) -> None:
        end = start + records
        self.reference, self.ours = Reference(start, end), OurStream(start, end)

    @rule(offset=st.integers(-1, 60))
    def acknowledge(self, offset: int) -> None:
        self.reference.acknowledged(offset)
        self.ours.acknowledged(offset)
        assert self.ours.sends == self.reference.sends

    @rule()
    def acknowledge_all(self) -> None:
        self.acknowledge(self.ours.end)

    @rule(records=st.integers(0, 5))
    def append(self, records: int) -> None:
        self.reference.end_moved(self.reference.end + records)
        self.ours.end_moved(self.ours.end + records)
        assert self.ours.sends == self.reference.sends


TestOurFlowMatchesTheReference = BothStreams.TestCase
