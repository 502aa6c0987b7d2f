"""TLS of a client: trusted authorities, the client certificate, and expected server names.

Source: docs/protocol/frames.md, "TLS".
"""

from __future__ import annotations

import re
import ssl
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NoReturn

import anyio
from anyio.abc import ByteStream
from anyio.streams.tls import TLSStream

from streamkit.client import checks
from streamkit.errors import ConfigError, ConnectFailed, UsageError

_PEM: Final = "-----BEGIN "
_CERTIFICATE: Final = "-----BEGIN CERTIFICATE-----"
_KEY: Final = "PRIVATE KEY-----"
_NAME: Final = re.compile(r"[\w-]+(\.[\w-]+)*\.?", re.ASCII)

# OpenSSL's codes for invalid certificates.
_WRONG_NAME: Final = (62, 64)  # of a host, of an IP address
_WRONG_TIME: Final = (9, 10)  # not yet valid, expired

# Parts of OpenSSL's error names, grouped by what they mean.
_NO_TLS: Final = (
    *("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL", "HTTP_REQUEST"),
    *("PACKET_LENGTH_TOO_LONG", "BAD_RECORD_TYPE", "INVALID_RECORD", "UNEXPECTED_RECORD"),
)
_NEEDS_CERTIFICATE: Final = ("CERTIFICATE_REQUIRED", "HANDSHAKE_FAILURE", "BAD_CERTIFICATE")
_REFUSES_CERTIFICATE: Final = (
    *("ALERT_UNKNOWN_CA", "ALERT_BAD_CERTIFICATE", "ALERT_CERTIFICATE", "ALERT_ACCESS_DENIED"),
    *("ALERT_UNSUPPORTED_CERTIFICATE", "ALERT_DECRYPT_ERROR"),
)
_OTHER_VERSION: Final = ("PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL", "NO_SHARED_CIPHER")

CERT_HINT: Final = "give client_cert and client_key: in Tls(), as options or in the profile"
_IS_IT_TLS: Final = "does this port use TLS? If not, connect without TLS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """How to secure connections. ``Tls()`` trusts the system's authorities and checks names.

    ``ca_cert``, ``client_cert`` and ``client_key`` are PEM: the text itself, or the path of a
    file. Files are read when a client is created.

    Attributes:
        ca_cert: The CA certificates to trust for servers, instead of the system's.
        domain: The expected server names: the SC's certificate must be for the domain itself,
            that of an SPU for ``<its name>.<domain>``, as in Fluvio's own clients. Without a
            domain, a certificate must be for the host that the client connects to.
        client_cert: The client's certificate, with its intermediate certificates.
        client_key: The key of ``client_cert``, not encrypted.
        anonymous: Encrypt, but accept any certificate: anyone who can redirect the connection
            can read it. Fluvio's profiles call this anonymous.
    """

    ca_cert: str | Path | None = None
    domain: str | None = None
    client_cert: str | Path | None = None
    client_key: str | Path | None = field(default=None, repr=False)
    anonymous: bool = False

    def __post_init__(self) -> None:
        for name in ("ca_cert", "client_cert", "client_key"):
            value = getattr(self, name)
            if not isinstance(value, str | Path | None):
                # Only the type, because the value may be a key.
                raise UsageError(f"{name} must be text or a path, not {type(value).__name__}")
        if self.domain is not None:
            checks.text("domain", self.domain, may_be_empty=True)
        checks.flag("anonymous", self.anonymous)
        if self.anonymous and self.ca_cert is not None:
            raise UsageError(
                "anonymous TLS does not check certificates, so a CA certificate has no effect",
                hint="remove one of them",
            )
        if (self.client_cert is None) != (self.client_key is None):
            given, missing = "client_cert", "client_key"
            if self.client_cert is None:
                given, missing = missing, given
            raise UsageError(f"{given} is given without {missing}", hint="give both, or neither")
        if self.domain is not None and not _NAME.fullmatch(self.domain):
            raise UsageError(f"domain={self.domain!r} is not a valid host name")

    def as_text(self) -> Tls:
        """Return a copy that has the contents of the files instead of their paths.

        Raises:
            ConfigError: A file cannot be read, or has no certificate or key in PEM.
        """
        named = {
            "ca_cert": ("the CA certificate", self.ca_cert, _CERTIFICATE),
            "client_cert": ("the client certificate", self.client_cert, _CERTIFICATE),
            "client_key": ("the client key", self.client_key, _KEY),
        }
        texts = {
            key: _pem(what, given, marker)
            for key, (what, given, marker) in named.items()
            if given is not None
        }
        return Tls(domain=self.domain, anonymous=self.anonymous, **texts)

    def context(self) -> ssl.SSLContext:
        """Read the certificates and create the context for OpenSSL.

        Raises:
            ConfigError: A file cannot be read, or a certificate or key is not valid.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # The same rule on every Python version: each given CA certificate is trusted, including
        # intermediate ones.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        if self.anonymous:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif self.ca_cert is None:
            context.load_default_certs()
        else:
            _trust(context, self.ca_cert)
        if self.client_cert is not None and self.client_key is not None:
            _load_client_cert(context, self.client_cert, self.client_key)
        return context


