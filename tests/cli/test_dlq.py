"""`streamkit dlq` on the dead letters that a real job writes."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.processes import (
    COMMAND,
    WAIT_S,
    Ended,
    environment,
    read_until,
    ready_line,
    run,
    started,
)

JOB = """
import msgspec
from streamkit import App
from streamkit.connectors.files import JsonLines
from streamkit.policies import dead_letter

class Order(msgspec.Struct):
    customer: str
    amount: float

class Parcel:  # has no format, so it cannot be replayed
    def __init__(self, order: Order) -> None:
        self.order = order

app = App("{app}", version="1.2")
orders = app.stream("orders", bytes)

@app.stage(orders, on_error=dead_letter("orders-dead"))
def parse(data: bytes) -> Order:
    return msgspec.json.decode(data, type=Order)

@app.stage(parse, on_error=dead_letter("orders-dead"))
def check(order: Order) -> Order:
    if order.amount < 0:
        raise ValueError("bad\\x1b[31m amount\\nof " + order.customer)
    return order

@app.stage(check)
def packed(order: Order) -> Parcel:
    return Parcel(order)

@app.stage(packed, on_error=dead_letter({where}))
def sent(parcel: Parcel) -> str:
    if parcel.order.amount > 100:
        raise OSError("too heavy")
    return parcel.order.customer

sent.to("sent")
"""
GOOD = b'{"customer": "ann", "amount": 3}'
TEXT = b'{"customer": "bob", "amount": "x"}'
NEGATIVE = b'{"customer": "eve", "amount": -1}'
HEAVY = b'{"customer": "joe", "amount": 1000}'
BINARY = b"\x00\xff\x1b[2J"


def produce(folder: Path, topic: str, *records: tuple[str | None, bytes]) -> None:
    """Write records with keys to a topic, in the format of `consume -O json`."""
    lines = [
        json.dumps({"key": key, "value": value.decode()})
        if value != BINARY
        else json.dumps({"key": key, "value": "AP8bWzJK", "value_encoding": "base64"})
        for key, value in records
    ]
    given = "\n".join(lines).encode()
    assert run(folder, "produce", topic, "--input", "json", given=given).code == 0


def run_job(folder: Path, app: str = "orders", where: str = '"orders-dead"') -> None:
    (folder / f"{app}.py").write_text(JOB.replace("{app}", app).replace("{where}", where))
    ended = run(folder, "run", f"{app}.py", "--once")
    assert ended.code == 0, ended.err


def rows(folder: Path, *arguments: str) -> list[dict[str, object]]:
    ended = run(folder, "dlq", "list", *arguments, "-O", "json")
    assert ended.code == 0, ended.err
    found: list[dict[str, object]] = json.loads(ended.out)
    return found


def places(folder: Path, *arguments: str) -> list[object]:
    return [row["place"] for row in rows(folder, *arguments)]


# --- reading ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a topic of four letters. No test changes it."""
    folder = tmp_path_factory.mktemp("dlq")
    with started(folder, "broker", "start", "--sc-port", "0", "--spu-port", "0") as process:
        ready_line(process)
        records = [("a", GOOD), ("b", TEXT), ("k\x1b[0m", NEGATIVE), (None, BINARY), ("d", HEAVY)]
        produce(folder, "orders", *records)
        run_job(folder)
        yield folder
        process.terminate()


def test_a_list_has_one_line_for_each_letter(folder: Path) -> None:
    listed = run(folder, "dlq", "list", "orders-dead")
    assert (listed.code, listed.err) == (0, "")
    assert listed.lines[0].split() == (
        b"PLACE FAILED AT APP STAGE KEY ATTEMPTS ERROR TYPE ERROR".split()
    )
    assert len(listed.lines) == 5
    assert b"\x1b" not in listed.out
    assert b"ValueError       bad\\x1b[31m amount\\nof eve" in listed.out
    assert b"k\\x1b[0m" in listed.out


