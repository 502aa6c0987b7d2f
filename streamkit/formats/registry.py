"""A schema registry: ids of schemas and back, each asked for once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal, get_args
from urllib.parse import quote, urlsplit

from streamkit.env import SystemClock
from streamkit.errors import DataError, RegistryError, UsageError
from streamkit.formats.registry_requests import Auth, Refused, Requests, check_auth
from streamkit.serde.binding import Usage
from streamkit.units import seconds_of

SchemaType = Literal["AVRO", "PROTOBUF", "JSON"]
SubjectName = Literal["topic", "record", "topic-record"]
_monotonic_s: Final = SystemClock().monotonic_s
_UNKNOWN_SCHEMA: Final = 40403
_UNKNOWN_KEPT_S: Final = 30.0
_UNKNOWN_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class Reference:
    """Another schema that a schema uses under a name."""

    name: str
    subject: str
    version: int


@dataclass(frozen=True, slots=True)
class Schema:
    """A schema as the registry stores it."""

    text: str
    type: SchemaType = "AVRO"
    references: tuple[Reference, ...] = ()


class SchemaRegistry:
    """A schema registry with the HTTP API of Confluent, as of Redpanda, Karapace or Apicurio.

    Nothing is sent before the first record needs a schema. Each id and each schema is asked for
    once, and kept as long as the object. Such a request blocks the job, at most for ``timeout``.

    Args:
        url: The address, such as ``http://registry:8081``.
        auth: User and password, or a function that returns them, which is called for each request:
            ``lambda: (settings.get().user, settings.get().password)``.
        timeout: How long a request may take, in seconds or as a timedelta.
        register: Whether sinks register their schemas. If not, a schema must be registered
            already; a type without a schema is written with the latest one of its subject.
        subject: The name of the subject: that of the topic with ``-key`` or ``-value``, that of the
            record, or both.
        now_s: A clock in seconds, for tests.

    Raises:
        UsageError: An argument is not valid, or httpx2 is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        auth: Auth | Callable[[], Auth] | None = None,
        timeout: float | timedelta = 5.0,
        register: bool = True,
        subject: SubjectName = "topic",
        now_s: Callable[[], float] = _monotonic_s,
    ) -> None:
        _check_url(url)
        if auth is not None and not callable(auth):
            check_auth(auth)
        if subject not in get_args(SubjectName):
            raise UsageError(
                f"subject={subject!r} is not valid", hint=f"use {', '.join(get_args(SubjectName))}"
            )
        self._url = url.rstrip("/")
        self._requests = Requests(self._url, auth, _timeout_s(timeout))
        self._register = register
        self._subject = subject
        # Jobs in several threads may share a registry.
        self._lock = threading.Lock()
        self._schemas: dict[int, Schema] = {}
        self._ids: dict[tuple[str, Schema | None], tuple[int, Schema]] = {}
        self._versions: dict[tuple[str, Schema], int] = {}
        self._referred: dict[Reference, Schema] = {}
        self._unknown_s: dict[int, float] = {}
        self._now_s = now_s

    def __repr__(self) -> str:
        return f"SchemaRegistry({self._url!r})"

    @property
    def registers(self) -> bool:
        """Whether sinks register their schemas."""
        return self._register

    def schema(self, schema_id: int) -> Schema:
        """Return the schema of an id.

        Raises:
            DataError: The registry does not know the id; the answer is kept for 30 seconds.
            RegistryError: The registry does not answer.
        """
        with self._lock:
            found = self._schemas.get(schema_id)
            if found is None:
                found = self._schemas[schema_id] = self._fetched(schema_id)
            return found

    def id_of(self, subject: str, schema: Schema) -> int:
        """Return the id of a schema in a subject; register it if that is allowed.

        Raises:
            RegistryError: The registry refuses the schema, does not know it, or does not answer.
        """
        with self._lock:
            found = self._ids.get((subject, schema))
            if found is None:
                found = self._ids[subject, schema] = self._registered(subject, schema), schema
            return found[0]

    def latest(self, subject: str) -> tuple[int, Schema]:
        """Return the latest schema of a subject, as it was when it was first asked for.

        Raises:
            RegistryError: The subject does not exist, or the registry does not answer.
        """
        with self._lock:
            found = self._ids.get((subject, None))
            if found is None:
                path = f"/subjects/{_quoted(subject)}/versions/latest"
                answer = self._known("GET", path, subject)
                found = self._ids[subject, None] = self._id_in(answer), self._schema_in(answer)
            return found

    def referred(self, reference: Reference) -> Schema:
        """Return the schema that a reference names.

        Raises:
            RegistryError: It does not exist, or the registry does not answer.
        """
        with self._lock:
            found = self._referred.get(reference)
            if found is None:
                name = _quoted(reference.subject)
                path = f"/subjects/{name}/versions/{reference.version}"
                answer = self._known("GET", path, reference.subject)
                found = self._referred[reference] = self._schema_in(answer)
            return found

    def version_of(self, subject: str, schema: Schema) -> int:
        """Return the version of a registered schema in a subject.

        Raises:
            RegistryError: The registry does not know it, or does not answer.
        """
        with self._lock:
            found = self._versions.get((subject, schema))
            if found is None:
                answer = self._known("POST", f"/subjects/{_quoted(subject)}", subject, schema)
                found = self._versions[subject, schema] = self._number("version", answer)
            return found

    def subject_of(self, usage: Usage, record: Callable[[], str]) -> str:
        """Return the name of the subject of values.

        Args:
            usage: Where they are used.
            record: Returns the full name of the record or message.

        Raises:
            UsageError: The topic is not known.
        """
        if self._subject == "record":
            return record()
        if not usage.topic:
            raise UsageError(
                "the subject of a schema depends on the topic, which is not known here",
                hint='use the format in a sink, or SchemaRegistry(..., subject="record")',
            )
        return f"{usage.topic}-{usage.part if self._subject == 'topic' else record()}"

    # --- requests ----------------------------------------------------------------

    def _fetched(self, schema_id: int) -> Schema:
        unknown = DataError(f"schema id unknown: {self._url} has no schema with the id {schema_id}")
        until_s = self._unknown_s.get(schema_id)
        if until_s is not None and self._now_s() < until_s:
            raise unknown
        try:
            answer = self._requests.send("GET", f"/schemas/ids/{schema_id}")
        except Refused:
            if len(self._unknown_s) >= _UNKNOWN_MAX:
                self._unknown_s.clear()
            self._unknown_s[schema_id] = self._now_s() + _UNKNOWN_KEPT_S
            raise unknown from None
        return self._schema_in(answer)

    def _registered(self, subject: str, schema: Schema) -> int:
        name = _quoted(subject)
        path = f"/subjects/{name}/versions" if self._register else f"/subjects/{name}"
        return self._id_in(self._known("POST", path, subject, schema))

    def _known(
        self, method: str, path: str, subject: str, schema: Schema | None = None
    ) -> dict[str, Any]:
        try:
            return self._requests.send(method, path, None if schema is None else _body(schema))
        except Refused as error:
            what = "the schema" if error.code == _UNKNOWN_SCHEMA else "the subject or version"
            raise RegistryError(
                f"{self._url} does not know {what} for the subject {subject!r}: {error}",
                status=404,
                hint="register it first, or let the job do it: SchemaRegistry(register=True)",
            ) from None
        except RegistryError as error:
            raise RegistryError(
                f"subject {subject!r}: {error}",
                status=error.status,
                retryable=error.retryable,
                hint=error.hint,
            ) from error

    def _id_in(self, answer: dict[str, Any]) -> int:
        return self._number("id", answer)

    def _number(self, name: str, answer: dict[str, Any]) -> int:
        found = answer.get(name)
        if type(found) is not int:
            raise RegistryError(f"a response of {self._url} has no number {name!r}: {answer}")
        return found

    def _schema_in(self, answer: dict[str, Any]) -> Schema:
        try:
            references = tuple(
                Reference(each["name"], each["subject"], each["version"])
                for each in answer.get("references") or ()
            )
            return Schema(answer["schema"], answer.get("schemaType", "AVRO"), references)
        except (KeyError, TypeError):
            raise RegistryError(f"a response of {self._url} has no schema: {answer}") from None


