"""Runs every benchmark with few records; checks its output, but not its times."""

from __future__ import annotations

import json
import time

import msgspec
import pytest
from click.testing import CliRunner

from benchmarks import batches, formats, stages
from streamkit.bench.catalog import BENCHMARKS
from streamkit.bench.engine import measure
from streamkit.bench.environment import broker
from streamkit.bench.join import Order, Payment, input_of
from streamkit.bench.official import MISSING, PYTHON_VARIABLE
from streamkit.bench.result import (
    Comparison,
    PeakMemory,
    Result,
    Scale,
    Timing,
    WrongOutput,
    as_text,
)
from streamkit.bench.verify import verify_written
from streamkit.bench.window import KEYS, sales_of
from streamkit.bench.workload import keys_of, values_of
from streamkit.cli.main import cli

FEW = Scale(records=500, rounds=1)
NEED_THE_OFFICIAL_CLIENT = {"consume", "produce", "produce-single"}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_checks_its_output_and_reports_its_times(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(PYTHON_VARIABLE, raising=False)
    result = BENCHMARKS[name].run(FEW)
    report = json.loads(json.dumps(result.as_dict()))
    assert (report["name"], report["checked"]) == (name, True)
    assert all(min(ours.values()) > 0 for ours in report["ours"].values())
    if name in NEED_THE_OFFICIAL_CLIENT:
        assert report["ratio"] is None
        assert report["baseline"] == {"missing": MISSING}
        assert MISSING in as_text(result)
    else:
        assert report["ratio"] > 0
        assert set(report["baseline"]) == set(report["ours"])


@pytest.mark.peers
@pytest.mark.parametrize("name", sorted(NEED_THE_OFFICIAL_CLIENT))
def test_the_official_client_is_a_baseline(name: str) -> None:
    report = BENCHMARKS[name].run(FEW).as_dict()
    assert report["ratio"] > 0
    assert set(report["baseline"]) == set(report["ours"])


def test_the_engine_takes_at_most_three_times_as_long_as_a_comprehension() -> None:
    # CPU time, and several attempts, because other programs share the caches.
    attempts: list[list[float]] = []
    while len(attempts) < 4:
        result = measure(records=100_000, rounds=12)
        attempts.append([each.cpu_ratio or 0.0 for each in result.comparisons])
        if min(attempts[-1]) >= 1 / 3:
            return
    pytest.fail(f"comprehension time by engine time: {attempts}")


def test_the_names_of_benchmarks_do_not_change() -> None:
    assert list(BENCHMARKS) == [
        "codec",
        "consume",
        "produce",
        "produce-single",
        "etl",
        "engine",
        "keyed",
        "window",
        "window-many-keys",
        "join",
        "calls",
        "frames",
        "latency",
        "backlog",
        "startup",
        "append",
    ]


def test_a_key_has_about_two_sales_in_a_window_of_the_benchmark() -> None:
    sales = sales_of(100_000, KEYS)
    assert len(sales.values) / len(sales.results) == pytest.approx(2, abs=0.1)
    assert sum(each.count for each in sales.results) == len(sales.values)
    assert {len(value) for value in sales.values} == {100}


def test_each_order_of_the_benchmark_has_one_payment_after_it() -> None:
    given = input_of(10_000)
    ordered_ms = dict(zip(map(id_in, given.orders[0]), given.orders[1], strict=True))
    paid_ms = dict(zip(map(order_in, given.payments[0]), given.payments[1], strict=True))
    assert len(ordered_ms) == len(paid_ms) == len(given.results) == 10_000
    assert [result.order for result, _ in given.results] == list(ordered_ms)
    assert all(0 <= paid_ms[order] - at_ms < 10_000 for order, at_ms in ordered_ms.items())
    assert {len(value) for value in given.orders[0] + given.payments[0]} == {100}


def id_in(value: bytes) -> str:
    return msgspec.json.decode(value, type=Order).id


def order_in(value: bytes) -> str:
    return msgspec.json.decode(value, type=Payment).order


def test_a_topic_with_missing_or_wrong_records_is_refused() -> None:
    before_ms = time.time_ns() // 1_000_000
    with broker(FEW) as environment, environment.topic() as topic:
        with environment.client.producer(topic) as producer:
            producer.send_many(values_of(9), keys_of(9))
        verify_written(environment, topic, 9, not_before_ms=before_ms)
        with pytest.raises(WrongOutput, match="10 records were sent, 9 are stored"):
            verify_written(environment, topic, 10, not_before_ms=before_ms)
        with pytest.raises(WrongOutput, match="timestamps earlier than"):
            verify_written(environment, topic, 9, not_before_ms=before_ms + 3_600_000)
        with environment.client.producer(topic) as producer:
            producer.send("another")
        with pytest.raises(WrongOutput, match="the stored records differ"):
            verify_written(environment, topic, 10, not_before_ms=before_ms)


def test_a_ratio_compares_times_per_record() -> None:
    quick, slow = Timing(1.0, 1_000), Timing(1.0, 100)
    comparison = Comparison("all", quick, slow, "another", at_least=10.0)
    assert comparison.ratio == pytest.approx(10.0)
    assert comparison.is_reached
    assert ">= 10.00x ok" in as_text(Result("some", "work", [comparison]))
    missed = Comparison("all", slow, quick, "another", at_least=1.0)
    assert ">= 1.00x BELOW" in as_text(Result("some", "work", [missed]))


def test_a_ratio_compares_sizes() -> None:
    comparison = Comparison(
        "peak", PeakMemory(50_000_000), PeakMemory(150_000_000), "the limit", 1.0
    )
    assert (comparison.ratio, comparison.cpu_ratio) == (3.0, None)
    assert "50.0 MB  150.0 MB  3.00x" in as_text(Result("some", "work", [comparison]))


def test_the_command_prints_a_result_as_a_json_line() -> None:
    given = ["bench", "engine", "--json", "--records", "500", "--rounds", "1"]
    shown = CliRunner().invoke(cli, given)
    assert shown.exit_code == 0
    assert json.loads(shown.output)["name"] == "engine"


def test_the_command_lists_the_benchmarks_and_refuses_unknown_names() -> None:
    shown = CliRunner().invoke(cli, ["bench", "--list"])
    assert [line.split()[0] for line in shown.output.splitlines()] == list(BENCHMARKS)
    refused = CliRunner().invoke(cli, ["bench", "quick"])
    assert refused.exit_code == 2
    assert "unknown benchmark 'quick'" in refused.output


def test_the_small_benchmarks_run() -> None:
    assert len(stages.main(chunks=1, rounds=1)) == len(stages.STAGES)
    assert len(batches.main(rows=500, rounds=1)) == 4
    assert len(formats.main(calls=5, rounds=1)) == 10
