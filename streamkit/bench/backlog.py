"""`backlog`: the memory of a job whose slow sink holds back a source with much more to read.

The topic has 1 GB with `--records 5000000`. The job runs in a process of its own, which measures
its largest resident size.
"""

from __future__ import annotations

import os
import signal
from typing import Final

import anyio

from streamkit.app import App
from streamkit.bench.environment import Environment, broker
from streamkit.bench.etl import Order, orders_of
from streamkit.bench.job import check_committed
from streamkit.bench.process import Answer, in_process, peak_bytes
from streamkit.bench.result import Comparison, PeakMemory, Result, Scale, WrongOutput

_NAME: Final = "bench-backlog"
_LIMIT_BYTES: Final = 150_000_000
# The same orders are sent again and again.
_DISTINCT_ORDERS: Final = 50_000
# How many records the sink takes, one after another, before the job is stopped.
_TAKEN_MAX: Final = 5_000
_SINK_S: Final = 0.001


def run(scale: Scale) -> Result:
    orders = orders_of(min(scale.records, _DISTINCT_ORDERS))
    taken = max(1, min(scale.records // 2, _TAKEN_MAX))
    with broker(scale) as environment, environment.topic() as source:
        left, size_bytes = scale.records, 0
        with environment.client.producer(source) as producer:
            while left:
                values = orders.values[:left]
                producer.send_many(values, orders.keys[:left])
                left -= len(values)
                size_bytes += sum(map(len, values))
            producer.flush()
        peaks = [_peak(environment, source, taken) for _ in range(scale.rounds)]
    return Result(
        "backlog",
        f"{scale.records:,} orders wait with {size_bytes:,} B; the sink takes {taken:,} of them",
        [
            Comparison(
                "peak of the job",
                PeakMemory(max(each["peak_bytes"] for each in peaks)),
                PeakMemory(_LIMIT_BYTES),
                "the limit",
                1.0,
            )
        ],
        [f"before the job: {max(each['before_bytes'] for each in peaks) / 1e6:,.1f} MB"],
    )


def run_job(address: str, source: str, data_dir: str, taken: int) -> Answer:
    """Run a job until its slow sink has taken a number of orders."""
    app = App(_NAME)
    orders = app.stream(source, Order)
    ids: list[int] = []
    before_bytes = peak_bytes()

    @app.sink(orders)
    async def slow(order: Order) -> None:
        await anyio.sleep(_SINK_S)
        ids.append(order.id)
        if len(ids) == taken:
            os.kill(os.getpid(), signal.SIGTERM)

    code = app.run(cluster=address, data_dir=data_dir, fresh_state=True)
    if code:
        raise WrongOutput(f"the job ended with exit code {code}")
    return {"ids": ids, "before_bytes": before_bytes, "peak_bytes": peak_bytes()}


def _peak(environment: Environment, source: str, taken: int) -> Answer:
    folder = environment.folder
    with in_process(
        run_job,
        folder,
        address=environment.address,
        source=source,
        data_dir=str(folder),
        taken=taken,
    ) as job:
        answer = job.answer()
    ids = answer["ids"]
    if len(ids) < taken or ids != [row % _DISTINCT_ORDERS for row in range(len(ids))]:
        raise WrongOutput(f"the sink took {len(ids):,} orders, and they are not the first ones")
    check_committed(environment, _NAME, source, len(ids), "the job")
    return answer
