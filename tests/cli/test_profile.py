"""`streamkit profile`, and the TLS options of commands, against a broker that requires TLS."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import trustme
from click.testing import CliRunner, Result

from streamkit.cli import main as command
from streamkit.cli.main import cli
from streamkit.errors import ConfigError, UsageError
from tests.cli.processes import Ended, ready_line, run, started
from tests.tls_proxy import TlsProxy

TEXT: Final = """\
version = "2.0"
current_profile = "local"
[profile.local]
cluster = "local"
[profile.cloud]
cluster = "cloud"
[profile.broken]
cluster = "gone"
# far away
[cluster.cloud]
endpoint = "sc.example:9003"
[cluster.cloud.tls]
tls_policy = "anonymous"
[cluster.local]
endpoint = "127.0.0.1:9003"
"""
DOMAIN: Final = "fluvio.test"
Profile = Callable[..., str]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "config"
    path.write_text(TEXT)
    monkeypatch.setenv("FLV_PROFILE_PATH", str(path))
    return path


def invoked(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["profile", *arguments], prog_name="streamkit")


@pytest.fixture
def profile(file: Path) -> Profile:
    def run_it(*arguments: str) -> str:
        result = invoked(*arguments)
        assert result.exception is None, result.exception
        return result.output

    return run_it


# --- The file --------------------------------------------------------------------------------


def test_the_current_profile_is_shown(profile: Profile) -> None:
    assert profile() == profile("current") == "local\n"


def test_the_list_shows_the_address_and_the_problem_of_each_profile(profile: Profile) -> None:
    lines = [line.split() for line in profile("list").splitlines()]
    assert lines[0] == ["CURRENT", "PROFILE", "CLUSTER", "ADDRESS", "TLS", "PROBLEM"]
    assert lines[1][:6] == ["-", "broken", "-", "-", "-", "the"]
    assert lines[2] == ["-", "cloud", "cloud", "sc.example:9003", "anonymous", "-"]
    assert lines[3] == ["*", "local", "local", "127.0.0.1:9003", "disabled", "-"]
    assert json.loads(profile("list", "-O", "json"))[2] == {
        "current": "*",
        "profile": "local",
        "cluster": "local",
        "address": "127.0.0.1:9003",
        "tls": "disabled",
        "problem": None,
    }


def test_a_profile_can_be_added_renamed_and_deleted(profile: Profile, file: Path) -> None:
    assert profile("switch", "cloud") == (
        "switched to profile 'cloud': sc.example:9003 with TLS, anonymous\n"
    )
    assert profile("add", "new", "h:1", "docker") == "added and switched to profile 'new': h:1\n"
    assert profile("current") == "new\n"
    assert profile("rename", "new", "newer") == "renamed profile 'new' to 'newer'\n"
    assert profile("current") == "newer\n"
    assert profile("delete", "newer").splitlines() == [
        "deleted profile 'newer'; kept cluster 'new'",
        "there is no current profile now; choose one with `streamkit profile switch NAME`",
    ]
    assert profile("delete-cluster", "new") == "deleted cluster 'new'\n"
    profile("switch", "local")
    assert profile("delete-cluster", "local", "--force").splitlines()[0] == (
        "deleted cluster 'local' and its profiles: local"
    )
    assert "# far away" in file.read_text()
    assert set(tomllib.loads(file.read_text())["cluster"]) == {"cloud"}


def test_a_profile_with_tls_is_added_by_its_options(profile: Profile, file: Path) -> None:
    added = profile(
        *("add", "new", "h:1", "--tls", "--domain", "d.test", "--ca-cert", "/c/ca"),
        *("--enable-client-cert", "--client-cert", "/c/cert", "--client-key", "/c/key"),
    )
    assert added == "added and switched to profile 'new': h:1 with TLS, verified\n"
    assert tomllib.loads(file.read_text())["cluster"]["new"]["tls"] == {
        "tls_policy": "verified",
        "tls_source": "files",
        "certs": {"domain": "d.test", "ca_cert": "/c/ca", "cert": "/c/cert", "key": "/c/key"},
    }
    assert "anonymous" in profile("add", "other", "h:1", "--tls")


def test_sync_creates_or_updates_the_local_profile(profile: Profile, file: Path) -> None:
    profile("switch", "cloud")
    assert profile("sync", "local", "127.0.0.1:9103") == (
        "switched to profile 'local': 127.0.0.1:9103\n"
    )
    assert profile("sync", "local") == "switched to profile 'local': 127.0.0.1:9003\n"
    assert profile() == "local\n"
    local = tomllib.loads(file.read_text())["cluster"]["local"]
    assert local["metadata"] == {"installation": "local"}


def test_an_exported_profile_includes_its_certificates_and_key(
    profile: Profile, tmp_path: Path
) -> None:
    ca = trustme.CA()
    leaf = ca.issue_cert("client@fluvio.test")
    ca.cert_pem.write_to_path(tmp_path / "ca")
    leaf.cert_chain_pems[0].write_to_path(tmp_path / "cert")
    leaf.private_key_pem.write_to_path(tmp_path / "key")
    profile(
        *("add", "new", "h:1", "--tls", "--domain", "d.test", "--ca-cert", f"{tmp_path}/ca"),
        *("--enable-client-cert", "--client-cert", f"{tmp_path}/cert"),
        *("--client-key", f"{tmp_path}/key"),
    )
    exported = tomllib.loads(profile("export"))
    assert exported["current_profile"] == "new"
    assert exported["profile"] == {"new": {"cluster": "new"}}
    assert exported["cluster"]["new"]["tls"] == {
        "tls_policy": "verified",
        "tls_source": "inline",
        "certs": {
            "domain": "d.test",
            "ca_cert": (tmp_path / "ca").read_text(),
            "cert": (tmp_path / "cert").read_text(),
            "key": (tmp_path / "key").read_text(),
        },
    }
    cluster = exported["cluster"]["new"]
    assert json.loads(profile("export", "new", "-O", "json")) == cluster
    yaml = pytest.importorskip("yaml", reason="needs an optional package: yaml")
    assert yaml.safe_load(profile("export", "new", "-O", "yaml")) == cluster
    assert json.loads(profile("export", "cloud", "-O", "json"))["endpoint"] == "sc.example:9003"


@pytest.mark.parametrize(
    ("arguments", "kind", "reason", "hint"),
    [
        ("switch lcoal", ConfigError, "no profile 'lcoal'", "did you mean 'local'?"),
        ("switch zzz", ConfigError, "no profile 'zzz'", "existing names: broken, cloud, local"),
        ("switch broken", ConfigError, "is missing in", "correct"),
        ("delete-cluster clod", ConfigError, "no cluster 'clod'", "did you mean 'cloud'?"),
        ("delete-cluster local", ConfigError, "is used by: local", "--force"),
        ("add local h:1", ConfigError, "already", "another name"),
        ("add n h", UsageError, "the cluster: 'h' is not HOST:PORT", "host and port"),
        ("add n h:1 moon", UsageError, "'moon'", "local_k8"),
        ("add n h:1 --tls --domain d", UsageError, "missing: ca_cert, cert, key", "anonymous TLS"),
        ("add n h:1 --domain d", UsageError, "--domain needs --tls", "add --tls"),
        ("rename local cloud", ConfigError, "profile 'cloud' already exists", "another name"),
        ("export broken", ConfigError, "is missing in", "correct"),
    ],
)
def test_an_invalid_change_is_an_error_with_a_hint_and_leaves_the_file_unchanged(
    file: Path, arguments: str, kind: type[ConfigError], reason: str, hint: str
) -> None:
    result = invoked(*arguments.split())
    assert type(result.exception) is kind
    assert reason in str(result.exception)
    assert hint in result.exception.hint
    assert file.read_text() == TEXT


@pytest.mark.parametrize(
    ("arguments", "suggestion"),
    [("swich x", "'switch'"), ("exprt", "'export'"), ("sync locl", "'local'")],
)
def test_a_misspelt_subcommand_gets_a_suggestion(
    file: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: str,
    suggestion: str,
) -> None:
    monkeypatch.setattr("sys.argv", ["streamkit", "profile", *arguments.split()])
    with pytest.raises(SystemExit):
        command.main()
    assert f"did you mean {suggestion}?" in capsys.readouterr().err


def test_the_error_names_the_missing_package_that_writes_the_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamkit.client.profile.profile_file.find_spec", lambda name: None)
    result = invoked("switch", "cloud")
    assert isinstance(result.exception, ConfigError)
    assert "tomlkit" in str(result.exception)
    assert "fluvio-streamkit[cli]" in result.exception.hint
    assert invoked("list").exit_code == 0  # reading does not need the package


# --- TLS -------------------------------------------------------------------------------------

APP: Final = """
from streamkit import App

