"""Rows as columns: frames of pyarrow, polars and pandas for functions that get batches.

The libraries are imported only when a function with a frame is decorated or called.
"""
