"""Pools of processes in programs, as users start them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent

import pytest

# A source uses the pool, because it runs in the event loop of the job.
JOB = """
import asyncio
import os
import sys
from dataclasses import dataclass

from streamkit import App
from streamkit.runtime.call_processes import CallProcesses

print("imported", file=sys.stderr)
app = App("calls")


@dataclass
class Order:
    price: int


@app.source()
async def orders():
    done = asyncio.Queue()
    pool = CallProcesses(double.function, "double", 2, lambda *found: done.put_nowait(found))
    for number in range(3):
        pool.start(number, (Order(number),))
        _, result, error = await done.get()
        assert error is None, error
        assert isinstance(result, Order)
        yield result
    await pool.close()


@app.stage(orders)
def double(order: Order) -> Order:
    return Order(order.price * 2)


@app.sink(double)
def show(order: Order) -> None:
    print(order.price)
"""
UNGUARDED = JOB + "\n\napp.run()\n"
GUARDED = JOB + '\n\nif __name__ == "__main__":\n    app.run()\n'
EXPECTED = "0\n4\n8\n"


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(text))
    return path


def environment(folder: Path) -> dict[str, str]:
    root = os.fspath(Path(__file__).parents[2])
    return {**os.environ, "PYTHONPATH": root, "STREAMKIT_DATA_DIR": str(folder / "data")}


def ran(folder: Path, *arguments: str, shell: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    if shell:
        command = ["/bin/sh", "-c", f'exec "$@" {shell}', "sh", *command]
    return subprocess.run(
        command,
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize("job", [GUARDED, UNGUARDED], ids=["guarded", "unguarded"])
@pytest.mark.parametrize(
    "arguments",
    [
        ("job.py",),
        ("-m", "job"),
        ("-m", "streamkit", "run", "job.py"),
        ("-m", "streamkit", "run", "job:app"),
        ("-W", "error", "-X", "dev", "-m", "streamkit", "run", "job.py"),
    ],
    ids=" ".join,
)
def test_a_job_that_is_started_in_any_way_uses_processes(
    tmp_path: Path, arguments: tuple[str, ...], job: str
) -> None:
    write(tmp_path, "job.py", job)
    done = ran(tmp_path, *arguments)
    assert done.stdout == EXPECTED, done.stderr
    assert done.returncode == 0, done.stderr
    # The job itself and one process; the note that `app.run()` does not run is not repeated.
    assert done.stderr.count("imported\n") == 2
    assert done.stderr.count("does not run while") <= 1
    assert "Warning" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [("-m", "shop.jobs.etl"), ("-m", "streamkit", "run", "shop/jobs/etl.py")],
    ids=" ".join,
)
def test_a_job_in_a_package_with_relative_imports_uses_processes(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    write(tmp_path, "shop/__init__.py", "")
    write(tmp_path, "shop/jobs/__init__.py", "")
    write(tmp_path, "shop/jobs/names.py", "FACTOR = 2\n")
    text = GUARDED.replace("import asyncio\n", "import asyncio\nfrom .names import FACTOR\n", 1)
    write(tmp_path, "shop/jobs/etl.py", text.replace("order.price * 2", "order.price * FACTOR"))
    done = ran(tmp_path, *arguments)
    assert done.stdout == EXPECTED, done.stderr


def test_a_job_whose_file_has_the_name_of_a_standard_module_uses_processes(tmp_path: Path) -> None:
    write(tmp_path, "json.py", GUARDED)
    done = ran(tmp_path, "-m", "streamkit", "run", "json.py")
    assert done.stdout == EXPECTED, done.stderr


def test_modules_that_import_each_other_are_imported_in_the_order_of_the_job(
    tmp_path: Path,
) -> None:
    before, after = JOB.split("@app.stage(orders)")
    stage, sink = after.split("@app.sink(double)")
    write(
        tmp_path,
        "job.py",
        before + "from stages import double\n\n\n@app.sink(double)" + sink,
    )
    write(tmp_path, "stages.py", "from job import app, orders, Order\n\n@app.stage(orders)" + stage)
    done = ran(tmp_path, "-m", "streamkit", "run", "job.py")
    assert done.stdout == EXPECTED, done.stderr


def test_a_function_of_another_module_gets_values_of_the_main_file(tmp_path: Path) -> None:
    write(tmp_path, "maths.py", "def twice(order):\n    return type(order)(order.price * 2)\n")
    text = GUARDED.replace("CallProcesses(double.function", "CallProcesses(maths.twice")
    write(tmp_path, "job.py", "import maths\n" + text)
    done = ran(tmp_path, "job.py")
    assert done.stdout == EXPECTED, done.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_job_without_standard_streams_uses_processes(tmp_path: Path, closed: str) -> None:
    text = GUARDED.replace("print(order.price)", "open('out', 'a').write(f'{order.price}\\n')")
    write(tmp_path, "job.py", text)
    done = ran(tmp_path, "job.py", shell=closed)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out").read_text() == EXPECTED


POOL = """
import asyncio
import os
import sys
import time