def test_a_list_for_programs_has_where_the_record_came_from(folder: Path) -> None:
    (row,) = rows(folder, "orders-dead", "--stage", "sent")
    assert str(row.pop("failed_at")).endswith("Z")
    place = row.pop("place")
    assert place in places(folder, "orders-dead")
    assert row == {
        "state": "waiting",
        "app": "orders",
        "version": "1.2",
        "stage": "sent",
        "topic": "orders",
        "partition": 0,
        "offset": 4,
        "key": "d",
        "key_base64": None,
        "attempts": 1,
        "error_type": "OSError",
        "error": "OSError: too heavy",
        "is_replayable": False,
    }


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ([], 4),
        (["--stage", "parse"], 2),
        (["--error", "ValueError"], 1),
        (["--stage", "parse", "--error", "ValueError"], 0),
        (["--app", "orders"], 4),
        (["-n", "3"], 3),
        (["-n", "9"], 4),
        (["--all"], 4),
    ],
)
def test_a_list_has_only_the_wanted_letters(folder: Path, options: list[str], count: int) -> None:
    assert len(rows(folder, "orders-dead", *options)) == count


def test_an_empty_list_says_so(folder: Path) -> None:
    ended = run(folder, "dlq", "list", "orders-dead", "--error", "KeyError")
    assert (ended.code, ended.out) == (0, b"")
    assert ended.err == "no matching dead letters are waiting in orders-dead\n"


def place_of(folder: Path, stage: str, error: str) -> str:
    (row,) = rows(folder, "orders-dead", "--stage", stage, "--error", error)
    return str(row["place"])


def test_a_letter_is_shown_with_its_value_and_stack(folder: Path) -> None:
    place = place_of(folder, "check", "ValueError")
    shown = run(folder, "dlq", "show", "orders-dead", place).out.decode()
    assert "\x1b" not in shown
    facts = dict(line.split(":", 1) for line in shown.splitlines() if ":" in line)
    assert facts["place"].strip() == place
    assert facts["can be replayed"].strip() == "yes"
    assert facts["app"].strip() == "orders (version 1.2)"
    assert facts["record"].strip() == "orders-0 offset 2"
    assert facts["key"].strip() == "k\\x1b[0m"
    assert 'value:\n  {\n    "customer": "eve",\n    "amount": -1.0\n  }\nstack:\n' in shown
    assert "  Traceback (most recent call last):" in shown
    assert shown.endswith("  of eve\n")


def test_a_place_without_a_partition_is_one_of_the_only_partition(folder: Path) -> None:
    place = place_of(folder, "check", "ValueError")
    short = run(folder, "dlq", "show", "orders-dead", place.removeprefix("0:"))
    assert short.out == run(folder, "dlq", "show", "orders-dead", place).out


def test_a_value_that_is_not_text_is_shown_in_hex(folder: Path) -> None:
    place = place_of(folder, "parse", "DecodeError")
    shown = run(folder, "dlq", "show", "orders-dead", place).out
    assert b"  00000000  00 ff 1b 5b 32 4a" in shown


def test_a_value_that_cannot_be_read_back_is_shown_with_the_reason(folder: Path) -> None:
    place = place_of(folder, "sent", "OSError")
    shown = run(folder, "dlq", "show", "orders-dead", place).out.decode()
    assert "can be replayed: no, the value is of a type that cannot be written" in shown


def test_a_letter_is_shown_as_it_is_stored(folder: Path) -> None:
    place = place_of(folder, "check", "ValueError")
    shown = run(folder, "dlq", "show", "orders-dead", place, "-O", "json").out
    stored = run(folder, "consume", "orders-dead", "-B", "-d", "-O", "raw").lines
    assert shown.rstrip() == stored[int(place.removeprefix("0:"))]


