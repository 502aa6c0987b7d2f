"""Every error names the wrong value and its place, gives a hint, and has the right exit code."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from streamkit.cli import main as command
from streamkit.errors import TopicNotFound
from tests.cli.conftest import Run
from tests.cli.processes import WAIT_S, run


def failed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[str]]:
    """Run a command that fails before it connects to a broker."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["streamkit", *arguments])
        with pytest.raises(SystemExit) as caught:
            command.main()
    assert isinstance(caught.value.code, int)
    return caught.value.code, capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        ("topi list", "no such command 'topi'", "did you mean 'topic'?"),
        ("topic lisst", "no such command 'lisst'", "did you mean 'list'?"),
        ("zzz", "no such command 'zzz'", "`streamkit --help` shows its arguments and options"),
        ("consume t --beginnin", "no such option '--beginnin'", "did you mean '--beginning'?"),
        ("topic create", "missing argument 'NAME'", "`streamkit topic create --help`"),
        ("topic create t -p x", "invalid value for '-p' / '--partitions': 'x'", "--help"),
        ("topic create t --retention-time soon", "'soon' is not a valid duration", "--help"),
        ("produce t --batch-size huge", "'huge' is not a valid size", "--help"),
        ("produce t --batch-size 0", "must be at least 1 byte", ""),
        ("produce t --key a --key-field b", "--key and --key-field each define", "keep one"),
        ("produce t --raw --key-separator :", "--raw and --key-separator contradict", "only --key"),
        ("produce t --key-separator=", "--key-separator is empty", "at least one character"),
        ("produce t -f /no/such/file", "cannot read /no/such/file: No such file", ""),
        ("consume t -B -T 1", "--beginning and --tail contradict", "keep one"),
        ("consume t -H 1 --start 1", "--head and --start contradict", "keep one"),
        ("consume t -p 0 -A", "--partition and --all-partitions contradict", "keep one"),
        ("consume t -F x -O raw", "--format and --output contradict", "keep one"),
        ("consume t -k -O json", "--key-value and --output json contradict", "can show keys"),
        ("consume t -F {{vlaue}}", "unknown field 'vlaue'", "did you mean 'value'?"),
        ("-c a:1 -P b topic list", "--cluster and --profile contradict", "keep one"),
        ("-c a:1 topic list --embedded", "--cluster and --embedded contradict", "keep one"),
        ("-c a:1 topic list --cluster b:1", "--cluster is given twice: 'a:1' and 'b:1'", ""),
        ("topic --cluster a list", "--cluster: 'a' is not HOST:PORT", "127.0.0.1:9103"),
        ("-P nobody topic list", "no profile 'nobody' in ", "there are none yet"),
        ("-c a:1 broker start", "runs a broker on this machine", ""),
        ("--tls broker start", "runs a broker on this machine", ""),
        ("broker start --spu-public-address x", "'x' is not HOST:PORT", ""),
        ("--tls topic list", "TLS options need --cluster", "--cluster HOST:PORT"),
        ("topic list --tls --embedded", "TLS options need --cluster", "--cluster HOST:PORT"),
        ("-c a:1 topic list --domain d", "--domain needs --tls", "add --tls"),
        ("-c a:1 --tls --client-cert c topic list", "--client-cert has no", "--enable-client"),
        ("-c a:1 --tls --enable-client-cert topic list", "needs --client-cert and", "give the"),
        ("-c a:1 --tls --domain a/b topic list", "'a/b' is not a valid host name", ""),
        ("-c a:1 --tls --ca-cert /no/such topic list", "cannot read the CA certificate", ""),
        ("consumer delete x -p 1", "--partition needs a topic", "--topic"),
        ("profile", "has no current profile", "--cluster"),
    ],
)
def test_a_usage_error_has_a_message_and_a_hint(
    capsys: pytest.CaptureFixture[str], arguments: str, error: str, hint: str
) -> None:
    code, (first, *others) = failed(capsys, *arguments.split())
    assert code == 2
    assert first.startswith("error: ")
    assert error in first
    assert len(others) <= 1
    assert all(line.startswith("  hint: ") for line in others)
    assert hint in "".join(others)


def test_an_unexpected_error_is_raised_with_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("streamkit.client.profile.profile.load_profiles", broken)
    assert isinstance(CliRunner().invoke(command.cli, ["profile"]).exception, ZeroDivisionError)
    monkeypatch.setattr("sys.argv", ["streamkit", "profile"])
    with pytest.raises(ZeroDivisionError, match="a bug"):
        command.main()


def test_connecting_to_an_absent_broker_fails_after_five_seconds(tmp_path: Path) -> None:
    started_s = time.monotonic()
    with free_port() as port:
        ended = run(tmp_path, "--cluster", f"127.0.0.1:{port}", "topic", "list")
    assert ended.code == 1
    assert 4 < time.monotonic() - started_s < WAIT_S / 2
    retry, error, hint = ended.err.splitlines()
    assert "retrying for 5 s" in retry
    assert error == f"error: cannot connect to 127.0.0.1:{port}: connection refused"
    assert "`streamkit broker start` starts one" in hint


def test_an_incomplete_current_profile_is_an_error(tmp_path: Path) -> None:
    profiles = tmp_path / "config"
    profiles.write_text(
        'current_profile = "cloud"\n[profile.cloud]\ncluster = "cloud"\n'
        '[cluster.cloud]\nendpoint = "cloud:9003"\n[cluster.cloud.tls]\ntls_policy = "verified"\n'
    )
    ended = run(tmp_path, "topic", "list", variables={"FLV_PROFILE_PATH": str(profiles)})
    assert ended.code == 2
    assert "cluster 'cloud' in " in ended.err
    assert "has no tls_source" in ended.err
    assert "or use --embedded" in ended.err
    assert not (tmp_path / ".streamkit").exists()


@pytest.mark.parametrize(
    "arguments",
    [("consume", "flihts", "-d"), ("produce", "flihts"), ("topic", "describe", "flihts")],
)
def test_the_error_for_an_unknown_topic_suggests_a_similar_name(
    on_cluster: Run, arguments: tuple[str, ...]
) -> None:
    on_cluster("topic", "create", "flights")
    ended = on_cluster(*arguments)
    assert ended.code == 1
    error, hint = ended.err.splitlines()
    assert error == f"error: {TopicNotFound('flihts')}"
    assert "did you mean 'flights'?" in hint


def test_an_unknown_partition_is_a_usage_error(on_cluster: Run) -> None:
    on_cluster("topic", "create", "narrow")
    for arguments in (("consume", "narrow", "-d", "-p", "3"), ("produce", "narrow", "-p", "3")):
        ended = on_cluster(*arguments, given=b"x\n")
        assert ended.code == 2
        assert "error: topic 'narrow' has no partition 3 (partition count: 1)" in ended.err


@contextmanager
def free_port() -> Iterator[int]:
    """A port that refuses connections: it is bound, but nobody listens on it."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]
