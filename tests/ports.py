"""Ports on loopback that belong to one test."""

from __future__ import annotations

import socket
import sys
from typing import Final

_HOST: Final = "127.0.0.1"


class HeldPort:
    """A reserved port, on which a server of the test may listen.

    While a broker is down, the system may give its port to another test. So the port is bound
    here without listening. Our servers can bind it too, because both use SO_REUSEADDR. Only Linux
    allows that; on other systems the port is chosen, but not reserved.
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
        """Release the port."""
        self._socket.close()

    def __enter__(self) -> HeldPort:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
