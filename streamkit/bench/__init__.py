"""Measures streamkit against baselines that do the same work in the same run.

Each module but the shared ones is a benchmark of `catalog.BENCHMARKS`. It checks what came out
before it reports a time.
"""
