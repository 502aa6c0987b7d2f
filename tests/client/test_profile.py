"""Fluvio's own profile file, as the control plane reference describes it (6.1)."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from streamkit.client.profile import Profiles, load_profiles, profile_path
from streamkit.errors import ConfigError

HEAD: Final = """
version = "2.0"
current_profile = "local"
[profile.local]
cluster = "c"
topic = "never used"
[cluster.c]
endpoint = "127.0.0.1:9003"
"""
CERTS: Final = """
[cluster.c.tls.certs]
domain = "fluvio.example"
key = "k"
cert = "c"
ca_cert = "a"
"""


def load(folder: Path, text: str) -> Profiles:
    path = folder / "config"
    path.write_text(text)
    return load_profiles(path)


@pytest.mark.parametrize(
    "tls",
    ["", '[cluster.c.tls]\ntls_policy = "disabled"', '[cluster.c.tls]\ntls_policy = "disable"'],
)
def test_a_plain_cluster_is_usable(tmp_path: Path, tls: str) -> None:
    found = load(tmp_path, HEAD + tls).active()
    assert found is not None
    assert (found.name, found.cluster, found.endpoint) == ("local", "c", "127.0.0.1:9003")
    assert not found.use_spu_local_address
    found.check_usable()


@pytest.mark.parametrize(
    ("tls", "policy"),
    [
        ('tls_policy = "anonymous"', "anonymous"),
        (f'tls_policy = "verified"\ntls_source = "inline"{CERTS}', "verified"),
        (f'tls_policy = "verified"\ntls_source = "files"{CERTS}', "verified"),
        (f'tls_policy = "verify"\ntls_source = "file"{CERTS}', "verify"),
    ],
)
def test_tls_is_read_and_refused_in_a_clear_sentence(tmp_path: Path, tls: str, policy: str) -> None:
    found = load(tmp_path, f"{HEAD}[cluster.c.tls]\n{tls}").active()
    assert found is not None
    with pytest.raises(ConfigError, match=rf"profile 'local' asks for TLS \({policy}\)") as caught:
        found.check_usable()
    assert "without TLS" in caught.value.hint


def test_the_other_names_of_keys_are_read(tmp_path: Path) -> None:
    text = HEAD.replace("endpoint", "use_spu_local_address = true\naddr")
    found = load(tmp_path, text + '[cluster.c.metadata]\ninstallation = "local"').active()
    assert found is not None
    assert (found.endpoint, found.use_spu_local_address) == ("127.0.0.1:9003", True)


def test_a_file_without_a_current_profile_has_none(tmp_path: Path) -> None:
    found = load(tmp_path, HEAD.replace('current_profile = "local"', ""))
    assert found.active() is None
    assert found.get("local").endpoint == "127.0.0.1:9003"


def test_a_missing_file_holds_nothing(tmp_path: Path) -> None:
    found = load_profiles(tmp_path / "none")
    assert (found.active(), dict(found.by_name)) == (None, {})


def test_an_unknown_profile_is_answered_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no profile 'x' in") as caught:
        load(tmp_path, HEAD).get("x")
    assert caught.value.hint == "there are: local"
    with pytest.raises(ConfigError, match="no profile 'gone'"):
        load(
            tmp_path, HEAD.replace('current_profile = "local"', 'current_profile = "gone"')
        ).active()


@pytest.mark.parametrize(
    "text",
    [
        "not toml",
        'profile = "text"',
        'cluster = "text"\n[profile.p]\ncluster = "c"',
        "current_profile = 7",
        "[profile]\nlocal = 3",
        '[profile.p]\ncluster = "gone"',
        "[profile.p]\ncluster = 3",
        "[profile.p]\ncluster = [1]",
        '[profile.p]\ncluster = "c"\n[cluster]\nc = 3',
        '[profile.p]\ncluster = "c"\n[cluster.c]\nendpoint = 3',
        '[profile.p]\ncluster = "c"\n[cluster.c]\n',
        '[profile.p]\ncluster = "c"\n[cluster.c]\nendpoint = "h:1"\ntls = "yes"',
        HEAD + "[cluster.c.tls]\ntls_policy = 7",
        HEAD + '[cluster.c.tls]\ntls_policy = "maybe"',
        HEAD + 'use_spu_local_address = "no"',
    ],
)
def test_a_bad_file_is_one_clear_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=str(tmp_path)):
        load(tmp_path, text)


def test_a_file_that_cannot_be_read_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path, tmp_path / "binary"):
        with pytest.raises(ConfigError, match="cannot read the Fluvio profile file"):
            load_profiles(path)


def test_the_file_is_looked_for_where_fluvio_does(tmp_path: Path) -> None:
    assert profile_path({}, tmp_path) == tmp_path / ".fluvio" / "config"
    assert profile_path({"FLV_PROFILE_PATH": "/x/y"}, tmp_path) == Path("/x/y")