from streamkit.runtime.call_processes import CallProcesses


def report(number, result, error):
    print(number, result, type(error).__name__, error, flush=True)


async def use(function, *arguments, count=1, seconds=60, processes=1):
    done = asyncio.Queue()

    def on_done(*found):
        report(*found)
        done.put_nowait(found)

    pool = CallProcesses(function, "work", processes, on_done)
    for number in range(count):
        pool.start(number, arguments)
        async with asyncio.timeout(seconds):
            await done.get()
    await pool.close()
"""


def test_what_a_function_prints_is_output_of_the_job_but_its_import_is_not(tmp_path: Path) -> None:
    text = """
    print("import of", __name__)

    def work():
        print("in the call")
        return 1

    if __name__ == "__main__":
        asyncio.run(use(work))
    """
    done = ran(tmp_path, str(write(tmp_path, "job.py", POOL + dedent(text))))
    assert sorted(done.stdout.splitlines()) == [
        "0 1 NoneType None",
        "import of __main__",
        "in the call",
    ]
    assert done.stderr == "import of __mp_main__\n"


def test_a_module_that_cannot_be_imported_fails_the_calls_after_three_attempts(
    tmp_path: Path,
) -> None:
    text = """
    if __name__ != "__main__":
        print("attempt", file=sys.stderr)
        import not_installed

    def work():
        return 1

    if __name__ == "__main__":
        asyncio.run(use(work, count=4))
    """
    done = ran(tmp_path, str(write(tmp_path, "job.py", POOL + dedent(text))))
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines if "ProcessNotStarted" in line] == list("0123")
    assert "job.py:" in done.stdout
    assert "No module named 'not_installed'" in done.stdout
    assert done.stderr.count("attempt") == 3
    assert done.returncode == 0


@pytest.mark.parametrize("how", ["os._exit(5)", "os.kill(os.getpid(), 9)", "raise SystemExit(2)"])
def test_a_process_that_ends_during_its_import_is_not_started_for_ever(
    tmp_path: Path, how: str
) -> None:
    text = f"""
    if __name__ != "__main__":
        {how}

    def work():
        return 1

    if __name__ == "__main__":
        asyncio.run(use(work, count=2))
    """
    done = ran(tmp_path, str(write(tmp_path, "job.py", POOL + dedent(text))))
    assert done.stdout.count("ProcessNotStarted") == 2, done.stderr


def test_a_start_that_fails_once_is_repeated(tmp_path: Path) -> None:
    text = """
    if __name__ != "__main__" and not os.path.exists("once"):
        open("once", "w").close()
        raise OSError("try again")

    def work():
        return 1

    if __name__ == "__main__":
        asyncio.run(use(work))
    """
    done = ran(tmp_path, str(write(tmp_path, "job.py", POOL + dedent(text))))
    assert done.stdout == "0 1 NoneType None\n", done.stderr


def test_a_program_without_a_guard_does_not_start_processes_in_processes(tmp_path: Path) -> None:
    text = """
    def work():
        return 1

    asyncio.run(use(work))
    """
    done = ran(tmp_path, str(write(tmp_path, "job.py", POOL + dedent(text))))
    assert "cannot start processes in a process that carries out calls" in done.stdout
    assert "ProcessNotStarted" in done.stdout


def test_a_function_of_an_interactive_session_is_refused(tmp_path: Path) -> None:
    text = POOL + "\ndef work():\n    return 1\n\nasyncio.run(use(work))\n"
    done = ran(tmp_path, "-c", text)
    assert "is defined in an interactive session" in done.stderr
    assert "hint: put the function into a file and import it" in done.stderr


WAITING = """
import glob

def work(kind):
    with open(f"pid-{os.getpid()}", "w") as file:
        file.write(kind)
    if kind == "busy":
        import ctypes
        ctypes.PyDLL(None).sleep(60)  # other Python threads cannot run
    elif kind == "sleep":
        time.sleep(60)

async def wait():
    pool = CallProcesses(work, "work", 3, report)
    for number, kind in enumerate(("busy", "sleep", "idle")):
        pool.start(number, (kind,))
    while len(glob.glob("pid-*")) < 3:
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.2)
    if "fork" in sys.argv and os.fork() == 0:
        time.sleep(8)
        os._exit(0)
    open("ready", "w").close()
    await asyncio.sleep(60)

