"""Fluvio's own profile file. Source: docs/protocol/index.md, "How a client finds the cluster"."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from streamkit.client import Tls
from streamkit.client.profile.profile import Profiles, load_profiles, profile_path
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
FILES: Final = """
[cluster.c.tls.certs]
domain = "fluvio.example"
key = "k"
cert = "c"
ca_cert = "a"
"""
AS_FILES: Final = Tls(
    domain="fluvio.example", ca_cert=Path("a"), client_cert=Path("c"), client_key=Path("k")
)
INLINE: Final = """
[cluster.c.tls.certs]
domain = "fluvio.example"
key = '-----BEGIN k'
cert = '''-----BEGIN b
c'''
ca_cert = "-----BEGIN a"
"""
AS_TEXT: Final = Tls(
    domain="fluvio.example",
    ca_cert="-----BEGIN a",
    client_cert="-----BEGIN b\nc",
    client_key="-----BEGIN k",
)
VERIFIED: Final = '[cluster.c.tls]\ntls_policy = "verified"\n'


def load(folder: Path, text: str) -> Profiles:
    path = folder / "config"
    path.write_text(text)
    return load_profiles(path)


@pytest.mark.parametrize(
    "tls",
    ["", '[cluster.c.tls]\ntls_policy = "disabled"', '[cluster.c.tls]\ntls_policy = "disable"'],
)
def test_a_cluster_without_tls_can_be_read(tmp_path: Path, tls: str) -> None:
    found = load(tmp_path, HEAD + tls).active()
    assert found is not None
    assert (found.name, found.cluster, found.endpoint) == ("local", "c", "127.0.0.1:9003")
    assert not found.use_spu_local_address
    assert (found.tls_policy, found.tls) == ("disabled", None)


@pytest.mark.parametrize(
    ("tls", "policy", "expected"),
    [
        ('tls_policy = "anonymous"', "anonymous", Tls(anonymous=True)),
        (f'tls_policy = "verified"\ntls_source = "inline"{INLINE}', "verified", AS_TEXT),
        (f'tls_policy = "verified"\ntls_source = "files"{FILES}', "verified", AS_FILES),
        (f'tls_policy = "verify"\ntls_source = "file"{FILES}', "verified", AS_FILES),
        (
            'tls_policy = "verified"\ntls_source = "files"\n'
            'certs = {domain = "fluvio.example", ca_cert = "a"}',
            "verified",
            Tls(domain="fluvio.example", ca_cert=Path("a")),
        ),
    ],
)
def test_tls_is_read_in_every_form(tmp_path: Path, tls: str, policy: str, expected: Tls) -> None:
    found = load(tmp_path, f"{HEAD}[cluster.c.tls]\n{tls}").active()
    assert found is not None
    assert (found.tls_policy, found.tls) == (policy, expected)


def test_alternative_names_of_keys_are_read(tmp_path: Path) -> None:
    text = HEAD.replace("endpoint", "use_spu_local_address = true\naddr")
    found = load(tmp_path, text + '[cluster.c.metadata]\ninstallation = "local"').active()
    assert found is not None
    assert (found.endpoint, found.use_spu_local_address) == ("127.0.0.1:9003", True)


def test_a_file_may_have_no_current_profile(tmp_path: Path) -> None:
    found = load(tmp_path, HEAD.replace('current_profile = "local"', ""))
    assert found.active() is None
    assert found.get("local").endpoint == "127.0.0.1:9003"


def test_a_missing_file_has_no_profiles(tmp_path: Path) -> None:
    found = load_profiles(tmp_path / "none")
    assert (found.active(), dict(found.by_name)) == (None, {})


def test_an_unknown_profile_is_reported_with_the_existing_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no profile 'x' in") as caught:
        load(tmp_path, HEAD).get("x")
    assert caught.value.hint == "existing names: local"
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
    ],
)
def test_an_invalid_file_is_reported_with_one_clear_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=str(tmp_path)):
        load(tmp_path, text)


@pytest.mark.parametrize(
    "text",
    [
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
        HEAD + VERIFIED,
        HEAD + VERIFIED + 'tls_source = "magic"' + FILES,
        HEAD + VERIFIED + 'tls_source = "files"',
        HEAD + VERIFIED + 'tls_source = "files"\ncerts = 3',
        HEAD + VERIFIED + 'tls_source = "inline"' + FILES,
        HEAD + VERIFIED + 'tls_source = "files"' + FILES.replace('"fluvio.example"', "3"),
        HEAD + VERIFIED + 'tls_source = "files"' + FILES.replace("fluvio.example", "a b"),
        HEAD + VERIFIED + 'tls_source = "files"' + FILES.replace('domain = "fluvio.example"', ""),
        HEAD + VERIFIED + 'tls_source = "files"' + FILES.replace('ca_cert = "a"', ""),
        HEAD + VERIFIED + 'tls_source = "files"' + FILES.replace('key = "k"', ""),
    ],
)
def test_a_bad_profile_is_an_error_only_when_it_is_used(tmp_path: Path, text: str) -> None:
    good = '\n[profile.good]\ncluster = "good"\n[cluster.good]\nendpoint = "h:1"\n'
    profiles = load(tmp_path, text + good)
    assert profiles.get("good").endpoint == "h:1"
    (bad,) = profiles.problems
    with pytest.raises(ConfigError, match=str(tmp_path)) as caught:
        profiles.get(bad)
    assert str(profiles.path) in caught.value.hint


def test_an_unreadable_file_is_reported_with_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path, tmp_path / "binary"):
        with pytest.raises(ConfigError, match="cannot read the Fluvio profile file"):
            load_profiles(path)


def test_the_file_is_searched_in_the_same_place_as_by_fluvio(tmp_path: Path) -> None:
    assert profile_path({}, tmp_path) == tmp_path / ".fluvio" / "config"
    assert profile_path({"FLV_PROFILE_PATH": "/x/y"}, tmp_path) == Path("/x/y")
