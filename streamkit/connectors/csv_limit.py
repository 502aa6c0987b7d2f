"""The limit of the standard library for a field of CSV."""

from __future__ import annotations

import csv
from typing import Final

_FIELD_CHARACTERS_MAX: Final = 1 << 24


def allow_long_fields() -> None:
    """Raise the limit to 16 million characters.

    There is one limit in a process: 131,072 characters, unless somebody has changed it. Documents
    in a field are often longer.
    """
    csv.field_size_limit(max(_FIELD_CHARACTERS_MAX, csv.field_size_limit()))
