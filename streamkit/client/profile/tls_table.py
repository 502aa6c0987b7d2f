"""The TLS settings of a profile, as Fluvio's file has them."""

from __future__ import annotations

import os
from typing import Any

from streamkit.client.profile.profile import (
    CERT_KEYS,
)
from streamkit.client.tls import Tls
from streamkit.errors import UsageError


def tls_table(tls: Tls | None) -> dict[str, Any]:
    """Return the table ``tls`` of a profile file.

    Raises:
        UsageError: Some of the required options are missing.
    """
    if tls is None:
        return {"tls_policy": "disabled"}
    given = certs_of(tls)
    if tls.anonymous and not given:
        return {"tls_policy": "anonymous"}
    missing = [key for key in CERT_KEYS if key not in given]
    if tls.anonymous or missing:
        raise UsageError(
            f"these TLS options cannot be stored in a profile (missing: {', '.join(missing)})",
            hint="Fluvio's file needs domain, CA, client certificate and key, or anonymous TLS",
        )
    return verified_table(given)


def certs_of(tls: Tls) -> dict[str, str]:
    given = (tls.domain, tls.ca_cert, tls.client_cert, tls.client_key)
    return {
        key: str(value) for key, value in zip(CERT_KEYS, given, strict=True) if value is not None
    }


def verified_table(given: dict[str, str]) -> dict[str, Any]:
    is_text = ["-----BEGIN " in value for key, value in given.items() if key != "domain"]
    if any(is_text) and not all(is_text):
        raise UsageError("the certificates of a profile must all be files, or all be text")
    certs = {
        key: value
        if key == "domain"
        else (_lines(value) if all(is_text) else os.path.abspath(value))
        for key, value in given.items()
    }
    source = "inline" if all(is_text) else "files"
    return {"tls_policy": "verified", "tls_source": source, "certs": certs}


def _lines(text: str) -> str:
    import tomlkit

    return tomlkit.string(text, multiline=True)
