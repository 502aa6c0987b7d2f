from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from streamkit.client import Tls
from streamkit.errors import ConfigError, UsageError
from streamkit.target import Target, choose

PROFILES = """
version = "2"
current_profile = "local"
[profile.local]
cluster = "local"
[profile.other]
cluster = "other"
[profile.secret]
cluster = "secret"
[profile.no-port]
cluster = "no-port"
[cluster.local]
endpoint = "local:9103"
[cluster.other]
endpoint = "other:9103"
use_spu_local_address = true
[cluster.secret]
endpoint = "secret:9103"
[cluster.secret.tls]
tls_policy = "anonymous"
[profile.broken]
cluster = "broken"
[cluster.no-port]
endpoint = "bare"
"""


@pytest.fixture
def profiles(tmp_path: Path) -> Path:
    path = tmp_path / "config"
    path.write_text(PROFILES)
    return path


@pytest.mark.parametrize(
    ("options", "variable", "settings", "has_profiles", "expected"),
    [
        ({"cluster": "a:1"}, "b:1", "c:1", True, ("cluster", "a:1", "--cluster")),
        ({"profile": "other"}, "b:1", "c:1", True, ("profile", "other:9103", "--profile")),
        ({"embedded": True}, "b:1", "c:1", True, ("embedded", None, "--embedded")),
        ({}, "b:1", "c:1", True, ("cluster", "b:1", "STREAMKIT_CLUSTER")),
        ({}, "", "c:1", True, ("cluster", "c:1", "the settings file")),
        ({}, "", None, True, ("profile", "local:9103", "the current profile in ")),
        ({}, "", None, False, ("embedded", None, "no cluster is configured")),
        ({"cluster": "[::1]:9103"}, "", None, False, ("cluster", "[::1]:9103", "--cluster")),
    ],
)
def test_options_override_environment_variables_settings_files_and_profiles(
    profiles: Path,
    options: dict[str, Any],
    variable: str,
    settings: str | None,
    has_profiles: bool,
    expected: tuple[str, str | None, str],
) -> None:
    environment = {
        "STREAMKIT_CLUSTER": variable,
        "FLV_PROFILE_PATH": str(profiles if has_profiles else profiles.parent / "none"),
    }
    target = choose(**options, environment=environment, settings_cluster=settings)
    assert (target.kind, target.address) == expected[:2]
    assert target.why.startswith(expected[2])


@pytest.mark.parametrize(
    "options",
    [
        {"cluster": "a:1", "profile": "local"},
        {"cluster": "a:1", "embedded": True},
        {"profile": "local", "embedded": True},
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="contradict"):
        choose(**options, environment={})


@pytest.mark.parametrize("address", ["", "host", "host:", ":9103", "host:port", "h:0", "h:65536"])
def test_an_address_without_host_or_port_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match=r"--cluster: .* is not HOST:PORT"):
        choose(cluster=address, environment={})


def test_the_error_of_an_endpoint_without_port_names_its_profile(profiles: Path) -> None:
    with pytest.raises(UsageError, match="profile 'no-port': 'bare' is not HOST:PORT"):
        choose(profile="no-port", environment=_with(profiles))


def test_a_target_uses_the_tls_of_its_profile(profiles: Path) -> None:
    assert choose(profile="secret", environment=_with(profiles)).tls == Tls(anonymous=True)
    assert choose(profile="other", environment=_with(profiles)).tls is None


def test_tls_options_need_a_cluster_option(profiles: Path) -> None:
    tls = Tls(domain="d")
    assert choose(cluster="a:1", tls=tls, environment={}).tls == tls
    variables = {"STREAMKIT_CLUSTER": "a:1", **_with(profiles)}
    for options in ({}, {"profile": "other"}, {"embedded": True}):
        with pytest.raises(UsageError, match="TLS options need --cluster"):
            choose(**options, tls=tls, environment=variables)


def test_the_hint_for_an_invalid_current_profile_suggests_the_embedded_broker(
    profiles: Path,
) -> None:
    profiles.write_text(PROFILES.replace('"local"\n[profile.local]', '"broken"\n[profile.local]'))
    with pytest.raises(ConfigError, match="is missing in") as caught:
        choose(environment=_with(profiles))
    assert "--embedded" in caught.value.hint


def test_a_profile_can_select_local_addresses(profiles: Path) -> None:
    assert choose(profile="other", environment=_with(profiles)).uses_local_address
    assert not choose(profile="local", environment=_with(profiles)).uses_local_address


def test_the_embedded_broker_is_reached_at_its_local_address() -> None:
    assert choose(embedded=True, environment={}).uses_local_address


@pytest.mark.parametrize(
    ("named", "variable", "expected"),
    [("a", "b", "a"), (None, "b", "b"), (None, "", ".streamkit")],
)
def test_the_data_folder_comes_from_the_option_or_the_environment(
    named: str | None, variable: str, expected: str
) -> None:
    environment = {"STREAMKIT_DATA_DIR": variable, "FLV_PROFILE_PATH": "/nowhere"}
    for cluster in (None, "a:1"):
        target: Target = choose(cluster=cluster, data_dir=named, environment=environment)
        assert target.data_dir == Path(expected)


def _with(profiles: Path) -> Mapping[str, str]:
    return {"FLV_PROFILE_PATH": str(profiles)}