def test_letters_are_counted(folder: Path) -> None:
    counted = run(folder, "dlq", "count", "orders-dead", "--by", "stage")
    assert (counted.code, counted.err) == (0, "")
    assert counted.lines[0] == b"4 dead letters waiting in orders-dead"
    assert sorted(counted.lines[1:]) == [b"1 check", b"1 sent", b"2 parse"]


def test_one_letter_is_counted_in_the_singular(folder: Path) -> None:
    counted = run(folder, "dlq", "count", "orders-dead", "--stage", "check")
    assert counted.lines == [b"1 dead letter waiting in orders-dead"]


def test_the_counts_for_programs_are_one_object(folder: Path) -> None:
    counted = run(folder, "dlq", "count", "orders-dead", "--by", "error", "-O", "json")
    assert json.loads(counted.out) == {
        "count": 4,
        "done": 0,
        "others": 0,
        "by": {"ValidationError": 1, "DecodeError": 1, "ValueError": 1, "OSError": 1},
    }
    counted = run(folder, "dlq", "count", "orders-dead", "-O", "json")
    assert json.loads(counted.out) == {"count": 4, "done": 0, "others": 0}


@pytest.mark.parametrize("command", ["list", "count"])
def test_records_that_are_not_letters_are_counted_and_named(folder: Path, command: str) -> None:
    ended = run(folder, "dlq", command, "orders")
    assert ended.code == 0
    assert "5 records are not dead letters: 0:0, 0:1, 0:2, ..." in ended.err


def test_a_record_that_is_not_a_letter_cannot_be_shown(folder: Path) -> None:
    ended = run(folder, "dlq", "show", "orders", "0")
    assert (ended.code, ended.out) == (1, b"")
    assert "orders 0:0: this is not a dead letter" in ended.err


@pytest.mark.parametrize(
    "arguments",
    [["list"], ["count"], ["show", "0"], ["drop", "--app", "orders", "--yes"]],
    ids=lambda arguments: arguments[0],
)
def test_a_missing_topic_is_an_error_with_the_closest_name(
    folder: Path, arguments: list[str]
) -> None:
    command, *more = arguments
    ended = run(folder, "dlq", command, "orders-ded", *more)
    assert ended.code == 1
    assert "topic not found: orders-ded" in ended.err
    assert "did you mean 'orders-dead'?" in ended.err


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("x", "'x' is not a valid place (examples: 12, 0:12)"),
        ("-1", "no such option"),
        ("1:0", "has no partition 1"),
        ("99", "has no offset 99: it has 0 to 3"),
        ("9" * 30, "is not a valid place"),
    ],
)
def test_an_invalid_place_is_refused(folder: Path, place: str, text: str) -> None:
    ended = run(folder, "dlq", "show", "orders-dead", place)
    assert ended.code == 2
    assert text in ended.err


def test_letters_of_an_app_without_state_are_waiting(folder: Path) -> None:
    options = ("--data-dir", "other", "--cluster", cluster_of(folder))
    ended = run(folder, "dlq", "list", "orders-dead", *options)
    assert len(ended.lines) == 5
    assert "all dead letters of 'orders' count as waiting: other/state has no state" in ended.err


def cluster_of(folder: Path) -> str:
    report = run(folder, "run", "orders.py", "--once").err
    return report.partition("the embedded broker at ")[2].split()[0]


def test_a_closed_pipe_ends_a_list_in_silence(folder: Path) -> None:
    command = f"{' '.join(COMMAND)} dlq list orders-dead -O json | head -n 1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=folder,
        env=environment(),
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"[\n", b"")


# --- files --------------------------------------------------------------------------------


def letters_file(folder: Path, **fields: object) -> str:
    """Write a file with two letters, in the lines 1 and 4."""
    letter = {
        "app": "orders",
        "stage": "parse",
        "topic": "orders",
        "partition": 0,
        "offset": 7,
        "error_type": "ValueError",
        "error": "ValueError: bad",
        "attempts": 1,
        "failed_at_ms": 1_700_000_000_000,
    }
    lines = [json.dumps(letter | fields), "text", "", json.dumps(letter | {"value": "v"})]
    (folder / "dead.jsonl").write_text("\n".join(lines) + "\n")
    return "dead.jsonl"


