"""Recognises frames by the names of their classes, so that no library is imported for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from streamkit.record import Kind


@dataclass(frozen=True, slots=True)
class FrameKind:
    """A class of frames. ``extra`` is the extra of this package that installs its library."""

    name: str
    extra: str


ARROW_BATCH: Final = FrameKind("pyarrow.RecordBatch", "arrow")
ARROW_TABLE: Final = FrameKind("pyarrow.Table", "arrow")
POLARS: Final = FrameKind("polars.DataFrame", "polars")
PANDAS: Final = FrameKind("pandas.DataFrame", "pandas")

_FRAMES: Final = {each.name: each for each in (ARROW_BATCH, ARROW_TABLE, POLARS, PANDAS)}
_SERIES: Final = frozenset(
    {
        *("pyarrow.Array", "pyarrow.ChunkedArray", "polars.Series", "pandas.Series"),
        *("pandas.Index", "pandas.ExtensionArray", "numpy.ndarray"),
    }
)
LAZY: Final = "polars.LazyFrame"
# What was found for a class; there are few classes of results in a program.
_known: dict[type, str] = {}


def frame_kind(annotation: Kind) -> FrameKind | None:
    """Return which frame an annotation is; None if it is another type."""
    return _FRAMES.get(_name_of(annotation)) if isinstance(annotation, type) else None


def frame_of(value: object) -> FrameKind | None:
    """Return which frame a value is; None if it is something else."""
    return _FRAMES.get(_found(type(value)))


def is_series(kind: object) -> bool:
    """Return whether a class has the values of one column, such as a Series or an array."""
    return isinstance(kind, type) and _found(kind) in _SERIES


def is_lazy(value: object) -> bool:
    """Return whether a value is a query of polars that was not run."""
    return _found(type(value)) == LAZY


def _found(kind: type) -> str:
    """Return the name of the frame or series that a class is or derives from, or ""."""
    found = _known.get(kind)
    if found is None:
        names = (_name_of(each) for each in kind.__mro__)
        known = {*_FRAMES, *_SERIES, LAZY}
        found = _known[kind] = next((each for each in names if each in known), "")
    return found


def _name_of(kind: type) -> str:
    """Return the name by which a program imports a class: ``polars.DataFrame``."""
    module = str(getattr(kind, "__module__", ""))
    return f"{module.partition('.')[0]}.{kind.__qualname__}"
