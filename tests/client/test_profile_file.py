"""Changes of Fluvio's profile file: nothing else is lost, and nothing invalid is written."""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamkit.client import Tls
from streamkit.client.profile.profile import load_profiles
from streamkit.client.profile.profile_file import ProfileFile
from streamkit.errors import ConfigError, UsageError

TEXT: Final = '''\
# Written by hand
version = "2.0"   # of the file
current_profile = "local" # the one at hand
client_id = "never used"

# at home
[profile.local]  # mine
cluster = "local"
topic = "x"        # nobody knows
[profile.local.more]
"odd key" = [
  [1],
  2, # two
]

# far away
[profile.cloud]
cluster = "cloud"

[cluster.local]
endpoint = "127.0.0.1:9003"
use_spu_local_address = true
[cluster.local.metadata]
installation = "local"

# paid for
[cluster.cloud]
addr = "sc.example:9003"
[cluster.cloud.tls]
tls_policy = "verified"
tls_source = "inline"
[cluster.cloud.tls.certs]
domain = "fluvio.example"
key = """-----BEGIN PRIVATE KEY-----
[profile.local]
"""
cert = "-----BEGIN CERTIFICATE-----"
ca_cert = "-----BEGIN CERTIFICATE-----"

# from another tool
[profile.spare]
cluster = "local"
# the end
'''
Change = Callable[[ProfileFile], object]


@pytest.fixture
def file(tmp_path: Path) -> ProfileFile:
    path = tmp_path / "config"
    path.write_text(TEXT)
    path.chmod(0o640)
    return ProfileFile(path)


def changed(file: ProfileFile) -> list[str]:
    """Return the added and removed lines."""
    before, after = TEXT.splitlines(), file.path.read_text().splitlines()
    removed = [f"-{line}" for line in before if line and line not in after]
    return removed + [f"+{line}" for line in after if line and line not in before]


def data(file: ProfileFile) -> dict[str, Any]:
    return tomllib.loads(file.path.read_text())


# --- Only the change is made -----------------------------------------------------------------


def test_switching_changes_one_line(file: ProfileFile) -> None:
    assert file.switch("cloud").endpoint == "sc.example:9003"
    old, new = 'current_profile = "local" #', 'current_profile = "cloud" #'
    assert file.path.read_text() == TEXT.replace(old, new)


def test_switching_works_without_a_current_profile(file: ProfileFile) -> None:
    file.path.write_text(TEXT.replace('current_profile = "local" # the one at hand\n', ""))
    file.switch("cloud")
    assert changed(file) == [
        '-current_profile = "local" # the one at hand',
        '+current_profile = "cloud"',
    ]
    active = load_profiles(file.path).active()
    assert active is not None
    assert active.name == "cloud"


def test_adding_adds_two_tables_and_switches(file: ProfileFile) -> None:
    added = file.add("new", "sc.test:9003", installation="docker")
    assert (added.name, added.cluster, added.endpoint, added.tls) == (
        *("new", "new", "sc.test:9003"),
        None,
    )
    assert changed(file) == [
        '-current_profile = "local" # the one at hand',
        '+current_profile = "new" # the one at hand',
        "+[cluster.new]",
        '+endpoint = "sc.test:9003"',
        "+[cluster.new.tls]",
        '+tls_policy = "disabled"',
        "+[cluster.new.metadata]",
        '+installation = "docker"',
        "+[profile.new]",
        '+cluster = "new"',
    ]


def test_renaming_changes_all_headers_and_the_current_profile(file: ProfileFile) -> None:
    file.rename("local", "at home")
    assert file.path.read_text() == (
        TEXT.replace("[profile.local]  #", '[profile."at home"]  #')
        .replace("[profile.local.more]", '[profile."at home".more]')
        .replace('current_profile = "local" #', 'current_profile = "at home" #')
    )
    file.rename("spare", "wheel")
    assert data(file)["current_profile"] == "at home"


def test_deleting_removes_only_the_tables_of_the_profile(file: ProfileFile) -> None:
    assert file.delete("cloud") == "cloud"
    cut = '[profile.cloud]\ncluster = "cloud"\n\n'
    assert file.path.read_text() == TEXT.replace(cut, "")
    assert file.delete("local") == "local"
    assert "current_profile" not in data(file)
    assert "# far away" in file.path.read_text()  # the comment belongs to the next table
    assert set(data(file)["profile"]) == {"spare"}


def test_an_unused_cluster_can_be_deleted(file: ProfileFile) -> None:
    file.delete("cloud")
    assert file.delete_cluster("cloud") == []
    text = file.path.read_text()
    start, end = TEXT.index("[cluster.cloud]"), TEXT.index("# from another tool")
    cut = '[profile.cloud]\ncluster = "cloud"\n\n'
    assert text == (TEXT[:start] + TEXT[end:]).replace(cut, "")