def test_letters_of_a_file_are_listed_and_counted_without_a_broker(tmp_path: Path) -> None:
    name = letters_file(tmp_path)
    listed = run(tmp_path, "dlq", "list", name)
    assert [line.split()[0] for line in listed.lines] == [b"PLACE", b"1", b"4"]
    assert listed.err == "2 records are not dead letters: 2, 3\n"
    counted = run(tmp_path, "dlq", "count", f"./{name}", "--by", "app")
    assert counted.lines == [b"2 dead letters waiting in ./dead.jsonl", b"2 orders"]
    assert not (tmp_path / ".streamkit").exists()


def test_a_letter_of_a_file_is_shown_by_its_line(tmp_path: Path) -> None:
    name = letters_file(tmp_path)
    shown = run(tmp_path, "dlq", "show", name, "4")
    assert b"value:\n  v\n" in shown.out
    assert b"can be replayed: no, only topics are replayed" in shown.out
    assert "has no line 9" in run(tmp_path, "dlq", "show", name, "9").err
    assert "not a dead letter" in run(tmp_path, "dlq", "show", name, "2").err
    assert "the number of the line" in run(tmp_path, "dlq", "show", name, "0:1").err


def test_texts_of_a_letter_cannot_change_the_terminal(tmp_path: Path) -> None:
    hostile = "a\x1b[2J\u202eb\r\nc\u2028\x9b"
    texts = ("app", "stage", "key", "error_type", "error", "value", "stack")
    name = letters_file(tmp_path, **dict.fromkeys(texts, hostile))
    listed = run(tmp_path, "dlq", "list", name).out.decode()
    assert len(listed.splitlines()) == 3
    shown = run(tmp_path, "dlq", "show", name, "1").out.decode()
    counted = run(tmp_path, "dlq", "count", name, "--by", "stage").out.decode()
    stored = run(tmp_path, "dlq", "show", name, "1", "-O", "json").out.decode()
    for text in (listed, shown, counted, stored):
        assert not {"\x1b", "\x9b", "\r"} & set(text)
    for text in (listed, shown, counted):
        assert not {"\u202e", "\u2028"} & set(text)
    assert json.loads(stored)["error"] == hostile


def test_long_texts_are_cut_in_a_list_but_shown_complete(tmp_path: Path) -> None:
    name = letters_file(tmp_path, error="e" * 9_000, value="v" * 9_000, failed_at_ms=2**60)
    listed = run(tmp_path, "dlq", "list", name)
    assert max(map(len, listed.lines)) < 200
    shown = run(tmp_path, "dlq", "show", name, "1").out
    assert b"e" * 9_000 in shown
    assert b"v" * 9_000 in shown


def test_letters_of_a_file_cannot_be_dropped(tmp_path: Path) -> None:
    ended = run(tmp_path, "dlq", "drop", letters_file(tmp_path), "--app", "orders", "--yes")
    assert (ended.code, "delete the file" in ended.err) == (2, True)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    ended = run(tmp_path, "dlq", "list", "dead.jsonl")
    assert (ended.code, ended.out) == (2, b"")
    assert "cannot read dead.jsonl: No such file or directory" in ended.err


def test_a_job_writes_letters_to_a_file(tmp_path: Path) -> None:
    produce(tmp_path, "orders", ("d", HEAVY))
    run_job(tmp_path, where='JsonLines("dead.jsonl")')
    (row,) = rows(tmp_path, "dead.jsonl")
    assert (row["place"], row["stage"]) == ("1", "sent")


def test_an_output_without_unicode_gets_escapes(tmp_path: Path) -> None:
    name = letters_file(tmp_path, key="\u00fc")
    assert "\u00fc" in run(tmp_path, "dlq", "list", name).out.decode()
    ended = run(tmp_path, "dlq", "list", name, variables={"PYTHONIOENCODING": "ascii"})
    assert (ended.code, b"\\xfc" in ended.out) == (0, True)


