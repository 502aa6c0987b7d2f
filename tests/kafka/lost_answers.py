"""Cuts connections of a producer after the broker has stored a batch, before its response arrives.

The frames of Kafka have their length in 4 bytes, like Fluvio's, so the proxy of the other tests
carries them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tests.proxy import Proxy, Replace

_PRODUCE: Final = b"\x00\x00"
_HOST: Final = b"127.0.0.1"


class LostAnswers:
    """Loses every n-th response to a request to write, until it has lost enough.

    Attributes:
        servers: The bootstrap servers for the client.
        lost: How many responses were lost.
    """

    def __init__(self, port: int, proxy: Proxy, *, every: int, times: int) -> None:
        self.servers = proxy.address
        self.lost = 0
        self._every = every
        self._times = times
        self._requests = 0
        self._doomed: set[bytes] = set()
        self._real = _HOST + port.to_bytes(4, "big")
        self._own = _HOST + proxy.port.to_bytes(4, "big")
        proxy.restart(Replace("sc up", self._asks), Replace("sc down", self._answers))

    def _asks(self, frame: bytes) -> None:
        if frame[4:6] == _PRODUCE:
            self._requests += 1
            if self._requests % self._every == 0 and self.lost < self._times:
                self._doomed.add(frame[8:12])  # the correlation id

    def _answers(self, frame: bytes) -> bytes:
        if frame[4:8] in self._doomed:
            self._doomed.clear()
            self.lost += 1
            raise ConnectionAbortedError  # the proxy closes the connection
        return frame.replace(self._real, self._own)


@contextmanager
def losing_answers(port: int, *, every: int, times: int) -> Iterator[LostAnswers]:
    """Run a proxy that loses every n-th response to a request to write, some times."""
    with Proxy(port, port) as proxy:
        yield LostAnswers(port, proxy, every=every, times=times)