@dataclass(frozen=True, slots=True)
class ServerTls:
    """TLS with one server, whose certificate must be for ``name``."""

    context: ssl.SSLContext
    name: str
    has_client_cert: bool

    async def secured(self, stream: ByteStream, address: str) -> ByteStream:
        """Do the TLS handshake on a connection and return the encrypted stream.

        Raises:
            ConnectFailed: One side does not trust the other, or the server does not use TLS.
        """
        try:
            return await TLSStream.wrap(
                stream,
                server_side=False,
                hostname=self.name,
                ssl_context=self.context,
                # Every frame has a length, so truncation is detected without TLS's closing message.
                standard_compatible=False,
            )
        except ssl.SSLError as error:
            raise self.failure(address, error) from error
        except (OSError, anyio.EndOfStream, anyio.BrokenResourceError) as error:
            raise ConnectFailed(
                address, "it closed the connection during the TLS handshake", hint=_IS_IT_TLS
            ) from error

    def failure(self, address: str, error: ssl.SSLError) -> ConnectFailed:
        """Describe in words an error that OpenSSL found or the server reported."""
        if isinstance(error, ssl.SSLCertVerificationError):
            return self._verification_failure(address, error)
        reason = error.reason or ""
        if any(part in reason for part in _NO_TLS):
            return _refused(address, "the server does not use TLS", _IS_IT_TLS)
        if not self.has_client_cert and any(part in reason for part in _NEEDS_CERTIFICATE):
            return _refused(address, "it requires a client certificate", CERT_HINT)
        if self.has_client_cert and any(part in reason for part in _REFUSES_CERTIFICATE):
            return _refused(
                address,
                f"it rejected the client certificate ({in_words(error)})",
                "is it signed by an authority that the server trusts, and still valid?",
            )
        if "UNRECOGNIZED_NAME" in reason:
            return _refused(address, f"it has no server named {self.name!r}", "check the domain")
        if any(part in reason for part in _OTHER_VERSION):
            return _refused(
                address,
                f"it does not support a safe version of TLS ({in_words(error)})",
                "enable TLS 1.2 or 1.3 on the server",
            )
        return ConnectFailed(address, f"TLS failed: {in_words(error)}", hint=_IS_IT_TLS)

    def _verification_failure(
        self, address: str, error: ssl.SSLCertVerificationError
    ) -> ConnectFailed:
        if error.verify_code in _WRONG_NAME:
            return _refused(
                address,
                f"its certificate is not for {self.name!r}",
                "the domain (Tls(domain=...), --domain, or in the profile) is the name of the SC; "
                "the name of an SPU is <its name>.<domain>",
            )
        if error.verify_code in _WRONG_TIME:
            return _refused(
                address,
                f"its certificate is not valid now: {error.verify_message}",
                "renew it, or correct the clock of this machine",
            )
        return _refused(
            address,
            f"its certificate is not trusted: {error.verify_message}",
            "give the authority that signed it: Tls(ca_cert=...), --ca-cert, or in the profile",
        )


def in_words(error: ssl.SSLError) -> str:
    """Return OpenSSL's own words, without the position in its source code."""
    return error.reason.replace("_", " ").lower() if error.reason else str(error)


def _refused(address: str, reason: str, hint: str) -> ConnectFailed:
    return ConnectFailed(address, reason, hint=hint, retryable=False)


def _trust(context: ssl.SSLContext, ca_cert: str | Path) -> None:
    text = _pem("the CA certificate", ca_cert, _CERTIFICATE)
    try:
        # PEM allows any text between certificates; Python accepts only ASCII.
        context.load_verify_locations(cadata=text.encode("ascii", "ignore").decode())
    except ssl.SSLError as error:
        raise ConfigError(
            f"the CA certificate {_shown(ca_cert)} is damaged: {in_words(error)}"
        ) from error


def _load_client_cert(context: ssl.SSLContext, cert: str | Path, key: str | Path) -> None:
    _pem("the client certificate", cert, _CERTIFICATE)
    _pem("the client key", key, _KEY)
    with ExitStack() as stack:
        cert_file, key_file = _as_file(stack, cert), _as_file(stack, key)
        try:
            context.load_cert_chain(cert_file, key_file, _no_password)
        except ssl.SSLError as error:
            both = f"client certificate {_shown(cert)} and key {_shown(key)}"
            if error.reason == "KEY_VALUES_MISMATCH":
                raise ConfigError(f"{both} do not match") from error
            raise ConfigError(f"{both} cannot be used: {in_words(error)}") from error


def _no_password() -> NoReturn:
    raise ConfigError(
        "the client key is encrypted", hint="decrypt it: openssl pkey -in KEY -out PLAIN_KEY"
    )


def _pem(what: str, given: str | Path, marker: str) -> str:
    text = str(given)
    if not _is_text(given):
        try:
            text = Path(given).read_text(encoding="utf-8", errors="replace")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ConfigError(f"cannot read {what} {given}: {reason}") from error
    if marker not in text:
        raise ConfigError(
            f"{what} {_shown(given)} contains no {marker.strip('-').removeprefix('BEGIN ')} in PEM",
            hint="PEM is text that begins with -----BEGIN",
        )
    return text


def _as_file(stack: ExitStack, given: str | Path) -> Path:
    if not _is_text(given):
        return Path(given)
    # Python's OpenSSL reads the client certificate only from files.
    folder = stack.enter_context(TemporaryDirectory(prefix="streamkit-"))
    path = Path(folder) / "pem"
    path.write_text(str(given))
    return path


def _is_text(given: str | Path) -> bool:
    return isinstance(given, str) and _PEM in given


def _shown(given: str | Path) -> str:
    return "(given as text)" if _is_text(given) else str(given)