# --- dropping -----------------------------------------------------------------------------


def drop(folder: Path, *arguments: str, app: str = "orders") -> Ended:
    return run(folder, "dlq", "drop", "orders-dead", "--app", app, *arguments)


def test_dropped_letters_are_done_and_later_ones_are_waiting(tmp_path: Path) -> None:
    produce(tmp_path, "orders", ("b", TEXT), ("e", NEGATIVE))
    run_job(tmp_path)
    dropped = drop(tmp_path, "--yes")
    assert (dropped.code, dropped.err) == (0, "")
    assert dropped.out == b'2 dead letters of "orders" in topic "orders-dead" dropped\n'
    again = drop(tmp_path, "--yes")
    assert (again.code, "nothing is dropped" in again.err) == (0, True)
    assert "done: 2, --all lists them" in run(tmp_path, "dlq", "list", "orders-dead").err
    produce(tmp_path, "orders", ("b", TEXT))
    run_job(tmp_path)  # it resumes, so nothing fails for the second time
    assert places(tmp_path, "orders-dead") == ["0:2"]
    states = [row["state"] for row in rows(tmp_path, "orders-dead", "--all")]
    assert states == ["done", "done", "waiting"]
    shown = run(tmp_path, "dlq", "show", "orders-dead", "0").out
    assert b"can be replayed: no, it has been replayed or dropped" in shown


def test_letters_are_dropped_up_to_a_place(tmp_path: Path) -> None:
    run(tmp_path, "topic", "create", "orders-dead", "-p", "2")
    records = [(str(key), TEXT) for key in range(12)]
    produce(tmp_path, "orders", *records)
    run_job(tmp_path)
    before = places(tmp_path, "orders-dead")
    assert {str(place)[:2] for place in before} == {"0:", "1:"}
    assert "can be a place in each" in drop(tmp_path, "--until", "1", "--yes").err
    assert "has no offset 99" in drop(tmp_path, "--until", "1:99", "--yes").err
    dropped = drop(tmp_path, "--until", "1:1", "--yes")
    assert dropped.out.startswith(b"2 dead letters")
    after = [place for place in before if place not in ("1:0", "1:1")]
    assert places(tmp_path, "orders-dead") == after
    assert "nothing is dropped" in drop(tmp_path, "--until", "1:0", "--yes").err
    dropped = drop(tmp_path, "--until", "0:0", "--until", "1:2", "--yes")
    assert dropped.out.startswith(b"2 dead letters")


def test_only_letters_of_the_app_are_dropped(tmp_path: Path) -> None:
    produce(tmp_path, "orders", ("b", TEXT), ("e", NEGATIVE))
    run_job(tmp_path)
    run_job(tmp_path, app="other")
    assert drop(tmp_path, "--yes", app="other").out.startswith(b"2 dead letters of")
    assert {row["app"] for row in rows(tmp_path, "orders-dead")} == {"orders"}
    counted = run(tmp_path, "dlq", "count", "orders-dead", "--all", "--by", "app").lines
    assert counted == [b"4 dead letters in orders-dead", b"2 orders", b"2 other"]


def test_letters_of_a_running_job_are_listed_but_not_dropped(tmp_path: Path) -> None:
    produce(tmp_path, "orders", ("b", TEXT))
    run_job(tmp_path)
    with started(tmp_path, "run", "orders.py") as running:
        read_until(running, b"records waiting")
        assert places(tmp_path, "orders-dead") == ["0:0"]
        refused = drop(tmp_path, "--yes")
        assert refused.code == 4
        assert "another run of 'orders' is in progress" in refused.err
        assert "hint: stop it first" in refused.err


