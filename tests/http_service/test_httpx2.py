"""Which error httpx2 raises for which fault, and how its timeouts and limits work.

Jobs name these errors in their retries, so a change of httpx2 must be noticed.
"""

from __future__ import annotations

import asyncio

import httpx2
import pytest

from tests.http_service.faults import Fault
from tests.http_service.running import HttpService
from tests.http_service.service import Down


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def client(
    url: str, *, timeout: httpx2.Timeout | None = None, connections: int = 100
) -> httpx2.AsyncClient:
    limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)
    # Without the proxies of the environment: the service is on loopback.
    return httpx2.AsyncClient(
        base_url=url, timeout=timeout or httpx2.Timeout(60), limits=limits, trust_env=False
    )


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault("drop"), httpx2.RemoteProtocolError),
        (Fault("cut"), httpx2.RemoteProtocolError),
        (Fault("status", status=429, retry_after_s=1), httpx2.HTTPStatusError),
        (Fault("status"), httpx2.HTTPStatusError),
    ],
)
async def test_a_failed_request_raises_an_http_error(
    fault: Fault, error: type[httpx2.HTTPError]
) -> None:
    with HttpService(fault) as service:
        async with client(service.url) as http:
            with pytest.raises(error):
                (await http.get("/customers/7")).raise_for_status()


async def test_a_status_error_has_the_headers_of_the_response() -> None:
    with HttpService(Fault("status", status=503, retry_after_s=7)) as service:
        async with client(service.url) as http:
            with pytest.raises(httpx2.HTTPStatusError) as failed:
                (await http.get("/customers/7")).raise_for_status()
    response = failed.value.response
    assert (response.status_code, response.headers["retry-after"]) == (503, "7")


@pytest.mark.parametrize(
    ("how", "error"),
    [("refuse", httpx2.ConnectError), ("close", httpx2.RemoteProtocolError)],
)
async def test_a_service_that_is_down_raises_an_http_error(
    how: Down, error: type[httpx2.HTTPError]
) -> None:
    with HttpService() as service:
        async with client(service.url) as http:
            service.go_down(how)
            with pytest.raises(error):
                await http.get("/customers/7")
            service.recover()
            assert (await http.get("/customers/7")).status_code == 200


async def test_a_kept_connection_that_was_closed_in_the_meantime_is_replaced() -> None:
    with HttpService() as service:
        async with client(service.url) as http:
            assert (await http.get("/customers/7")).status_code == 200
            service.go_down()
            service.recover()
            assert (await http.get("/customers/7")).status_code == 200
        assert service.tally.connections_accepted == 2


async def test_an_invalid_body_is_not_an_http_error() -> None:
    with HttpService(Fault("invalid-json")) as service:
        async with client(service.url) as http:
            response = (await http.get("/customers/7")).raise_for_status()
            with pytest.raises(ValueError, match="Expecting value"):
                response.json()


async def test_a_timeout_is_an_http_error_but_not_a_timeout_error() -> None:
    with HttpService(Fault("hang")) as service:
        async with client(service.url, timeout=httpx2.Timeout(60, read=0.05)) as http:
            with pytest.raises(httpx2.ReadTimeout) as late:
                await http.get("/customers/7")
    assert isinstance(late.value, httpx2.HTTPError)
    assert not isinstance(late.value, TimeoutError)


async def test_a_request_waits_for_a_free_connection_and_then_times_out() -> None:
    with HttpService(Fault("hang")) as service:
        timeout = httpx2.Timeout(None, pool=0.05)
        async with client(service.url, timeout=timeout, connections=1) as http:
            first = asyncio.ensure_future(http.get("/customers/7"))
            await asyncio.to_thread(service.wait_for, lambda tally: tally.in_flight == 1)
            with pytest.raises(httpx2.PoolTimeout):
                await http.get("/customers/8")
            service.release()
            assert (await first).status_code == 200
        assert service.tally.requests == {"7": 1}


async def test_a_cancelled_request_closes_its_connection() -> None:
    with HttpService(Fault("hang")) as service:
        async with client(service.url) as http:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await http.get("/customers/7")
            await asyncio.to_thread(service.wait_for, lambda tally: tally.connections == 0)


async def test_64_requests_are_in_flight_at_once_over_connections_that_are_kept() -> None:
    with HttpService(Fault("hang", first=1)) as service:
        async with client(service.url, connections=64) as http:
            requests = asyncio.gather(*(http.get(f"/customers/{key}") for key in range(64)))
            await asyncio.to_thread(service.wait_for, lambda tally: tally.in_flight == 64)
            service.release()
            await requests
            await asyncio.gather(*(http.get(f"/customers/{key}") for key in range(64)))
            tally = service.tally
    assert tally.requests == dict.fromkeys(map(str, range(64)), 2)
    assert tally.in_flight_max == 64
