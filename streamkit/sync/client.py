"""The client without an event loop."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from streamkit.client import Client as AsyncClient
from streamkit.client.consume.fetch import Fetched
from streamkit.errors import StreamKitError
from streamkit.sync.admin import Admin
from streamkit.sync.client_runner import ClientRunner
from streamkit.sync.consumer import Consumer
from streamkit.sync.producer import Producer, closing_deadline_s
from streamkit.sync.send_queue import SEND_QUEUE_BYTES_MAX
from streamkit.sync.signatures import parameters_of, parameters_of_call


class Client:
    """A connection to a Fluvio cluster, or to the embedded broker.

    Create one with `connect` and use it with ``with``; the end of the block flushes its producers.
    It connects at the start of the block, or in the first call. Threads may share it.
    """

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._runner = ClientRunner(client)
        self.admin = Admin(self._runner)

    @classmethod
    @parameters_of_call(AsyncClient.connect)
    def connect(cls, *args: Any, **options: Any) -> Client:
        """Prepare a connection; for arguments and errors see `streamkit.Client.connect`."""
        return cls(AsyncClient.connect(*args, **options))

    def __repr__(self) -> str:
        return f"Client({self.address!r})"

    @property
    def address(self) -> str:
        """The SC's address."""
        return self._client.address

    @parameters_of(AsyncClient.producer)
    def producer(self, *args: Any, **options: Any) -> Producer:
        """Create a producer for one topic; for arguments and errors see
        `streamkit.Client.producer`.

        In addition to the queues of the partitions, up to 1 MiB may wait for the event loop.
        """
        return Producer(
            self._runner,
            self._client.producer(*args, **options),
            queue_bytes=options.get("queue_bytes", SEND_QUEUE_BYTES_MAX),
            lingers=bool(options.get("linger", True)),
        )

    @parameters_of(AsyncClient.consumer)
    def consumer(self, *args: Any, **options: Any) -> Consumer:
        """Create a consumer of one topic; for arguments and errors see
        `streamkit.Client.consumer`.
        """
        is_auto = options.get("offset_strategy") == "auto"
        return Consumer(self._runner, self._client.consumer(*args, **options), is_auto=is_auto)

    @parameters_of(AsyncClient.fetch)
    def fetch(self, *args: Any, **options: Any) -> Fetched:
        """Read once from a partition; for arguments and errors see `streamkit.Client.fetch`."""
        return self._runner.call(self._client.fetch(*args, **options))

    def close(self, *, deadline_s: float | None = None) -> None:
        """Flush the producers and disconnect. A second call does nothing.

        Raises:
            NotFlushed: The deadline passed; the message shows the number of unacknowledged records.
            StreamKitError: The first refusal of a producer that was not flushed.
        """
        self._runner.close(deadline_s=deadline_s)

    def __enter__(self) -> Client:
        self._runner.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close(deadline_s=closing_deadline_s(error))
        except StreamKitError as problem:
            if error is None:
                raise
            error.add_note(str(problem))
