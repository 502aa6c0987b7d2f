"""Empty options and names of unknown topics are errors, never the same as a missing option."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.processes import run


@pytest.mark.parametrize("option", ["--cluster", "--profile", "--data-dir", "--domain"])
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("value", ["", " "])
def test_an_empty_option_is_refused(tmp_path: Path, option: str, before: bool, value: str) -> None:
    command = ["topic", "list"]
    given = [option, value]
    ended = run(tmp_path, *(given + command if before else command + given))
    assert ended.code == 2
    assert f"{option} is empty" in ended.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("produce", ""), "topic is empty"),
        (("consume", ""), "topic is empty"),
        (("consume", "t", "-c", ""), "--consumer is empty"),
        (("topic", "create", ""), "name is empty"),
        (("topic", "create", "--config", ""), "--config is empty"),
        (("topic", "delete", "a", ""), "name... is empty"),
        (("produce", "t", "--smartmodule", ""), "--smartmodule is empty"),
        (("produce", "t", "-e", ""), "--params is empty"),
        (("run", "app.py", "--set", ""), "--set is empty"),
        (("profile", "switch", ""), "is empty"),
        (("smartmodule", "delete", ""), "is empty"),
    ],
)
def test_an_empty_name_is_refused(tmp_path: Path, command: tuple[str, ...], words: str) -> None:
    ended = run(tmp_path, *command)
    assert ended.code == 2
    assert words.lower() in ended.err.lower()
    assert list(tmp_path.iterdir()) == []


def test_a_key_may_be_empty(tmp_path: Path) -> None:
    assert run(tmp_path, "produce", "t", "--key", "", given=b"a\n").code == 0
    assert run(tmp_path, "produce", "t", "--key-field", "", given=b'{"":"k"}\n').code == 0
    assert run(tmp_path, "consume", "t", "-B", "-d", "-k").out == b'[] a\n[k] {"":"k"}\n'


def test_a_misspelt_topic_setting_never_makes_a_job_read_the_default_topic(tmp_path: Path) -> None:
    run(tmp_path, "produce", "orders", given=b"production\n")
    (tmp_path / "job.py").write_text(
        "from streamkit import App\napp = App('job')\napp.stream('orders', bytes).to('copies')\n"
    )

    def refused(*options: str, **variables: str) -> str:
        ended = run(tmp_path, "run", "job.py", "--once", *options, variables=variables)
        assert ended.code == 2
        return ended.err

    assert "this job has no topic 'order'" in refused("--set", "topics.order=staging")
    assert "this job has no topic 'order'" in refused(STREAMKIT_TOPICS_ORDER="staging")
    assert "STREAMKIT_TOPICS_ORDERS" in refused(STREAMKIT_TOPIC_ORDERS="staging")
    (tmp_path / "streamkit.toml").write_text("[topic]\norders = 'staging'\n")
    assert "did you mean 'topics'?" in refused()
    assert "did you mean 'topics'?" in run(tmp_path, "consume", "orders", "-B", "-d").err