def test_deleting_a_cluster_with_force_deletes_the_profiles_that_use_it(file: ProfileFile) -> None:
    assert file.delete_cluster("local", force=True) == ["local", "spare"]
    assert set(data(file)["profile"]) == {"cloud"}
    assert set(data(file)["cluster"]) == {"cloud"}
    assert "current_profile" not in data(file)
    for kept in ("# Written by hand", "# far away", "# paid for", 'client_id = "never used"'):
        assert kept in file.path.read_text()


def test_the_sections_that_fluvio_requires_are_kept_when_empty(tmp_path: Path) -> None:
    file = ProfileFile(tmp_path / "config")
    file.add("only", "h:1")
    file.delete_cluster("only", force=True)
    assert data(file) == {"version": "2.0", "profile": {}, "cluster": {}}
    assert file.add("again", "h:2").endpoint == "h:2"


def test_a_new_file_is_readable_only_for_its_owner(tmp_path: Path) -> None:
    file = ProfileFile(tmp_path / "home" / ".fluvio" / "config")
    file.add("local", "127.0.0.1:9003")
    assert data(file) == {
        "version": "2.0",
        "current_profile": "local",
        "profile": {"local": {"cluster": "local"}},
        "cluster": {"local": {"endpoint": "127.0.0.1:9003", "tls": {"tls_policy": "disabled"}}},
    }
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert list(file.path.parent.iterdir()) == [file.path]


def test_replacing_keeps_unrelated_keys(file: ProfileFile) -> None:
    file.add("cloud", "other.example:1", replace=True)
    cluster = data(file)["cluster"]["cloud"]
    assert cluster == {"endpoint": "other.example:1", "tls": {"tls_policy": "disabled"}}
    file.add("local", "h:1", installation="k8", replace=True)
    cluster = data(file)["cluster"]["local"]
    assert (cluster["use_spu_local_address"], cluster["metadata"]) == (
        True,
        {"installation": "k8"},
    )
    assert data(file)["profile"]["local"]["topic"] == "x"


# --- TLS -------------------------------------------------------------------------------------

PEM: Final = "-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize(
    "tls",
    [
        None,
        Tls(anonymous=True),
        Tls(domain="d.test", ca_cert=PEM, client_cert=PEM, client_key=PEM),
        Tls(
            domain="d.test",
            ca_cert=Path("/c/ca"),
            client_cert=Path("/c/cert"),
            client_key=Path("/c/key"),
        ),
    ],
)
def test_tls_is_read_as_it_was_written(file: ProfileFile, tls: Tls | None) -> None:
    assert file.add("new", "h:1", tls=tls).tls == tls


def test_files_are_written_with_absolute_paths(
    file: ProfileFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tls = Tls(domain="d", ca_cert="ca", client_cert="cert", client_key="key")
    written = file.add("new", "h:1", tls=tls).tls
    assert written is not None
    assert written.ca_cert == tmp_path / "ca"


@pytest.mark.parametrize(
    ("tls", "lacks"),
    [
        (Tls(), "domain, ca_cert, cert, key"),
        (Tls(domain="d", ca_cert="ca"), "cert, key"),
        (Tls(anonymous=True, domain="d"), "ca_cert, cert, key"),
    ],
)
def test_tls_that_fluvio_could_not_read_is_not_written(
    file: ProfileFile, tls: Tls, lacks: str
) -> None:
    with pytest.raises(UsageError, match=f"missing: {lacks}"):
        file.add("new", "h:1", tls=tls)
    assert file.path.read_text() == TEXT


def test_certificates_as_text_and_as_files_cannot_be_mixed(file: ProfileFile) -> None:
    tls = Tls(domain="d", ca_cert=PEM, client_cert="cert", client_key="key")
    with pytest.raises(UsageError, match="all be files, or all be text"):
        file.add("new", "h:1", tls=tls)


# --- Refused input ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reason", "hint"),
    [
        (lambda file: file.switch("nobody"), "no profile 'nobody'", "cloud, local, spare"),
        (lambda file: file.rename("nobody", "x"), "no profile 'nobody'", "cloud, local, spare"),
        (
            lambda file: file.rename("local", "cloud"),
            "profile 'cloud' already exists",
            "another name",
        ),
        (lambda file: file.rename("local", ""), "needs a name", ""),
        (lambda file: file.delete("nobody"), "no profile 'nobody'", "cloud, local, spare"),
        (lambda file: file.add("local", "h:1"), "profile 'local' already exists", "delete local"),
        (lambda file: file.add("", "h:1"), "needs a name", ""),
        (lambda file: file.add("n", "h:1", installation="moon"), "'moon'", "local_k8"),
        (lambda file: file.delete_cluster("no"), "no cluster 'no'", "cloud, local"),
        (lambda file: file.delete_cluster("local"), "is used by: local, spare", "--force"),
    ],
)
def test_an_invalid_change_is_refused_and_the_file_stays_unchanged(
    file: ProfileFile, change: Change, reason: str, hint: str
) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        change(file)
    assert hint in caught.value.hint
    assert file.path.read_text() == TEXT


