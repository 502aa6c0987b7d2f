"""Add name and country of the customer to each order, from a service that is unreliable.

It reads orders from the topic ``orders``, looks up the customer of each order over HTTP, and writes
to the topic ``orders-enriched``. At most 64 requests are in flight. A request that fails or takes
longer than 2 seconds is retried; after 4 attempts the order goes to the topic ``orders-dead``.
While the service is down, the job waits, and no order uses up its attempts.

``README.md`` explains how to run it. ``python run.py`` runs everything in one terminal.
"""

import os
from collections.abc import AsyncIterator

import httpx2
import msgspec

from streamkit import App, Context, Topic
from streamkit.policies import dead_letter, retry

SERVICE = os.environ.get("CUSTOMERS_URL", "http://127.0.0.1:8400")
CONCURRENCY = 64

app = App("enrich-orders", version="1")


class Order(msgspec.Struct):
    order: int
    customer: str
    cents: int


class Customer(msgspec.Struct):
    name: str
    country: str


class EnrichedOrder(msgspec.Struct):
    order: int
    customer: str
    cents: int
    name: str
    country: str


@app.lifespan
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    # By default httpx2 keeps only 20 connections open.
    limits = httpx2.Limits(max_connections=CONCURRENCY, max_keepalive_connections=CONCURRENCY)
    async with httpx2.AsyncClient(base_url=SERVICE, limits=limits, trust_env=False) as client:
        yield client


orders = app.stream("orders", Order)


@app.stage(
    orders,
    concurrency=CONCURRENCY,
    timeout=2,
    ordered=False,
    on_error=retry(
        attempts=4,
        delay=0.1,
        max_delay=2,
        on=(httpx2.HTTPError, TimeoutError),
        open_circuit_after=20,
        open_circuit_on=httpx2.ConnectError,  # nobody answers: the service is down
    ).then(dead_letter("orders-dead")),
)
async def enrich(order: Order, context: Context[str]) -> EnrichedOrder:
    client: httpx2.AsyncClient = context.lifespan
    response = await client.get(f"/customers/{order.customer}")
    response.raise_for_status()
    customer = msgspec.json.decode(response.content, type=Customer)
    return EnrichedOrder(order.order, order.customer, order.cents, customer.name, customer.country)


enrich.to(Topic("orders-enriched", EnrichedOrder))
