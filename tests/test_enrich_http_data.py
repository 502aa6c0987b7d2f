"""The data of the example ``enrich_http``, its service, and the computation of what must come out.

``test_enrich_http.py`` runs the job itself.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import runpy
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "enrich_http"
SHA256 = {
    "orders.jsonl.gz": "4af8a17c429888daa90eee7331c937c477b41a05cad21dfa35cfda0c12860c82",
    "customers.csv": "43698922c5ca2c9f01adf493fca457b43180ecf4c8cd348d53501bc87eba7d9c",
}


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, EXAMPLE / "expected.py"], capture_output=True, text=True, check=True
    )
    counts: dict[str, Any] = json.loads(done.stdout)
    return counts


@pytest.fixture
def service() -> Iterator[HTTPConnection]:
    """A connection to the service, which runs in a process."""
    process = subprocess.Popen(
        [sys.executable, EXAMPLE / "service.py", "0"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout as lines:
        connection = connect(lines.readline())
        try:
            yield connection
        finally:
            connection.close()
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0


def connect(line: str) -> HTTPConnection:
    return HTTPConnection("127.0.0.1", int(line.rpartition(":")[2]), timeout=60)


def content(name: str) -> bytes:
    data = (EXAMPLE / name).read_bytes()
    return gzip.decompress(data) if name.endswith(".gz") else data


def get(service: HTTPConnection, path: str) -> tuple[int, Any]:
    service.request("GET", path)
    response = service.getresponse()
    return response.status, json.loads(response.read())


# --- the data


@pytest.mark.parametrize("name", SHA256)
def test_a_file_is_unchanged(name: str) -> None:
    assert hashlib.sha256(content(name)).hexdigest() == SHA256[name]


def test_the_script_creates_the_same_files_again(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-S", EXAMPLE / "make_data.py", tmp_path], capture_output=True, check=True
    )
    for name in SHA256:
        made = (tmp_path / name).read_bytes()
        assert (gzip.decompress(made) if name.endswith(".gz") else made) == content(name)


def test_the_data_is_small_and_has_no_timestamp() -> None:
    assert sum((EXAMPLE / name).stat().st_size for name in SHA256) < 50_000
    header = (EXAMPLE / "orders.jsonl.gz").read_bytes()[3:8]
    assert header == bytes(5), "flags and time of the gzip header"


def test_every_order_has_a_customer_that_the_service_knows() -> None:
    orders = list(map(json.loads, content("orders.jsonl.gz").splitlines()))
    customers = {line.partition(",")[0] for line in content("customers.csv").decode().splitlines()}
    assert [order["order"] for order in orders] == list(range(1, 3_001))
    assert {order["customer"] for order in orders} <= customers


# --- the computation


def test_a_plain_loop_over_the_answers_of_the_service_has_the_computed_counts(
    expected: dict[str, Any],
) -> None:
    answer = runpy.run_path(str(EXAMPLE / "service.py"))["answer"]
    requests: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    dead: Counter[str] = Counter()
    for order in map(json.loads, content("orders.jsonl.gz").splitlines()):
        customer = order["customer"]
        for _ in range(4):
            requests[customer] += 1
            found = answer(int(customer[1:]), requests[customer])
            kinds[found.kind] += 1
            if found.status == 200 and found.wait_s < 2:
                break
        else:
            dead[customer] += 1
    assert expected["dead_letters_by_customer"] == dead
    assert expected["dead_letters"] == dead.total()
    assert expected["enriched"] == 3_000 - dead.total()
    assert expected["requests"] == {**kinds, "requests": kinds.total()}


def test_the_computed_records_are_all_orders_with_their_customer() -> None:
    example = runpy.run_path(str(EXAMPLE / "expected.py"))
    outcome = example["outcome"](*example["orders_and_customers"]())
    records = [*outcome.enriched, *outcome.enriched_by_replay]
    assert sorted(record["order"] for record in records) == list(range(1, 3_001))
    (record,) = (record for record in outcome.enriched if record["order"] == 1)
    assert record == {
        "order": 1,
        "customer": "C054",
        "cents": 17503,
        "name": "Elif Falk",
        "country": "DE",
    }


def test_no_order_after_the_first_1100_fails_each_time() -> None:
    """Otherwise the last requests of the job would all fail, which opens the circuit."""
    example = runpy.run_path(str(EXAMPLE / "expected.py"))
    outcome = example["outcome"](*example["orders_and_customers"]())
    assert max(order["order"] for order in outcome.enriched_by_replay) < 1_100


# --- the service


def test_the_service_looks_up_a_customer(service: HTTPConnection) -> None:
    assert get(service, "/customers/C042") == (
        200,
        {"id": "C042", "name": "Chloe Engel", "country": "DE"},
    )
    assert get(service, "/customers/C500")[0] == 404
    assert get(service, "/nothing")[0] == 404


def test_a_damaged_customer_fails_until_the_service_is_healed(service: HTTPConnection) -> None:
    assert [get(service, "/customers/C103")[0] for _ in range(5)] == [500] * 5
    service.request("POST", "/heal")
    assert service.getresponse().read() == b'{"healed": true}'
    assert get(service, "/customers/C103")[0] == 200
    assert get(service, "/counts") == (200, {"requests": 6, "failed": 5, "ok": 1})


def test_the_first_request_of_some_customers_is_answered_with_retry_after(
    service: HTTPConnection,
) -> None:
    service.request("GET", "/customers/C013")
    response = service.getresponse()
    assert (response.status, response.headers["Retry-After"], response.read() != b"") == (
        503,
        "1",
        True,
    )
    assert get(service, "/customers/C013")[0] == 200


def test_some_customers_are_slow(service: HTTPConnection) -> None:
    start_s = time.monotonic()
    assert get(service, "/customers/C015")[0] == 200
    assert time.monotonic() - start_s >= 0.3


def test_a_client_that_does_not_wait_gets_its_answer_the_second_time(
    service: HTTPConnection,
) -> None:
    impatient = HTTPConnection("127.0.0.1", service.port)
    impatient.request("GET", "/customers/C007")
    while get(service, "/counts") != (200, {"requests": 1, "late": 1}):
        pass  # the service has not read the request yet
    impatient.close()
    assert get(service, "/customers/C007")[0] == 200
    assert get(service, "/counts") == (200, {"requests": 2, "late": 1, "ok": 1})