if __name__ == "__main__":
    asyncio.run(wait())
"""


@contextmanager
def running_job(
    folder: Path, *arguments: str
) -> Iterator[tuple[subprocess.Popen[bytes], list[int]]]:
    """Run a job with three processes: one in C code, one that sleeps, one that is idle."""
    path = write(folder, "job.py", POOL + WAITING)
    with (folder / "errors").open("wb") as errors:
        job = subprocess.Popen(
            [sys.executable, str(path), *arguments],
            cwd=folder,
            env=environment(folder),
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )
    try:
        deadline_s = time.monotonic() + 60
        while not (folder / "ready").exists():
            assert time.monotonic() < deadline_s, (folder / "errors").read_text()
            time.sleep(0.05)
        yield job, [int(each.name[4:]) for each in folder.glob("pid-*")]
    finally:
        job.kill()
        job.wait()


def wait_for_end(pids: list[int]) -> None:
    deadline_s = time.monotonic() + 20
    for pid in pids:
        while Path(f"/proc/{pid}").exists():
            assert time.monotonic() < deadline_s, f"{pid} still runs"
            time.sleep(0.05)


def test_processes_end_when_the_job_is_killed(tmp_path: Path) -> None:
    with running_job(tmp_path) as (job, pids):
        assert len(pids) == 3
        job.kill()
        wait_for_end(pids)


def test_ctrl_c_of_a_terminal_reaches_the_processes_only_through_the_job(tmp_path: Path) -> None:
    with running_job(tmp_path) as (job, pids):
        os.killpg(job.pid, signal.SIGINT)
        job.wait(30)
        wait_for_end(pids)
    assert "call_child" not in (tmp_path / "errors").read_text()


def test_signals_to_the_group_do_not_end_a_process_that_starts(tmp_path: Path) -> None:
    text = """
    def work():
        return 1

    async def main():
        using = asyncio.create_task(use(work))
        while not using.done():
            await asyncio.sleep(0.01)
            for number in signal.SIGINT, signal.SIGTERM:
                os.killpg(0, number)
        await using

    if __name__ == "__main__":
        import signal
        os.setpgid(0, 0)
        signal.signal(signal.SIGINT, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: None)
        asyncio.run(main())
    """
    done = ran(tmp_path, str(write(tmp_path, "job.py", POOL + dedent(text))))
    assert (done.stdout, done.stderr) == ("0 1 NoneType None\n", "")


def test_a_process_that_user_code_forks_from_the_job_does_not_keep_the_others_alive(
    tmp_path: Path,
) -> None:
    with running_job(tmp_path, "fork") as (job, pids):
        killed_s = time.monotonic()
        job.kill()
        wait_for_end(pids)
        assert time.monotonic() - killed_s < 5  # the forked one lives for 8 seconds
        os.killpg(job.pid, signal.SIGKILL)


def test_a_program_ends_without_closing_its_pool(tmp_path: Path) -> None:
    text = """
    def work():
        return os.getpid()

    async def main():
        done = asyncio.Queue()
        pool = CallProcesses(work, "work", 1, lambda *found: done.put_nowait(found))
        pool.start(0, ())
        print((await done.get())[1])
        pool.start(1, ())

    if __name__ == "__main__":
        asyncio.run(main())
    """
    done = ran(tmp_path, str(write(tmp_path, "job.py", POOL + dedent(text))))
    assert done.returncode == 0, done.stderr
    wait_for_end([int(done.stdout)])


def test_closing_a_pool_gives_no_warning(tmp_path: Path) -> None:
    text = """
    def work(kind):
        if kind == "die":
            os._exit(3)
        time.sleep(600 if kind == "sleep" else 0)

    async def main():
        for kinds in (("ok", "ok"), ("die", "ok"), ("sleep", "ok"), ("sleep", "sleep")):
            pool = CallProcesses(work, "work", 2, lambda *found: None)
            for number, kind in enumerate(kinds):
                pool.start(number, (kind,))
            await asyncio.sleep(1.5)
            pool.abandon(0)
            await asyncio.sleep(0.1)
            await pool.close()
        try:
            print(os.waitpid(-1, os.WNOHANG))
        except ChildProcessError:
            print("no child is left")

    if __name__ == "__main__":
        asyncio.run(main())
    """
    path = write(tmp_path, "job.py", POOL + dedent(text))
    done = ran(tmp_path, "-W", "always", str(path))
    assert (done.stdout, done.stderr) == ("no child is left\n", "")
