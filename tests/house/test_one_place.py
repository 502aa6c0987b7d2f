"""Lists that the code has to contain twice are equal."""

from __future__ import annotations

from typing import get_args

from streamkit.protocol.compression import Codec
from streamkit.record import Compression


def test_names_of_compressions_are_those_of_the_codecs() -> None:
    assert get_args(Compression) == tuple(codec.name.lower() for codec in Codec)
