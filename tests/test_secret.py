"""A secret is shown by nothing except `reveal`."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import traceback
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamkit import App, Secret
from streamkit.errors import StageError, TopologyError, UsageError
from streamkit.serde.values import encode_value
from streamkit.settings.hiding import Hiding

TEXT = "hunter2"
SECRET = Secret(TEXT)


class Holder(msgspec.Struct):
    password: Secret


@given(st.text(min_size=4).filter(lambda text: "*" not in text and text not in "password=Holder"))
def test_no_text_of_a_secret_contains_it(text: str) -> None:
    secret = Secret(text)
    shown = f"{secret} {secret!r} {secret!s} {secret:>9} {Holder(secret)} {[secret]}"
    assert text not in shown
    assert secret.reveal() == text


def test_a_log_message_does_not_contain_it(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("test").warning("connect with %s and %r", SECRET, Holder(SECRET))
    assert TEXT not in caplog.text
    assert "***" in caplog.text


@pytest.mark.parametrize("value", [SECRET, Holder(SECRET), {"a": [SECRET]}])
def test_it_is_not_pickled_and_not_written_as_json(value: object) -> None:
    for encode in (pickle.dumps, json.dumps, msgspec.json.encode, msgspec.to_builtins):
        with pytest.raises(TypeError) as refused:
            encode(value)
        assert TEXT not in str(refused.value)
    with pytest.raises(TypeError, match="Secret"):
        encode_value(value)


def test_a_stream_of_secrets_cannot_be_written() -> None:
    app = App("job")
    numbers = app.stream("numbers", int)

    def leak(number: int) -> Secret:
        return SECRET

    with pytest.raises(TopologyError, match="Secret"):
        numbers.map(leak).to("out")


def test_the_error_of_a_failed_record_does_not_contain_it() -> None:
    app = App("job")

    def fail(holder: Holder) -> None:
        raise ValueError(f"cannot connect with {holder.password}")

    app.stream("numbers", int).map(lambda number: Holder(SECRET)).map(fail)
    with app.test() as job, pytest.raises(StageError) as failed:
        job.send("numbers", 1)
    assert "value: Holder(password=***)" in str(failed.value)
    assert TEXT not in "".join(traceback.format_exception(failed.value))


def test_copies_are_equal_and_have_the_same_hash() -> None:
    assert copy.deepcopy(Holder(SECRET)) == copy.copy(Holder(SECRET)) == Holder(Secret(TEXT))
    assert hash(SECRET) == hash(Secret(TEXT))
    assert Secret("ä\udc80") != SECRET
    assert SECRET != TEXT
    assert not Secret("")
    assert not hasattr(SECRET, "__dict__")


def test_a_secret_that_is_not_text_is_refused_without_its_value() -> None:
    with pytest.raises(UsageError, match="a Secret contains text, not int") as refused:
        Secret(55512345678)  # type: ignore[arg-type]
    assert "555" not in str(refused.value)


class Nested(msgspec.Struct):
    one: Secret
    others: dict[str, list[Secret]]
    holder: Holder
    nothing: Secret | None = None


@pytest.mark.parametrize("text", ["päss'w\"ord\n", "a+b/c=&d", "....", "\\d+ ("])
def test_texts_of_secrets_are_replaced_in_every_usual_notation(text: str) -> None:
    secret = Secret(text)
    for values in (
        Nested(secret, {}, Holder(Secret("x"))),
        Nested(Secret("x"), {"a": [secret]}, Holder(Secret("x"))),
        Nested(Secret("x"), {}, Holder(secret)),
    ):
        hide = Hiding(values)
        for written in (text, repr(text)[1:-1], json.dumps(text)[1:-1], quote(text, safe="")):
            assert hide(f"a{written}b") == "a***b"
    assert Hiding(None)(text) == text


def test_the_longest_secret_is_replaced_and_short_texts_are_not() -> None:
    hide = Hiding(Nested(Secret("abcd"), {"a": [Secret("abcdef"), Secret("x")]}, Holder(SECRET)))
    assert hide("abcdefg abcd x") == "***g *** x"


def test_the_text_and_the_hint_of_an_error_show_no_secret() -> None:
    with pytest.raises(UsageError) as raised, Hiding(Holder(SECRET)).in_errors():
        raise UsageError(f"cannot use {TEXT}", hint=f"do not use {TEXT}")
    assert (str(raised.value), raised.value.hint) == ("cannot use ***", "do not use ***")
    assert TEXT not in "".join(traceback.format_exception(raised.value))