def test_a_cluster_whose_profile_has_another_name_is_not_overwritten(file: ProfileFile) -> None:
    file.delete("cloud")
    with pytest.raises(ConfigError, match="cluster 'cloud' already exists") as caught:
        file.add("cloud", "h:1")
    assert "delete-cluster cloud" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "change"),
    [
        (
            'profile = {a = {cluster = "c"}}\n[cluster.c]\nendpoint = "h:1"',
            lambda file: file.rename("a", "b"),
        ),
        (
            'profile = {a = {cluster = "c"}}\n[cluster.c]\nendpoint = "h:1"',
            lambda file: file.delete("a"),
        ),
        (
            'profile.a.cluster = "c"\ncluster.c.endpoint = "h:1"',
            lambda file: file.delete("a"),
        ),
    ],
)
def test_an_unsupported_form_is_refused(tmp_path: Path, text: str, change: Change) -> None:
    file = ProfileFile(tmp_path / "config")
    file.path.write_text(text)
    with pytest.raises(ConfigError, match="cannot edit"):
        change(file)
    assert file.path.read_text() == text


def test_a_profile_can_be_added_to_any_form(tmp_path: Path) -> None:
    file = ProfileFile(tmp_path / "config")
    file.path.write_text('profile.a.cluster = "c"\n# so\ncluster.c.endpoint = "h:1"')
    file.add("new", "h:2")
    assert set(load_profiles(file.path).by_name) == {"a", "new"}
    assert "# so" in file.path.read_text()


def test_a_broken_profile_can_be_deleted_and_renamed_but_not_used(file: ProfileFile) -> None:
    broken = '\n[profile.broken]\ncluster = "gone"\n'
    file.path.write_text(TEXT + broken)
    with pytest.raises(ConfigError, match="is missing in"):
        file.switch("broken")
    file.rename("broken", "worse")
    assert file.delete("worse") is None
    assert file.path.read_text().rstrip() == TEXT.rstrip()


def test_an_unwritable_folder_is_an_error_and_leaves_no_temporary_file(
    file: ProfileFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: object, target: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(ConfigError, match=r"cannot write the Fluvio profile file .*: Permission"):
        file.switch("cloud")
    assert list(file.path.parent.iterdir()) == [file.path]
    assert file.path.read_text() == TEXT


# --- The file on disk ------------------------------------------------------------------------


def test_permissions_are_kept(file: ProfileFile) -> None:
    file.switch("cloud")
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o640


def test_a_symbolic_link_stays_a_link(file: ProfileFile, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(file.path)
    ProfileFile(link).switch("cloud")
    assert link.is_symlink()
    assert data(file)["current_profile"] == "cloud"


def test_windows_line_ends_are_kept(file: ProfileFile) -> None:
    file.path.write_bytes(TEXT.replace("\n", "\r\n").encode())
    file.switch("cloud")
    file.rename("spare", "wheel")
    file.delete("local")
    lines = file.path.read_bytes().splitlines(keepends=True)
    assert all(line.endswith(b"\r\n") for line in lines)


names = st.sampled_from(["a", "b", "c.d", "e f", 'q"', "ü"])
steps = st.one_of(
    st.tuples(st.just("add"), names, names),
    st.tuples(st.just("rename"), names, names),
    st.tuples(st.just("delete"), names, names),
    st.tuples(st.just("switch"), names, names),
    st.tuples(st.just("drop"), names, names),
)


@given(st.lists(steps, max_size=12))
def test_any_changes_give_the_same_data_as_in_a_plain_dict(
    tmp_path_factory: pytest.TempPathFactory, taken: list[tuple[str, str, str]]
) -> None:
    file = ProfileFile(tmp_path_factory.mktemp("any") / "config")
    file.path.write_text(TEXT)
    profiles = {"local": "local", "cloud": "cloud", "spare": "local"}
    clusters, current = {"local", "cloud"}, "local"
    for step, name, other in taken:
        try:
            match step:
                case "add":
                    file.add(name, "h:1", replace=True)
                    profiles[name] = current = name
                    clusters.add(name)
                case "rename":
                    file.rename(name, other)
                    profiles[other] = profiles.pop(name)
                    current = other if current == name else current
                case "delete":
                    file.delete(name)
                    del profiles[name]
                    current = "" if current == name else current
                case "switch":
                    file.switch(name)
                    current = name
                case "drop":
                    deleted = file.delete_cluster(name, force=True)
                    clusters.discard(name)
                    profiles = {key: of for key, of in profiles.items() if key not in deleted}
                    current = "" if current in deleted else current
        except ConfigError:
            pass  # the name does not exist, or is in use
        read = load_profiles(file.path)
        assert {key: found.cluster for key, found in read.by_name.items()} == profiles
        assert not read.problems
        assert (read.current or "") == current
        assert set(data(file)["cluster"]) == clusters
    text = file.path.read_text()
    assert "# Written by hand" in text
    assert "# two" in text or "local" not in profiles