app = App("copy")
app.stream("secured", bytes).to("copied")
"""


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def certs(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certs")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    leaf = authority.issue_cert("client@fluvio.test", common_name="commands")
    leaf.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    leaf.private_key_pem.write_to_path(folder / "key.pem")
    return folder


@pytest.fixture(scope="module")
def secured(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsProxy]:
    """A broker that requires TLS and client certificates."""
    certificate = authority.issue_cert(DOMAIN, f"*.{DOMAIN}")
    folder = tmp_path_factory.mktemp("secured")
    options: Any = ("--sc-port", "0", "--spu-port", "0", "--spu-public-address")
    with (
        TlsProxy(certificate, clients_of=authority) as proxy,
        started(folder, "broker", "start", *options, proxy.spu_address) as broker,
    ):
        sc, spu = (int(address.rpartition(":")[2]) for address in ready_line(broker))
        proxy.forward_to(sc, spu)
        yield proxy
        broker.terminate()
        broker.wait(30)


def options_of(certs: Path) -> tuple[str, ...]:
    return (
        *("--tls", "--domain", DOMAIN, "--ca-cert", str(certs / "ca.pem"), "--enable-client-cert"),
        *("--client-cert", str(certs / "cert.pem"), "--client-key", str(certs / "key.pem")),
    )


def test_every_command_that_connects_accepts_the_tls_options(
    secured: TlsProxy, certs: Path, tmp_path: Path
) -> None:
    target = ("--cluster", secured.sc_address, *options_of(certs))

    def ended(*arguments: str, given: bytes = b"") -> Ended:
        done = run(tmp_path, *arguments, given=given)
        assert done.code == 0, done.err
        return done

    ended(*target, "topic", "create", "secured")
    ended("produce", "secured", *target, given=b"one\ntwo\n")
    (tmp_path / "app.py").write_text(APP)
    ended("run", "app.py", "--once", "--create-topics", *target)
    assert ended(*target, "consume", "copied", "-B", "-d").lines == [b"one", b"two"]
    assert set(secured.clients["spu"]) == {"commands"}
    assert set(secured.names["spu"]) == {f"custom-spu-5001.{DOMAIN}"}


def test_commands_use_the_tls_of_the_current_profile(
    secured: TlsProxy, certs: Path, tmp_path: Path
) -> None:
    variables = {"FLV_PROFILE_PATH": str(tmp_path / "fluvio" / "config")}
    for arguments in (
        ("profile", "add", "there", secured.sc_address, *options_of(certs)),
        ("topic", "create", "by-profile"),
        ("produce", "by-profile"),
    ):
        done = run(tmp_path, *arguments, given=b"x\n", variables=variables)
        assert done.code == 0, done.err
    done = run(tmp_path, "consume", "by-profile", "-B", "-d", variables=variables)
    assert done.lines == [b"x"]
    assert not (tmp_path / ".streamkit").exists()


@pytest.mark.parametrize(
    ("options", "error", "hint"),
    [
        ((), "does it require TLS", "--tls"),
        (("--tls",), "it requires a client certificate", "client_cert"),
        (("--tls", "--domain", DOMAIN), "its certificate is not trusted", "--ca-cert"),
    ],
)
def test_a_failed_tls_handshake_is_an_error_with_the_reason(
    secured: TlsProxy, tmp_path: Path, options: tuple[str, ...], error: str, hint: str
) -> None:
    done = run(tmp_path, "-c", secured.sc_address, *options, "topic", "list")
    assert done.code == 1
    assert error in done.err
    assert hint in done.err


def test_a_job_does_not_retry_a_cluster_that_refuses_its_certificate(
    secured: TlsProxy, tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text(APP)
    done = run(tmp_path, "run", "app.py", "--cluster", secured.sc_address, "--tls")
    assert done.code == 1
    assert "it requires a client certificate" in done.err
