"""Ports on loopback that belong to one test."""

from __future__ import annotations

import socket
import sys
from typing import Final

_HOST: Final = "127.0.0.1"


class HeldPort:
    """A port where nobody answers, and that a server of the test may listen on.

    The port of a broker that is away is free: the system may give it to a server or a connection
    of another test. It is bound here without listening, and our servers bind it too, as both ask
    for SO_REUSEADDR. Only Linux lets them: elsewhere the port is chosen, but not held.
    """

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((_HOST, 0))
        self.number: int = self._socket.getsockname()[1]
        if sys.platform != "linux":
            self._socket.close()

    @property
    def address(self) -> str:
        return f"{_HOST}:{self.number}"

    def close(self) -> None:
        """Give the port back."""
        self._socket.close()

    def __enter__(self) -> HeldPort:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
