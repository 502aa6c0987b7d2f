"""Settings: unknown names and empty values are refused, and the error shows where they are set."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamkit import App
from streamkit.errors import ConfigError, UsageError
from streamkit.settings import load_settings, parse_assignments
from streamkit.target import choose, data_folder


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[topic]\norders = 'x'", "'topic' is not a valid setting; did you mean 'topics'?"),
        ("clustr = 'x:1'", "'clustr' is not a valid setting; did you mean 'cluster'?"),
        ("color = 1", "'color' is not a valid setting; valid settings: cluster, settings, topics"),
        ("cluster = ''", "cluster is empty"),
        ("cluster = ' '", "cluster is empty"),
        ("cluster = 9103", "cluster is 9103, not text"),
        ("cluster = ['a:1']", "cluster is ['a:1'], not text"),
        ("topics = 'x'", "topics is 'x', not a table"),
        ("topics = [1]", "topics is [1], not a table"),
        ("settings = 'x'", "settings is 'x', not a table"),
        ("[setting]\na = 1", "'setting' is not a valid setting; did you mean 'settings'?"),
        ("[topics]\norders = 1", "topics.orders is 1, not text"),
        ("[topics]\norders = ''", "topics.orders is empty"),
        ("[topics.orders]\nname = 'x'", "topics.orders is {'name': 'x'}, not text"),
        ("topics.a.b = 'x'", "topics.a is {'b': 'x'}, not text"),
        ("a = " + "[" * 5_000, "cannot read"),
    ],
)
def test_an_invalid_settings_file_is_refused_with_its_path(
    tmp_path: Path, text: str, words: str
) -> None:
    path = tmp_path / "streamkit.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        load_settings(tmp_path, {}, {})
    assert words in f"{refused.value}; {refused.value.hint}"
    assert str(path) in str(refused.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tool = 1", "tool is 1, not a table"),
        ("[tool]\nstreamkit = 1", "tool.streamkit is 1, not a table"),
        ("[[tool.streamkit]]\ncluster = 'x:1'", "not a table"),
        ("[tool.streamkit]\nclustr = 'x'", "'tool.streamkit.clustr'"),
        ("[tool.streamkit.topic]\na = 'b'", "'tool.streamkit.topic'"),
        ("[tool.streamkit.topics]\na = 1", "tool.streamkit.topics.a is 1"),
    ],
)
def test_an_invalid_project_file_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(ConfigError) as refused:
        load_settings(tmp_path, {}, {})
    assert words in str(refused.value)


def test_tables_of_other_tools_in_a_project_file_are_ignored(tmp_path: Path) -> None:
    text = "[tool.streamkitty]\nx = 1\n[tool.streamkit]\ncluster = 'a:1'\n"
    (tmp_path / "pyproject.toml").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert load_settings(tmp_path, {}, {}).cluster == "a:1"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("STREAMKIT_TOPIC_ORDERS", "did you mean STREAMKIT_TOPICS_ORDERS?"),
        ("STREAMKIT_TOPICORDERS", "did you mean STREAMKIT_TOPICS_ORDERS?"),
        ("STREAMKIT_TOPICS", "did you mean STREAMKIT_TOPICS_NAME?"),
        ("STREAMKIT_TOPICS_", "did you mean STREAMKIT_TOPICS_NAME?"),
        ("STREAMKIT_SETTING_ORDERS", "did you mean STREAMKIT_SETTINGS_ORDERS?"),
        ("STREAMKIT_SETTINGS", "did you mean STREAMKIT_SETTINGS_NAME?"),
        ("STREAMKIT_SETTINGS_", "did you mean STREAMKIT_SETTINGS_NAME?"),
        ("STREAMKIT_CLUSTR", "did you mean STREAMKIT_CLUSTER?"),
        ("STREAMKIT_DATADIR", "did you mean STREAMKIT_DATA_DIR?"),
    ],
)
def test_a_misspelled_variable_is_refused(tmp_path: Path, name: str, hint: str) -> None:
    with pytest.raises(UsageError, match=name) as refused:
        load_settings(tmp_path, {name: "x"}, {})
    assert refused.value.hint == hint


def test_unknown_variables_are_reported_except_those_of_other_tools(tmp_path: Path) -> None:
    known = dict.fromkeys(
        (
            *("STREAMKIT_CLUSTER", "STREAMKIT_DATA_DIR", "STREAMKIT_PYTHON"),
            *("STREAMKIT_TEST_LANE", "STREAMKIT_PEER_NODE"),
            *("STREAMKIT_SERVICE_HOST", "STREAMKIT_PORT_9003_TCP", "STREAMKITTY", "HOME"),
        ),
        "x",
    )
    assert load_settings(tmp_path, known, {}).notes == ()
    (note,) = load_settings(tmp_path, known | {"STREAMKIT_COLOR": "x"}, {}).notes
    assert "STREAMKIT_COLOR is not a variable of streamkit" in note


def test_an_empty_variable_counts_as_not_set(tmp_path: Path) -> None:
    (tmp_path / "streamkit.toml").write_text("[topics]\norders = 'from-file'\n")
    settings = load_settings(tmp_path, {"STREAMKIT_TOPICS_ORDERS": ""}, {})
    assert settings.topic("orders") == "from-file"
    empty = {"STREAMKIT_CLUSTER": "", "STREAMKIT_DATA_DIR": "", "HOME": str(tmp_path)}
    assert choose(environment=empty).kind == "embedded"


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("cluster", "", "--set cluster is empty"),
        ("topics.orders", "", "--set topics.orders is empty"),
        ("topics.orders", " ", "--set topics.orders is empty"),
        ("topics.", "x", "'topics.' is not a valid setting"),
        ("topic.orders", "x", "did you mean 'topics.orders'?"),
        ("Cluster", "x", "did you mean 'cluster'?"),
        ("orders", "x", "valid settings: cluster, topics.NAME"),
    ],
)
def test_an_invalid_assignment_is_refused(tmp_path: Path, key: str, value: str, words: str) -> None:
    with pytest.raises(UsageError) as refused:
        load_settings(tmp_path, {}, {key: value})
    assert words in f"{refused.value}; {refused.value.hint}"


def test_assigning_a_key_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="gives 'cluster' twice"):
        parse_assignments(("cluster=a:1", "cluster=b:1"))


def test_an_unused_topic_name_set_for_this_run_is_refused(
    tmp_path: Path,
) -> None:
    used = {"orders", "bills"}
    by_option = load_settings(tmp_path, {}, {"topics.order": "x"})
    with pytest.raises(UsageError, match=r"--set topics\.order: this job has no topic") as refused:
        by_option.check_topics(used)
    assert refused.value.hint == "did you mean 'orders'?"
    by_variable = load_settings(tmp_path, {"STREAMKIT_TOPICS_ZZZ": "x"}, {})
    with pytest.raises(UsageError, match="STREAMKIT_TOPICS_ZZZ: this job has no topic") as refused:
        by_variable.check_topics(used)
    assert refused.value.hint == "its topics are: bills, orders"


def test_an_unused_topic_name_in_a_settings_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "streamkit.toml").write_text("[topics]\norder = 'x'\nbills = 'y'\n")
    (note,) = load_settings(tmp_path, {}, {}).check_topics({"orders", "bills"})
    assert "streamkit.toml: this job has no topic 'order'; did you mean 'orders'?" in note


def test_a_cluster_in_a_set_option_has_the_priority_of_the_cluster_option(tmp_path: Path) -> None:
    environment = {"STREAMKIT_CLUSTER": "b:2", "HOME": str(tmp_path)}
    given = load_settings(tmp_path, environment, {"cluster": "a:1"}).given_cluster
    target = choose(environment=environment, given_cluster=given)
    assert (target.address, target.why) == ("a:1", "--set cluster")
    with pytest.raises(UsageError, match="--cluster and --set cluster contradict"):
        choose(cluster="c:3", environment=environment, given_cluster=given)


def test_an_empty_argument_is_refused(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path)}
    for place in ({"cluster": ""}, {"profile": ""}, {"data_dir": ""}, {"data_dir": " "}):
        with pytest.raises(UsageError):
            choose(**place, environment=environment)  # type: ignore[arg-type]  # by name
    with pytest.raises(UsageError, match="empty"):
        data_folder("", {})
    app = App("job")
    app.stream("a", bytes).to("b")
    with pytest.raises(UsageError, match="--data-dir is empty"):
        app.run(data_dir="")
