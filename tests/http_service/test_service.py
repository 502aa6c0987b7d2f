"""The HTTP service, with a client of the standard library."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPResponse, IncompleteRead, RemoteDisconnected
from typing import Any

import pytest

from tests.http_service.faults import Fault
from tests.http_service.running import HttpService, HttpServiceProcess
from tests.http_service.service import DOWNS, Down, customer


@contextmanager
def connected(url: str) -> Iterator[HTTPConnection]:
    connection = HTTPConnection(url.removeprefix("http://"), timeout=60)
    try:
        yield connection
    finally:
        connection.close()


def sent(
    connection: HTTPConnection, method: str, path: str, body: Any = None, **headers: str
) -> HTTPResponse:
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    return connection.getresponse()


def looked_up(url: str, key: str) -> Any:
    with connected(url) as connection:
        return json.loads(sent(connection, "GET", f"/customers/{key}").read())


def test_a_customer_is_looked_up_and_each_request_is_counted_by_key() -> None:
    with HttpService() as service, connected(service.url) as connection:
        for key in ("7", "8", "7"):
            response = sent(connection, "GET", f"/customers/{key}")
            assert (response.status, json.loads(response.read())) == (200, customer(key))
        tally = service.tally
    assert tally.requests == {"7": 2, "8": 1}
    assert tally.arrivals_s["7"] == sorted(tally.arrivals_s["7"])
    assert (tally.statuses, tally.fired) == ({200: 3}, {})
    assert tally.connections_accepted == 1, "the connection is kept alive"


def test_rows_are_counted_and_the_request_has_the_key_of_its_header() -> None:
    with HttpService() as service, connected(service.url) as connection:
        rows = [{"id": 1}, {"id": 2}]
        response = sent(connection, "POST", "/rows", rows, **{"Idempotency-Key": "batch-1"})
        assert json.loads(response.read()) == {"accepted": 2}
        assert sent(connection, "POST", "/rows", {"id": 2}).read()
        tally = service.tally
    assert tally.rows == {"1": 1, "2": 2}
    assert tally.requests == {"batch-1": 1, "rows": 1}


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/", None, 404),
        ("GET", "/customers/", None, 405),
        ("DELETE", "/customers/7", None, 405),
        ("POST", "/rows", [{"name": "without id"}], 400),
        ("POST", "/rows", [7], 400),
    ],
)
def test_an_invalid_request_is_refused_and_the_connection_stays(
    method: str, path: str, body: Any, status: int
) -> None:
    with HttpService() as service, connected(service.url) as connection:
        response = sent(connection, method, path, body)
        assert (response.status, list(json.loads(response.read()))) == (status, ["error"])
        assert sent(connection, "GET", "/customers/7").read()
        assert service.tally.connections_accepted == 1


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"POST /rows HTTP/1.1\r\nContent-Length: x\r\n\r\n", b"400"),
        (b"POST /rows HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"501"),
        (b"POST /rows HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", b"413"),
        (b"GET / HTTP/1.1\r\nx: " + b"x" * 70_000 + b"\r\n\r\n", b"431"),
        (b"GET / HTT", b"400"),
        (b"GET / HTTP/1.0\r\n\r\n", b"404"),
        (b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", b"404"),
    ],
)
def test_the_connection_is_closed_after_the_response(data: bytes, status: bytes) -> None:
    with HttpService() as service:
        received = received_for(service.url, data)
    assert received.startswith(b"HTTP/1.1 " + status)
    assert b"Connection: close" in received


def test_pipelined_requests_are_answered_in_order() -> None:
    requests = b"".join(b"GET /customers/%d HTTP/1.1\r\n\r\n" % number for number in (1, 2, 3))
    with HttpService() as service:
        received = received_for(service.url, requests)
    assert re.findall(rb'"id":"(\d)"', received) == [b"1", b"2", b"3"]


def received_for(url: str, data: bytes) -> bytes:
    """Return all bytes that the service responds with."""
    with socket.create_connection(address(url), timeout=60) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        return client.makefile("rb").read()


def address(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").partition(":")
    return host, int(port)


# --- faults


@pytest.mark.parametrize("status", [429, 500, 503])
def test_the_first_requests_of_a_key_fail_with_a_status(status: int) -> None:
    fault = Fault("status", status=status, keys=("7",), first=2)
    with HttpService(fault) as service, connected(service.url) as connection:
        found = []
        for key in ("7", "8", "7", "7"):
            response = sent(connection, "GET", f"/customers/{key}")
            found.append(response.status)
            assert response.read()
        assert service.tally.fired == {str(status): 2}
        assert service.tally.connections_accepted == 1
    assert found == [status, 200, status, 200]


def test_a_status_has_retry_after_in_seconds_or_as_a_date() -> None:
    faults = (
        Fault("status", status=429, keys=("a",), retry_after_s=7),
        Fault("status", status=503, keys=("b",), retry_after_s=7, retry_after_is_date=True),
    )
    with HttpService(*faults) as service, connected(service.url) as connection:
        first = sent(connection, "GET", "/customers/a")
        assert first.read()
        assert first.headers["Retry-After"] == "7"
        before_s = time.time()
        second = sent(connection, "GET", "/customers/b")
        assert second.read()
    date = parsedate_to_datetime(second.headers["Retry-After"])
    assert before_s + 7 <= date.timestamp() <= time.time() + 8


def test_a_failed_row_is_not_stored() -> None:
    with HttpService(Fault("status")) as service, connected(service.url) as connection:
        assert sent(connection, "POST", "/rows", {"id": 1}).status == 500
        assert service.tally.rows == {}


def test_a_slow_response_comes_after_its_time() -> None:
    with HttpService(Fault("slow", seconds=0.05)) as service:
        start_s = time.monotonic()
        assert looked_up(service.url, "7") == customer("7")
        assert time.monotonic() - start_s >= 0.05
        assert service.tally.fired == {"slow": 1}


def test_a_hanging_request_is_answered_only_when_it_is_released() -> None:
    with HttpService(Fault("hang", first=1)) as service, ThreadPoolExecutor() as pool:
        answers = [pool.submit(looked_up, service.url, key) for key in "abc"]
        service.wait_for(lambda tally: tally.in_flight == 3)
        assert not any(answer.done() for answer in answers)
        assert (service.tally.in_flight_max, service.tally.statuses) == (3, {})
        service.release()
        assert [answer.result() for answer in answers] == [customer(key) for key in "abc"]
        assert service.tally.fired == {"hang": 3}


def test_a_client_that_gives_up_ends_a_hanging_request() -> None:
    with HttpService(Fault("hang")) as service:
        with connected(service.url) as connection:
            connection.request("GET", "/customers/7")
            service.wait_for(lambda tally: tally.in_flight == 1)
        service.wait_for(lambda tally: tally.in_flight == 0 and tally.connections == 0)


def test_a_dropped_request_is_not_processed() -> None:
    with HttpService(Fault("drop", first=1)) as service, connected(service.url) as connection:
        with pytest.raises(RemoteDisconnected):
            sent(connection, "POST", "/rows", {"id": 1})
        assert service.tally.rows == {}
        assert sent(connection, "POST", "/rows", {"id": 1}).read()
        assert (service.tally.rows, service.tally.fired) == ({"1": 1}, {"drop": 1})


def test_a_request_whose_response_is_cut_is_processed() -> None:
    with HttpService(Fault("cut")) as service, connected(service.url) as connection:
        response = sent(connection, "POST", "/rows", {"id": 1})
        with pytest.raises(IncompleteRead):
            response.read()
        assert (service.tally.rows, service.tally.fired) == ({"1": 1}, {"cut": 1})


@pytest.mark.parametrize("kind", ["truncated-json", "invalid-json"])
def test_a_complete_response_has_an_invalid_body(kind: Any) -> None:
    with HttpService(Fault(kind)) as service, connected(service.url) as connection:
        for _ in range(2):
            response = sent(connection, "GET", "/customers/7")
            assert response.status == 200
            with pytest.raises(json.JSONDecodeError):
                json.loads(response.read())
        assert service.tally.fired == {kind: 2}
        assert service.tally.connections_accepted == 1


def test_faults_and_counts_can_be_changed_while_the_service_runs() -> None:
    with HttpService(Fault("status"), seed=3) as service, connected(service.url) as connection:
        failed = sent(connection, "GET", "/customers/7")
        assert (failed.status, json.loads(failed.read())) == (500, {"error": "a fault on purpose"})
        service.use()
        service.reset()
        assert json.loads(sent(connection, "GET", "/customers/7").read()) == customer("7")
        tally = service.tally
    assert (tally.requests, tally.fired, tally.connections) == ({"7": 1}, {}, 1)


# --- the whole service is down


@pytest.mark.parametrize("how", DOWNS)
def test_a_service_that_was_down_is_up_again_at_the_same_address(how: Down) -> None:
    with HttpService() as service:
        assert looked_up(service.url, "7") == customer("7")
        service.go_down(how)
        if how == "unavailable":
            assert looked_up(service.url, "7") == {"error": "a fault on purpose"}
        else:
            error = ConnectionRefusedError if how == "refuse" else RemoteDisconnected
            with pytest.raises(error):
                looked_up(service.url, "7")
        service.recover()
        assert looked_up(service.url, "7") == customer("7")
        assert service.tally.fired == ({} if how == "refuse" else {"down": 1})


def test_a_service_that_goes_down_closes_its_connections_and_hanging_requests() -> None:
    with HttpService(Fault("hang")) as service, connected(service.url) as connection:
        connection.request("GET", "/customers/7")
        service.wait_for(lambda tally: tally.in_flight == 1)
        service.go_down()
        with pytest.raises(ConnectionError):
            connection.getresponse()
        assert (service.tally.connections, service.tally.in_flight) == (0, 0)


# --- many connections, and the end


def test_500_connections_are_kept_alive_at_once() -> None:
    async def fetch(port: int, count: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in range(count):
            writer.write(f"GET /customers/{number} HTTP/1.1\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0])
            assert json.loads(await reader.readexactly(length)) == customer(str(number))
        writer.close()
        await writer.wait_closed()

    async def fetch_all(port: int) -> None:
        await asyncio.gather(*(fetch(port, 4) for _ in range(500)))

    with HttpService() as service:
        asyncio.run(fetch_all(address(service.url)[1]))
        tally = service.tally
    assert tally.requests == dict.fromkeys(map(str, range(4)), 500)
    assert tally.connections_accepted == 500


def test_the_end_closes_idle_and_hanging_connections_and_leaves_no_thread() -> None:
    threads = set(threading.enumerate())
    with HttpService(Fault("hang", keys=("7",))) as service:
        clients = [socket.create_connection(address(service.url)) for _ in range(3)]
        clients[0].sendall(b"GET /customers/7 HTTP/1.1\r\n\r\n")
        clients[1].sendall(b"GET /custo")
        service.wait_for(lambda tally: tally.in_flight == 1 and tally.connections == 3)
    assert set(threading.enumerate()) == threads
    for client in clients:
        with client:
            try:
                assert client.recv(1) == b""
            except ConnectionResetError:
                pass  # closed too
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address(service.url))


# --- the control port, and the process


def test_a_process_is_controlled_over_http() -> None:
    first = {"faults": [{"kind": "status", "status": 503, "first": 1}], "seed": 5}
    with HttpServiceProcess(**first) as service:
        assert looked_up(service.url, "7") == {"error": "a fault on purpose"}
        assert looked_up(service.url, "7") == customer("7")
        tally = service.control(down="refuse")
        assert (tally["requests"], tally["fired"]) == ({"7": 2}, {"503": 1})
        assert tally["down"] == "refuse"
        with pytest.raises(ConnectionRefusedError):
            looked_up(service.url, "8")
        assert service.control(down=None, faults=[], reset=True)["requests"] == {}
        assert looked_up(service.url, "8") == customer("8")


@pytest.mark.parametrize(
    "changes",
    [{"speed": 1}, {"down": "a bit"}, {"faults": [{"kind": "explode"}], "down": "close"}, [], 7],
)
def test_an_invalid_control_is_refused_and_changes_nothing(changes: Any) -> None:
    with HttpService() as service, connected(service.control_url[:-8]) as connection:
        response = sent(connection, "POST", "/control", changes)
        assert (response.status, list(json.loads(response.read()))) == (400, ["error"])
        assert json.loads(sent(connection, "GET", "/control").read())["down"] is None
        assert looked_up(service.url, "7") == customer("7")