def _body(schema: Schema) -> dict[str, Any]:
    body: dict[str, Any] = {"schema": schema.text}
    if schema.type != "AVRO":  # the default; old registries know no other
        body["schemaType"] = schema.type
    if schema.references:
        body["references"] = [
            {"name": each.name, "subject": each.subject, "version": each.version}
            for each in schema.references
        ]
    return body


def _quoted(subject: str) -> str:
    return quote(subject, safe="")


def _check_url(url: str) -> None:
    parts = urlsplit(url) if isinstance(url, str) else None
    if parts is not None and "@" in parts.netloc:
        raise UsageError(
            "the url of a schema registry must not contain a password, which errors would show",
            hint='use auth=("user", Secret("password"))',
        )
    if parts is None or parts.scheme not in ("http", "https") or not parts.netloc:
        raise UsageError(
            f"{url!r} is not a valid url of a schema registry",
            hint="for example http://registry:8081",
        )


def _timeout_s(timeout: float | timedelta) -> float:
    is_number = isinstance(timeout, int | float | timedelta) and not isinstance(timeout, bool)
    found = seconds_of(timeout) if is_number else 0.0
    if not 0 < found < float("inf"):
        raise UsageError(f"timeout={timeout!r} is not valid", hint="use seconds or a timedelta")
    return found
