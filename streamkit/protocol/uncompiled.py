"""Replaces the module `cython` where it is not installed."""

compiled = False
