"""Programs for tests of `streamkit.sync` that need a separate process.

Ctrl-C in the main thread, the end of the interpreter and forks cannot be tested inside pytest.
Each function of `SCENARIOS` is such a program: it gets a client and the name of a topic.
`test_processes.py` starts one and exchanges lines with it: `say` prints a line for the test,
`hear` waits for a line from the test. Example: `interrupt_flush` waits in ``producer.flush()``,
because the test delays the responses of the broker. The program sends itself SIGINT and prints
"interrupted". When the test forwards the responses, the program must send and flush again.

To run one by hand against a broker: python -m tests.client.sync.program SCENARIO ADDRESS TOPIC
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Final

from streamkit.errors import UsageError
from streamkit.sync import Client, Consumer, Producer

RECORDS: Final = 1_000
_SAMPLES: Final = 10


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201


def hear() -> None:
    """Wait until the test sends a line."""
    assert sys.stdin.readline(), "the test has ended"


# --- Ctrl-C in each wait ---------------------------------------------------------------------


def interrupt_once_it_waits() -> None:
    """Send this process SIGINT when its main thread waits inside the client."""
    main = threading.main_thread().ident
    assert main is not None
    tick = threading.Event()

    def watch() -> None:
        still, last = 0, ""
        while still < _SAMPLES:
            tick.wait(0.01)
            stack = "".join(traceback.format_stack(sys._current_frames()[main]))
            is_same = stack == last and "streamkit/sync" in stack
            still, last = still + 1 if is_same else 0, stack
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=watch, daemon=True).start()


def interrupted(wait: Callable[[], object]) -> None:
    """Start a wait that would not end, interrupt it, and let the test remove its cause."""
    interrupt_once_it_waits()
    try:
        wait()
    except KeyboardInterrupt:
        say("interrupted")
    else:
        raise AssertionError("it did not wait")
    hear()


def fill(producer: Producer) -> None:
    """Send until the queue is full."""
    for number in range(1 << 20):
        producer.send(b"%d" % number)
        say_sent(number)


def say_sent(number: int) -> None:
    global sent
    sent = number + 1


sent = 0


def interrupt_handle(client: Client, topic: str) -> None:
    with client.producer(topic) as producer:
        handle = producer.send(b"first")
        interrupted(handle.wait)
        assert handle.wait().offset == 0
        assert producer.send(b"second").wait().offset == 1


def interrupt_handle_of_many(client: Client, topic: str) -> None:
    with client.producer(topic) as producer:
        handle = producer.send_many([b"first", b"second"])
        interrupted(handle.wait)
        assert list(handle.wait().offsets) == [0, 1]


def interrupt_flush(client: Client, topic: str) -> None:
    with client.producer(topic) as producer:
        producer.send(b"first")
        interrupted(producer.flush)
        producer.send(b"second")
        producer.flush()


def interrupt_close(client: Client, topic: str) -> None:
    producer = client.producer(topic)
    producer.send(b"first")
    interrupted(producer.close)
    producer.send(b"second")
    producer.close()


def interrupt_full_queue(client: Client, topic: str) -> None:
    with client.producer(topic, queue_bytes=1_000) as producer:
        interrupted(lambda: fill(producer))
        say(str(sent))
        producer.send(b"last")


def interrupt_full_queue_of_many(client: Client, topic: str) -> None:
    with client.producer(topic, queue_bytes=1_000) as producer:
        interrupted(lambda: [producer.send_many([bytes(500)] * 4) for _ in range(100)])
        producer.send(b"last")


def interrupt_records(client: Client, topic: str) -> None:
    with client.consumer(topic) as consumer:
        interrupted(lambda: next(iter(consumer)))
        assert next(iter(consumer)).value == b"from the test"


def interrupt_chunks(client: Client, topic: str) -> None:
    with client.consumer(topic) as consumer:
        interrupted(lambda: next(consumer.chunks()))
        assert [*next(consumer.chunks()).values] == [b"from the test"]


def interrupt_block(client: Client, topic: str) -> None:
    """Leave the block of a producer whose records cannot be sent; it must end in time."""
    try:
        with client.producer(topic) as producer:
            interrupt_once_it_waits()
            producer.send(b"first").wait()
    except KeyboardInterrupt as error:
        say(f"interrupted: {' '.join(error.__notes__)}")
    hear()


# --- exit ------------------------------------------------------------------------------------


def exit_unclosed(client: Client, topic: str) -> None:
    producer = client.producer(topic)
    for number in range(RECORDS):
        producer.send(b"%d" % number)


def exit_dropped(client: Client, topic: str) -> None:
    for number in range(17):
        client.producer(topic).send(b"%d" % number)


def exit_by_error(client: Client, topic: str) -> None:
    exit_unclosed(client, topic)
    raise ZeroDivisionError


def exit_by_system_exit(client: Client, topic: str) -> None:
    with client.producer(topic) as producer:
        for number in range(RECORDS):
            producer.send(b"%d" % number)
        sys.exit(3)


def exit_unsent(client: Client, topic: str) -> None:
    producer = client.producer(topic)
    for number in range(17):
        producer.send(b"%d" % number)


def exit_refused(client: Client, topic: str) -> None:
    client.producer(topic).send(bytes(2_000))


def exit_by_name(client: Client, topic: str) -> None:
    """Look up a host name when the interpreter accepts no more work for its threads."""
    port = client.address.rpartition(":")[2]

    def send_late() -> None:
        with Client.connect(f"localhost:{port}") as late:
            late.producer(topic).send(b"late").wait()

    client.admin.list_topics()  # starts the loop, which then ends after this function
    atexit.register(send_late)


def exit_used_after(client: Client, topic: str) -> None:
    """Use a client in an atexit function that runs after the client's own."""

    def send_too_late() -> None:
        try:
            producer.send(b"too late")
        except UsageError as error:
            say(str(error))

    at_the_very_end.append(send_too_late)
    producer = client.producer(topic)
    producer.send(b"in time")


