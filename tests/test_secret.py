"""A secret is shown by nothing except `reveal`."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import traceback

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamkit import App, Secret
from streamkit.errors import StageError, TopologyError, UsageError
from streamkit.serde.values import encode_value

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
