"""Columns of Arrow as frames of polars and pandas, and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from streamkit.errors import DataError
from streamkit.frames.column import arrow_types, pyarrow
from streamkit.frames.kinds import ARROW_BATCH, ARROW_TABLE, PANDAS, POLARS, FrameKind
from streamkit.frames.libraries import missing
from streamkit.record import Value

if TYPE_CHECKING:
    import pandas
    import polars


def frame_from(batch: pyarrow.RecordBatch, kind: FrameKind) -> Value:
    """Return a batch as a frame.

    Raises:
        UsageError: The library of the frame is not installed.
    """
    if kind == ARROW_BATCH:
        return batch
    table = pyarrow.Table.from_batches([batch])
    if kind == ARROW_TABLE:
        return table
    try:
        return _as_polars(table) if kind == POLARS else _as_pandas(batch)
    except ImportError as error:
        raise missing(kind.name.partition(".")[0], kind.extra, error) from None


def table_from(frame: Value, kind: FrameKind) -> pyarrow.Table:
    """Return a frame as a table.

    A named index of pandas becomes columns, an index without a name does not.

    Raises:
        DataError: The frame has values that Arrow does not have.
    """
    if kind == POLARS:
        return _of_polars(frame)
    if kind == PANDAS:
        return _of_pandas(frame)
    return pyarrow.Table.from_batches([frame]) if kind == ARROW_BATCH else frame


def array_from(series: Value) -> pyarrow.Array:
    """Return a series, or an array of numpy or Arrow, as an array of Arrow.

    Raises:
        DataError: It has values that Arrow does not have.
    """
    try:
        if isinstance(series, pyarrow.Array | pyarrow.ChunkedArray):
            return series
        if type(series).__module__.startswith("polars"):
            return series.to_arrow()
        return pyarrow.array(series, from_pandas=True)
    except Exception as error:
        raise DataError(f"a {type(series).__name__} cannot be read: {error}") from None


# --- polars --------------------------------------------------------------------------


def _as_polars(table: pyarrow.Table) -> polars.DataFrame:
    import polars

    frame = polars.from_arrow(table)
    assert isinstance(frame, polars.DataFrame), "a table is not a single column"
    if "" in table.column_names:  # polars gives it another name
        frame.columns = table.column_names
    return frame


def _of_polars(frame: polars.DataFrame) -> pyarrow.Table:
    import polars

    for name, kind in frame.schema.items():
        # polars would hand out the addresses of the objects.
        if kind == polars.Object:
            raise DataError(f"the column {name!r} of a frame has Python objects")
    try:
        return frame.to_arrow()
    except Exception as error:
        raise DataError(f"a frame of polars cannot be read: {error}") from None


# --- pandas --------------------------------------------------------------------------


def _as_pandas(batch: pyarrow.RecordBatch) -> pandas.DataFrame:
    import pandas

    series = {}
    for field, array in zip(batch.schema, batch.columns, strict=True):
        dtype = _dtype(field)
        series[field.name] = array.to_pandas(types_mapper=_always(dtype))
    return pandas.DataFrame(series, copy=True)  # the arrays of Arrow cannot be changed in place


def _always(dtype: Any) -> Callable[[pyarrow.DataType], Any] | None:
    return None if dtype is None else lambda _: dtype


def _dtype(field: pyarrow.Field) -> Any:
    """Return the dtype of a column; None for that which pandas itself would choose.

    It depends on the type, never on the values: an integer that may be None does not become a
    float in the batches that have one.
    """
    import pandas

    kind = field.type
    if arrow_types.is_floating(kind) or arrow_types.is_string(kind) or _has_own_missing(kind):
        return None
    if arrow_types.is_integer(kind):
        return pandas.Int64Dtype() if field.nullable else None
    if arrow_types.is_boolean(kind):
        return pandas.BooleanDtype() if field.nullable else None
    return pandas.ArrowDtype(kind)


def _has_own_missing(kind: pyarrow.DataType) -> bool:
    """Return whether pandas has a type of its own for values that may be missing (NaT)."""
    is_time = arrow_types.is_timestamp(kind) or arrow_types.is_duration(kind)
    return bool(is_time or arrow_types.is_dictionary(kind))


def _of_pandas(frame: pandas.DataFrame) -> pyarrow.Table:
    named = [level for level, name in enumerate(frame.index.names) if name is not None]
    try:
        if named:
            frame = frame.reset_index(level=named)
        names = list(frame.columns)
        for name in names:
            if not isinstance(name, str):
                raise DataError(f"a frame has a column {name!r}, but names of columns are text")
        return pyarrow.Table.from_pandas(frame, preserve_index=False)
    except DataError:
        raise
    except Exception as error:
        reason = " ".join(map(str, error.args)) or type(error).__name__
        raise DataError(f"a frame of pandas cannot be read: {reason}") from None


def nan_for_null(
    table: pyarrow.Table, frame: pandas.DataFrame, names: Sequence[str]
) -> pyarrow.Table:
    """Return a table with NaN again in some columns; pandas has made null of it.

    Args:
        table: The columns of the frame.
        frame: The frame; only columns that are floats of numpy had NaN.
        names: The columns whose values cannot be None.
    """
    import pandas

    for place, name in enumerate(table.schema.names):
        if name not in names or not table.column(place).null_count or name not in frame.columns:
            continue
        if not pandas.api.types.is_extension_array_dtype(frame[name].dtype):
            filled = table.column(place).cast(pyarrow.float64()).fill_null(float("nan"))
            table = table.set_column(place, name, filled)
    return table


def has_other_order(frame: pandas.DataFrame) -> bool:
    """Return whether the rows have other places than in the input, by their index."""
    import pandas

    index = frame.index
    if isinstance(index, pandas.RangeIndex) or index.nlevels > 1 or index.dtype.kind != "i":
        return False
    numbers: list[int] = index.tolist()
    return sorted(numbers) == list(range(len(numbers))) and numbers != sorted(numbers)
