"""Buckets of S3, Google and Azure on this machine, which tests fill and the product reads."""

from __future__ import annotations

import base64
import hashlib
import hmac
import urllib.request
from datetime import UTC, datetime
from typing import Any, Final

import obstore
from obstore.store import from_url

from streamkit import Secret

# Of the storage emulator: https://learn.microsoft.com/azure/storage/common/storage-use-emulator
AZURE_ACCOUNT: Final = "devstoreaccount1"
AZURE_KEY: Final = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)


class Bucket:
    """A bucket of a store, whose options and credentials are in ``store``."""

    def __init__(self, scheme: str, name: str, store: dict[str, object]) -> None:
        self.root = f"{scheme}://{name}"
        self.scheme = scheme
        self.name = name
        self.store = store
        config: Any = self.plain_store
        client: Any = {"allow_http": True, "pool_max_idle_per_host": "0"}  # so no socket stays open
        self.objects = from_url(self.root, config=config, client_options=client)

    @property
    def plain_store(self) -> dict[str, object]:
        """The options and credentials without the wrapper that hides them."""
        return {
            key: each.reveal() if isinstance(each, Secret) else each
            for key, each in self.store.items()
        }

    @property
    def nowhere(self) -> str:
        """The root of a bucket of the same store that does not exist."""
        return f"{self.scheme}://nowhere"

    def url(self, path: str) -> str:
        return f"{self.root}/{path}"

    def put(self, path: str, data: bytes) -> None:
        obstore.put(self.objects, path, data)

    def delete(self, path: str) -> None:
        obstore.delete(self.objects, path)


def s3_bucket(endpoint: str, name: str) -> Bucket:
    """Create a bucket of a server that speaks S3."""
    request = urllib.request.Request(f"{endpoint}/{name}", method="PUT")
    request.add_header("Authorization", "AWS4-HMAC-SHA256 Credential=x/20240101/us-east-1/s3/")
    urllib.request.urlopen(request).close()
    store = {
        "endpoint": endpoint,
        "region": "us-east-1",
        "access_key_id": "tester",
        "secret_access_key": Secret("not-to-be-shown"),
    }
    return Bucket("s3", name, store)


def google_bucket(endpoint: str, name: str) -> Bucket:
    """Create a bucket that is used as one of Google.

    obstore uses Google's XML interface, whose requests for objects, lists and uploads in parts are
    those of S3. So the server may be one that speaks S3, if it does not check the token.
    """
    s3_bucket(endpoint, name)
    store = {"base_url": endpoint, "bearer_token": Secret("not-to-be-shown")}
    return Bucket("gs", name, store)


def azure_container(endpoint: str, name: str) -> Bucket:
    """Create a container of Azurite, which checks signatures."""
    path = f"/{AZURE_ACCOUNT}/{name}"
    headers = {
        "x-ms-date": datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT"),
        "x-ms-version": "2021-08-06",
    }
    signed = "\n".join(
        [
            *("PUT", *[""] * 11),
            *(f"{name}:{value}" for name, value in headers.items()),
            f"/{AZURE_ACCOUNT}{path}",
            "restype:container",
        ]
    )
    digest = hmac.new(base64.b64decode(AZURE_KEY), signed.encode(), hashlib.sha256).digest()
    headers["Authorization"] = f"SharedKey {AZURE_ACCOUNT}:{base64.b64encode(digest).decode()}"
    request = urllib.request.Request(
        f"{endpoint}{path}?restype=container", method="PUT", headers=headers
    )
    urllib.request.urlopen(request).close()
    store = {
        "account_name": AZURE_ACCOUNT,
        "account_key": Secret(AZURE_KEY),
        "endpoint": f"{endpoint}/{AZURE_ACCOUNT}",
    }
    return Bucket("az", name, store)
