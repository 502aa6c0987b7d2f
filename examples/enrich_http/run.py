"""Run the whole example in one terminal: the commands of ``README.md``, and the service.

    python run.py [FOLDER]

The data goes to FOLDER, or to a new temporary folder, and stays there. The service starts when the
job reports that the circuit is open.
"""

import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

EXAMPLE = Path(__file__).parent
URL = os.environ.get("CUSTOMERS_URL", "http://127.0.0.1:8400")


def main(data: Path) -> None:
    if is_in_use(urlsplit(URL).port):
        raise SystemExit(f"another program already listens at {URL}: stop it first")
    # The example runs on the embedded broker, also if a cluster is configured.
    os.environ.pop("STREAMKIT_CLUSTER", None)
    os.environ["FLV_PROFILE_PATH"] = str(data / "no-fluvio-profile")
    os.environ["STREAMKIT_DATA_DIR"] = str(data)
    streamkit("produce orders --file orders.jsonl.gz --key-field customer")
    service = job_and_service()
    try:
        request("GET", "/counts")
        streamkit("dlq count orders-dead")
        streamkit("dlq show orders-dead 0:0")
        request("POST", "/heal")
        streamkit("dlq replay enrich.py orders-dead")
        streamkit("dlq count orders-dead")
    finally:
        end(service)
    print(f"\nlook at the result: streamkit consume orders-enriched -B -d --data-dir {data}")


def job_and_service() -> subprocess.Popen[str]:
    """Run the job to its end; return the service, which it has waited for."""
    job = subprocess.Popen(
        shown("streamkit run enrich.py --once"), cwd=EXAMPLE, stderr=subprocess.PIPE, text=True
    )
    assert job.stderr is not None
    service = None
    for line in job.stderr:
        print(line, end="", flush=True)
        if service is None and "the circuit is open" in line:
            service = start_service()
    if service is None:
        raise SystemExit("the job ended before the circuit was open")
    if job.wait() != 0:
        end(service)
        raise SystemExit(f"the job ended with exit code {job.returncode}")
    return service


def is_in_use(port: int | None) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def start_service() -> subprocess.Popen[str]:
    print("$ python service.py", flush=True)
    return subprocess.Popen(
        [sys.executable, "service.py", str(urlsplit(URL).port)], cwd=EXAMPLE, text=True
    )


def end(service: subprocess.Popen[str]) -> None:
    service.send_signal(signal.SIGINT)
    service.wait()


def streamkit(arguments: str) -> None:
    subprocess.run(shown(f"streamkit {arguments}"), cwd=EXAMPLE, check=True)


def shown(command: str) -> list[str]:
    """Print a command; return how to run it without an installed ``streamkit``."""
    print(f"\n$ {command}", flush=True)
    return [sys.executable, "-m", *shlex.split(command)]


def request(method: str, path: str) -> None:
    print(f"\n$ curl {'-X POST ' if method == 'POST' else ''}{URL}{path}", flush=True)
    with urlopen(Request(URL + path, method=method)) as response:
        print(response.read().decode(), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="enrich-http-")))
