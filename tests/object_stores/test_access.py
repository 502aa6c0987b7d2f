"""How stores are reached: credentials, endpoints, options of the connection, and their errors."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from streamkit import Secret
from streamkit.connectors.files import Files, FileSink, Text
from streamkit.errors import ConfigError, UsageError
from tests.connectors.reading import read
from tests.object_stores.buckets import AZURE_KEY, Bucket
from tests.object_stores.http_files import HttpFiles
from tests.object_stores.test_file_sink import copies


@pytest.mark.parametrize("any_bucket", ["az"], indirect=True)
def test_a_wrong_key_is_an_error_at_the_start_that_does_not_show_it(
    any_bucket: Bucket, tmp_path: Path
) -> None:
    wrong = f"A{AZURE_KEY[1:]}"
    for given in (Secret(wrong), wrong):
        store = {**any_bucket.store, "account_key": given}
        for path in ("*.txt", "f.txt"):
            with pytest.raises(ConfigError, match="access is denied") as caught:
                read(Files(any_bucket.url(path), Text(), store=store), str)
            assert "account_name, and account_key or sas_key" in caught.value.hint
            assert wrong not in str(caught.value)
        with pytest.raises(ConfigError, match="access is denied") as caught:
            copies(tmp_path, FileSink(any_bucket.url("f.jsonl"), store=store))
        assert wrong not in str(caught.value)


@pytest.mark.parametrize("as_secret", [True, False])
@pytest.mark.parametrize("any_bucket", ["az"], indirect=True)
def test_a_signature_of_azure_is_not_shown_in_an_error(any_bucket: Bucket, as_secret: bool) -> None:
    key = "sv=2021-08-06&se=2030-01-01&sr=c&sp=rl&sig=very%2Fsecret%3D"
    store = {name: each for name, each in any_bucket.store.items() if name != "account_key"}
    store["sas_key"] = Secret(key) if as_secret else key
    with pytest.raises(ConfigError, match="access is denied") as caught:
        read(Files(any_bucket.url("*.txt"), Text(), store=store), str)
    assert not re.search("very.*secret", str(caught.value))


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_that_google_refuses_is_not_shown(http_files: HttpFiles, status: int) -> None:
    http_files.faults = [status]
    store = {"base_url": http_files.url("").rstrip("/"), "bearer_token": "not-to-be-shown"}
    with pytest.raises(ConfigError, match="access is denied") as caught:
        read(Files("gs://bucket/*.txt", Text(), store=store), str)
    assert "not-to-be-shown" not in str(caught.value)
    assert "service_account" in caught.value.hint


@pytest.mark.parametrize("has_path", [True, False])
@pytest.mark.parametrize("any_bucket", ["gs"], indirect=True)
def test_a_service_account_of_google_is_used(
    any_bucket: Bucket, tmp_path: Path, has_path: bool
) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    account = {
        "type": "service_account",
        "private_key": key.decode(),
        "private_key_id": "1",
        "client_email": "job@example.iam",
    }
    (tmp_path / "key.json").write_text(json.dumps(account))
    endpoint = {"base_url": any_bucket.store["base_url"]}
    store = {
        True: {**endpoint, "service_account": str(tmp_path / "key.json")},
        False: {**endpoint, "service_account_key": Secret(json.dumps(account))},
    }[has_path]
    any_bucket.put("f.txt", b"1\n")
    assert read(Files(any_bucket.url("*.txt"), Text(), store=store), str) == ["1"]


def test_compressed_objects_of_google_are_read_as_they_are_stored(http_files: HttpFiles) -> None:
    """Google decompresses an object with ``Content-Encoding: gzip`` for clients that do not accept
    that, and then ignores ranges."""
    data = gzip.compress(b"1\n2\n")
    http_files.files["bucket/f%2Etxt%2Egz"] = data
    store = {"base_url": http_files.url("").rstrip("/"), "bearer_token": "t"}
    assert read(Files("gs://bucket/f.txt.gz", Text(), store=store), str) == ["1", "2"]
    assert {each.get("accept-encoding") for each in http_files.headers} == {"gzip"}


@pytest.mark.parametrize("any_bucket", ["s3", "gs", "az"], indirect=True)
def test_credentials_and_the_endpoint_can_be_in_the_environment(
    any_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {
        "s3": {
            "endpoint": "AWS_ENDPOINT_URL",
            "region": "AWS_REGION",
            "access_key_id": "AWS_ACCESS_KEY_ID",
            "secret_access_key": "AWS_SECRET_ACCESS_KEY",
        },
        "gs": {"base_url": "GOOGLE_BASE_URL", "bearer_token": "GOOGLE_BEARER_TOKEN"},
        "az": {
            "account_name": "AZURE_STORAGE_ACCOUNT_NAME",
            "account_key": "AZURE_STORAGE_ACCOUNT_KEY",
            "endpoint": "AZURE_STORAGE_ENDPOINT",
        },
    }[any_bucket.scheme]
    any_bucket.put("f.txt", b"1\n")
    for name, value in any_bucket.plain_store.items():
        monkeypatch.setenv(names[name], str(value))
    assert read(Files(any_bucket.url("*.txt"), Text()), str) == ["1"]


@pytest.mark.parametrize("any_bucket", ["az"], indirect=True)
def test_a_url_may_name_the_account_of_azure(any_bucket: Bucket) -> None:
    any_bucket.put("in/f.txt", b"1\n")
    store = {name: any_bucket.store[name] for name in ("account_key", "endpoint")}
    root = f"abfss://{any_bucket.name}@devstoreaccount1.dfs.core.windows.net"
    for path in (f"{root}/in/*.txt", f"{root}/in/f.txt"):
        assert read(Files(path, Text(), store=store), str) == ["1"]
    with pytest.raises(UsageError, match="has a password"):
        Files("abfss://user:pass@account.dfs.core.windows.net/f.txt", Text())


def test_options_of_the_connection_are_in_the_same_place(any_bucket: Bucket) -> None:
    any_bucket.put("f.txt", b"1\n")
    store = {**any_bucket.store, "timeout": "20s", "connect_timeout": "5s", "allow_http": True}
    assert read(Files(any_bucket.url("*.txt"), Text(), store=store), str) == ["1"]


@pytest.mark.parametrize(
    ("path", "store", "problem"),
    [
        ("az://box/*.txt", {"account_key": AZURE_KEY}, "Account must be specified"),
        ("az://box/*.txt", {"account_name": "a", "account_key": "secret, really"}, "Access Key"),
        ("gs://box/*.txt", {"access_key_id": "a"}, "'access_key_id' is not valid"),
        ("gs://box/*.txt", {"service_account_key": "{'secret'"}, "service account"),
        ("s3://box/*.txt", {"timeout": "secret"}, "not valid"),
    ],
)
def test_options_that_are_not_valid_are_an_error_without_secrets(
    path: str, store: dict[str, object], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        read(Files(path, Text(), store=store), str)
    assert "is not valid" in str(caught.value)
    assert "secret, really" not in str(caught.value)
    assert "{'secret'" not in str(caught.value)
