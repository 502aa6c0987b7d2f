"""Commands in one folder share the embedded broker, which stops after the last of them."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.cli.processes import (
    WAIT_S,
    read_until,
    ready_line,
    run,
    started,
    wait_for_end_of_broker,
)

pytestmark = pytest.mark.kill

RECORDS = b"one\ntwo\nthree\n"


def assert_the_broker_ends(data_dir: Path) -> None:
    wait_for_end_of_broker(data_dir)
    assert not (data_dir / "broker" / "attach.sock").exists()


def test_one_command_consumes_what_another_has_produced(tmp_path: Path) -> None:
    produced = run(tmp_path, "produce", "words", given=RECORDS)
    assert produced.code == 0
    folder, created, count = produced.err.splitlines()
    assert folder == "new data folder at .streamkit"
    assert created == "created topic 'words'"
    assert count.startswith("3 records produced to words in ")
    assert (tmp_path / ".streamkit" / ".gitignore").read_text() == "*\n"
    assert_the_broker_ends(tmp_path / ".streamkit")
    consumed = run(tmp_path, "consume", "words", "-B", "-d", "--embedded")
    assert (consumed.code, consumed.out, consumed.err) == (0, RECORDS, "")


def test_simultaneous_commands_share_one_broker(tmp_path: Path) -> None:
    run(tmp_path, "topic", "create", "words", "--data-dir", "data")
    with started(tmp_path, "--data-dir", "data", "consume", "words", "-n", "3") as consumer:
        read_until(consumer, b"waiting for new records; -B reads from the beginning")
        produced = run(tmp_path, "produce", "words", "--data-dir", "data", given=RECORDS)
        assert produced.code == 0
        out, _ = consumer.communicate(timeout=WAIT_S)
    assert (consumer.returncode, out) == (0, RECORDS)
    assert_the_broker_ends(tmp_path / "data")


def test_the_broker_keeps_running_if_one_of_two_commands_is_killed(
    tmp_path: Path,
) -> None:
    run(tmp_path, "topic", "create", "words")
    with started(tmp_path, "consume", "words") as first:
        read_until(first, b"-B reads from the beginning")
        with started(tmp_path, "consume", "words", "-n", "1") as second:
            read_until(second, b"-B reads from the beginning")
            first.kill()
            first.wait(WAIT_S)
            assert run(tmp_path, "produce", "words", given=b"still\n").code == 0
            assert second.communicate(timeout=WAIT_S)[0] == b"still\n"
    assert_the_broker_ends(tmp_path / ".streamkit")


def test_commands_attach_to_a_broker_started_in_their_folder(tmp_path: Path) -> None:
    with started(tmp_path, "broker", "start", "--sc-port", "0", "--spu-port", "0") as broker:
        sc, spu = ready_line(broker)
        assert sc.startswith("127.0.0.1:")
        assert spu.startswith("127.0.0.1:")
        assert run(tmp_path, "produce", "words", given=RECORDS).code == 0
        over_network = run(tmp_path, "--cluster", sc, "consume", "words", "-B", "-d")
        assert over_network.out == RECORDS
        broker.send_signal(signal.SIGTERM)
        assert broker.wait(WAIT_S) == 0
    assert_the_broker_ends(tmp_path / ".streamkit")


def test_a_started_broker_stops_cleanly_on_ctrl_c(tmp_path: Path) -> None:
    with started(tmp_path, "broker", "start", "--sc-port", "0", "--spu-port", "0") as broker:
        ready_line(broker)
        broker.send_signal(signal.SIGINT)
        assert broker.wait(WAIT_S) == 0


def test_a_port_or_a_folder_in_use_is_an_error(tmp_path: Path) -> None:
    with started(tmp_path, "broker", "start", "--sc-port", "0", "--spu-port", "0") as broker:
        sc, _ = ready_line(broker)
        port = sc.rpartition(":")[2]
        same_port = run(tmp_path, "broker", "start", "--sc-port", port, "--data-dir", "other")
        assert same_port.code == 1
        assert f"error: cannot listen on {sc} (SC): " in same_port.err
        assert "  hint: choose another port with --sc-port" in same_port.err
        same_folder = run(tmp_path, "broker", "start", "--sc-port", "0", "--spu-port", "0")
        assert same_folder.code == 1
        assert "error: another broker uses the data folder .streamkit" in same_folder.err
        assert "--data-dir" in same_folder.err


def test_a_data_folder_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    ended = run(tmp_path, "topic", "list", variables={"STREAMKIT_DATA_DIR": "plain"})
    assert ended.code == 2
    assert "error: cannot create the data folder plain: " in ended.err


def test_commands_use_the_cluster_in_the_settings_file(tmp_path: Path) -> None:
    (tmp_path / "streamkit.toml").write_text('cluster = "nowhere"\n')
    ended = run(tmp_path, "topic", "list")
    assert ended.code == 2
    assert "the settings file: 'nowhere' is not HOST:PORT" in ended.err