def exit_while_sending(client: Client, topic: str) -> None:
    """Exit while threads send; print how many records were accepted."""
    producer = client.producer(topic, queue_bytes=10_000)
    accepted = [0] * 4
    many = threading.Event()

    def send(thread: int) -> None:
        try:
            while True:
                producer.send(b"%d" % thread)
                accepted[thread] += 1
                if accepted[thread] == RECORDS:
                    many.set()
        except UsageError:
            pass

    threads = [threading.Thread(target=send, args=(each,), daemon=True) for each in range(4)]
    for thread in threads:
        thread.start()

    def tell() -> None:
        for thread in threads:
            thread.join()
        say(str(sum(accepted)))

    at_the_very_end.append(tell)
    many.wait()


# --- forks -----------------------------------------------------------------------------------


def fork(client: Client, topic: str) -> None:
    producer, consumer = client.producer(topic), client.consumer(topic)
    handle = producer.send(b"parent 1")
    next(iter(consumer))
    child = os.fork()
    if child == 0:
        say("child")
        for call in uses(client, producer, consumer):
            if not is_refused(call):
                os._exit(1)
        with Client.connect(client.address) as own, own.producer(topic) as own_producer:
            own_producer.send(b"child")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    handle.wait()
    assert producer.send(b"parent 2").wait().offset == 2


def is_refused(call: Callable[[], object]) -> bool:
    try:
        call()
    except UsageError as error:
        return "forked" in str(error)
    return False


def uses(client: Client, producer: Producer, consumer: Consumer) -> list[Callable[[], object]]:
    return [
        lambda: producer.send(b"x"),
        lambda: producer.send_many([b"x"]),
        producer.flush,
        producer.close,
        lambda: next(iter(consumer)),
        consumer.lag,
        lambda: client.producer("t").open(),
        client.admin.list_topics,
    ]


def fork_by_multiprocessing(client: Client, topic: str) -> None:
    client.admin.list_topics()
    arguments = (client.address, topic)
    for process in (
        multiprocessing.get_context("fork").Process(target=send_unclosed, args=arguments),
        multiprocessing.get_context("spawn").Process(target=send_unclosed, args=arguments),
    ):
        process.start()
        process.join()
        assert process.exitcode == 0


def send_unclosed(address: str, topic: str) -> None:
    Client.connect(address).producer(topic).send(b"child")


SCENARIOS: Final[dict[str, Callable[[Client, str], None]]] = {
    each.__name__: each
    for each in (
        interrupt_handle,
        interrupt_handle_of_many,
        interrupt_flush,
        interrupt_close,
        interrupt_full_queue,
        interrupt_full_queue_of_many,
        interrupt_records,
        interrupt_chunks,
        interrupt_block,
        exit_unclosed,
        exit_dropped,
        exit_by_error,
        exit_by_system_exit,
        exit_unsent,
        exit_refused,
        exit_by_name,
        exit_used_after,
        exit_while_sending,
        fork,
        fork_by_multiprocessing,
    )
}

at_the_very_end: list[Callable[[], None]] = []


def end() -> None:
    for function in at_the_very_end:
        function()


if __name__ == "__main__":
    atexit.register(end)  # registered before the client's own function, so it runs after it
    name, address, topic_name = sys.argv[1:]
    SCENARIOS[name](Client.connect(address), topic_name)