def test_an_app_without_state_is_an_error(tmp_path: Path) -> None:
    produce(tmp_path, "orders", ("b", TEXT))
    run_job(tmp_path)
    for app in ("ordres", "../state/orders", ""):
        ended = drop(tmp_path, "--yes", app=app)
        assert (ended.code, ended.out) == (2, b"")


def test_a_drop_is_confirmed_on_a_terminal(tmp_path: Path) -> None:
    produce(tmp_path, "orders", ("b", TEXT))
    run_job(tmp_path)
    refused = drop(tmp_path)
    assert (refused.code, "add --yes" in refused.err) == (2, True)
    assert answered(tmp_path, b"n\n")[0] == 130
    assert places(tmp_path, "orders-dead") == ["0:0"]
    code, shown = answered(tmp_path, b"y\n")
    assert code == 0
    assert b"drop 1 dead letter of 'orders' in orders-dead? A replay will skip it [y/N]" in shown
    assert places(tmp_path, "orders-dead") == []


def answered(folder: Path, answer: bytes) -> tuple[int, bytes]:
    """Run `drop` on a terminal and type an answer."""
    mine, theirs = os.openpty()
    try:
        command = [*COMMAND, "dlq", "drop", "orders-dead", "--app", "orders"]
        with subprocess.Popen(
            command,
            cwd=folder,
            env=environment(),
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process:
            os.write(mine, answer)
            shown, _ = process.communicate(timeout=WAIT_S)
        return process.returncode, shown
    finally:
        os.close(mine)
        os.close(theirs)


def test_letters_of_a_topic_that_was_created_again_are_waiting(tmp_path: Path) -> None:
    produce(tmp_path, "orders", ("b", TEXT), ("e", NEGATIVE))
    run_job(tmp_path)
    drop(tmp_path, "--yes")
    run(tmp_path, "topic", "delete", "orders-dead")
    produce(tmp_path, "orders", ("e", NEGATIVE), ("b", TEXT), ("b", TEXT))
    run_job(tmp_path)
    listed = run(tmp_path, "dlq", "list", "orders-dead")
    assert len(listed.lines) == 4
    assert "the topic 'orders-dead' was created again" in listed.err
    assert drop(tmp_path, "--yes").out.startswith(b"3 dead letters")
    assert places(tmp_path, "orders-dead") == []


NUMBERS = """
from collections.abc import Iterator
from streamkit import App
app = App("orders")
@app.source(name="replay-orders-dead")
def numbers(resume: str | None) -> Iterator[tuple[str, int]]:
    yield "first", 1
numbers.to("numbers")
"""


def test_positions_of_another_source_with_that_name_are_not_changed(tmp_path: Path) -> None:
    produce(tmp_path, "orders", ("b", TEXT))
    run_job(tmp_path)
    (tmp_path / "numbers.py").write_text(NUMBERS)
    assert run(tmp_path, "run", "numbers.py").code == 0
    listed = run(tmp_path, "dlq", "list", "orders-dead")
    assert (len(listed.lines), "is a source of another kind" in listed.err) == (2, True)
    dropped = drop(tmp_path, "--yes")
    assert (dropped.code, "nothing was dropped" in dropped.err) == (1, True)


def test_a_replay_begins_after_the_dropped_letters_and_makes_the_others_done(
    tmp_path: Path,
) -> None:
    produce(tmp_path, "orders", ("b", TEXT), ("e", NEGATIVE), ("b", TEXT))
    run_job(tmp_path)
    assert [row["stage"] for row in rows(tmp_path, "orders-dead")] == ["parse", "parse", "check"]
    drop(tmp_path, "--until", "1", "--yes")
    ended = run(tmp_path, "dlq", "replay", "orders.py", "orders-dead")
    assert ended.code == 0, ended.err
    listed = rows(tmp_path, "orders-dead", "--all")
    assert [row["state"] for row in listed] == ["done", "done", "done", "waiting"]
    assert listed[3]["stage"] == "check"  # it has failed again
