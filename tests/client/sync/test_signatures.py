"""Both clients have methods with the same names and parameters."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, Iterable
from typing import Any, Final

import pytest

import streamkit.client as asynchronous
from streamkit import sync

# Names that only one side has, with the reason. No name that an application needs may be here.
ONLY_HERE: Final = {
    ("Client", "close"),  # for clients that are used without `with`
}
ONLY_THERE: Final = {
    ("Client", "cluster"),  # for code that extends the client and runs on the loop
    ("Producer", "checkpoint"),  # for the engine, which has a loop
    # For the client itself, which closes its producers, and for the sync client.
    ("Producer", "shut"),
    ("Producer", "close_with"),
    ("Producer", "check_sizes"),
    ("Producer", "send_columns"),
}


def pairs() -> dict[str, tuple[Any, Any]]:
    here, there = sync.Client.connect("127.0.0.1:1"), asynchronous.Client.connect("127.0.0.1:1")
    return {
        "Client": (here, there),
        "Producer": (here.producer("t"), there.producer("t")),
        "Consumer": (here.consumer("t"), there.consumer("t")),
        "Admin": (here.admin, there.admin),
    }


PAIRS: Final = pairs()


def public(thing: object) -> set[str]:
    return {name for name in dir(thing) if not name.startswith("_")}


@pytest.mark.parametrize("kind", PAIRS)
def test_both_clients_have_the_same_names(kind: str) -> None:
    here, there = PAIRS[kind]
    only_here = {name for where, name in ONLY_HERE if where == kind}
    only_there = {name for where, name in ONLY_THERE if where == kind}
    assert public(here) - public(there) == only_here
    assert public(there) - public(here) == only_there


@pytest.mark.parametrize("kind", PAIRS)
def test_methods_have_the_same_parameters_in_both_clients(kind: str) -> None:
    here, there = PAIRS[kind]
    for name in sorted(public(here) & public(there)):
        ours, theirs = getattr(here, name), getattr(there, name)
        assert callable(ours) == callable(theirs), name
        if callable(ours):
            assert parameters(ours) == parameters(theirs), name


def parameters(method: Any) -> list[tuple[str, object, object, str]]:
    """Return name, kind, default and type of each parameter."""
    return [
        (each.name, each.kind, each.default, str(each.annotation))
        for each in inspect.signature(method).parameters.values()
    ]


def test_both_consumers_can_be_iterated() -> None:
    here, there = PAIRS["Consumer"]
    assert isinstance(here.chunks(), Iterable)
    assert isinstance(there.chunks(), AsyncIterable)
    assert isinstance(iter(here), Iterable)
    assert isinstance(aiter(there), AsyncIterable)


def test_every_public_method_has_a_docstring() -> None:
    for kind, (here, _) in PAIRS.items():
        for name in public(here):
            assert (getattr(type(here), name, None) or getattr(here, name)).__doc__, (kind, name)


def test_an_option_that_the_other_client_does_not_have_is_refused() -> None:
    client = sync.Client.connect("127.0.0.1:1")
    options: dict[str, Any] = {"lingr": 1}
    with pytest.raises(TypeError, match="lingr"):
        client.producer("t", **options)
