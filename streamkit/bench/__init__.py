"""Measures streamkit against baselines that do the same work in the same run.

`catalog.BENCHMARKS` lists the modules that are benchmarks; the others are shared. A benchmark
checks its output before it reports a time.
"""
