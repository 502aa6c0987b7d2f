"""A script with a job; ``END`` says how it ends."""

import multiprocessing
import os
import signal
import sys
import threading
import time

from streamkit import App, Topic
from streamkit.run import RunKeywords

END = os.environ["END"]
HANGING = ("hangs", "loops")
app = App("script-" + END.replace(" ", "-"))
options: RunKeywords = {
    "embedded": True,
    "data_dir": "data",
    "commit_interval": 60,
    "stop_deadline": 0.5 if END in HANGING else 20,
}


def change(number: int) -> int:
    if number == 39 and END == "hangs":
        time.sleep(3_600)  # hanging
    while number == 39 and END == "loops":
        pass
    return number


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


app.stream("numbers", int).map(change).to(Topic(f"out-{app.name}", int))


def run_until_all_are_read() -> None:
    job = app.start(**options)
    while job.progress.records_out < 39 and END not in HANGING:
        time.sleep(0.01)
    time.sleep(1 if END in HANGING else 0)
    say("ready")


if END in ("no stop", *HANGING):
    run_until_all_are_read()
elif END == "error":
    run_until_all_are_read()
    raise ValueError("of the script")
elif END == "thread":

    def work() -> None:
        with app.start(**options) as job:
            threading.main_thread().join()
            time.sleep(0.5)
            say(f"is running: {job.is_running}")

    threading.Thread(target=work).start()
elif END == "thread without stop":

    def work_on() -> None:
        job = app.start(**options)
        threading.main_thread().join()
        while job.progress.records_out < 40:
            time.sleep(0.01)
        say(f"is running: {job.is_running}")

    threading.Thread(target=work_on).start()
elif END in ("fork", "spawn"):
    if __name__ == "__main__":
        multiprocessing.set_start_method(END)
        process = multiprocessing.Process(target=run_until_all_are_read)
        process.start()
        process.join()
        sys.exit(process.exitcode)
elif END == "fork while it runs":
    with app.start(**options) as job:
        while job.progress.records_out < 40:
            time.sleep(0.01)
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(0,))
        child.start()
        child.join()
        say(f"is running: {job.is_running} {child.exitcode}")
elif END == "interrupt":
    try:
        with app.start(**options) as job:
            while job.progress.records_out < 40:
                time.sleep(0.01)
            say("ready")
            job.wait()
    except KeyboardInterrupt:
        say(f"interrupted, running: {job.is_running}")
elif END == "sigterm":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(7))
    with app.start(**options) as job:
        while job.progress.records_out < 40:
            time.sleep(0.01)
        say("ready")
        job.wait()
elif END == "no broker":
    say("ready")
    app.start(cluster="127.0.0.1:1", data_dir="elsewhere")
