"""`codec`: batches of 16 KiB through the compiled codec and through its interpreted source."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from streamkit.bench.result import Comparison, Result, Scale, Timing, WrongOutput
from streamkit.bench.timing import best_of, measured
from streamkit.bench.workload import keys_of, values_of
from streamkit.limits import BATCH_BYTES_DEFAULT, RECORDS_PER_BATCH_MAX
from streamkit.protocol import codec

_FIRST_MS = 1_700_000_000_000
# The interpreted codec is slow, and its time per record does not depend on the count.
_ROWS_MAX = 50_000
_COMPILED_REPEATS = 10


def run(scale: Scale) -> Result:
    rows = min(scale.records, _ROWS_MAX)
    pure = load_interpreted()
    columns = _columns(rows)
    batches = encode(codec, columns)
    _check(pure, columns, batches)

    def timed(module: Any, work: Any, argument: Any, repeats: int) -> Timing:
        with measured() as watch:
            for _ in range(repeats):
                work(module, argument)
        return watch.timing(rows * repeats)

    repeats = _COMPILED_REPEATS
    best = best_of(
        scale.rounds,
        {
            "decode": lambda: timed(codec, decode, batches, repeats),
            "decode, pure": lambda: timed(pure, decode, batches, 1),
            "encode": lambda: timed(codec, encode, columns, repeats),
            "encode, pure": lambda: timed(pure, encode, columns, 1),
        },
    )
    return _result(rows, best)


def _result(rows: int, best: dict[str, Timing]) -> Result:
    against = "the same source, interpreted"
    both = Comparison(
        "decode and encode",
        _sum(best["decode"], best["encode"]),
        _sum(best["decode, pure"], best["encode, pure"]),
        against,
        15.0,
    )
    single = [
        Comparison(what, best[what], best[f"{what}, pure"], against)
        for what in ("decode", "encode")
    ]
    notes = [
        f"{what} takes {best[what].per_record_s * 1e9:.0f} ns per record"
        for what in ("decode", "encode")
    ]
    if not codec.COMPILED:
        notes.append("this installation has no compiled codec: both sides are interpreted")
    work = f"{rows:,} records of 100 B in batches of 16 KiB"
    return Result("codec", work, [both, *single], notes)


def load_interpreted() -> ModuleType:
    """Load the codec's source under another name, in addition to the compiled module."""
    source = Path(codec.__file__).parent / "codec.py"
    spec = spec_from_file_location("streamkit_bench_interpreted_codec", source)
    assert spec is not None, "a Python file has a spec"
    assert spec.loader is not None, "a Python file has a loader"
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    assert not module.COMPILED, "it was loaded from source"
    return module


def encode(module: Any, columns: tuple[Any, Any, Any]) -> list[bytes]:
    """Encode columns into the records of batches of the default size."""
    values, keys, stamps = columns
    batches = []
    start = 0
    while start < len(values):
        stop, size = module.fit_rows(
            values, keys, stamps, start, BATCH_BYTES_DEFAULT, RECORDS_PER_BATCH_MAX
        )
        batches.append(module.encode_records(values, keys, stamps, start, stop, size))
        start = stop
    return batches


def decode(module: Any, batches: list[bytes]) -> int:
    """Decode the records of every batch; return their number."""
    return sum(len(module.decode_records(batch, 0, len(batch), _FIRST_MS)[0]) for batch in batches)


def _columns(rows: int) -> tuple[list[bytes], list[bytes], list[int]]:
    return values_of(rows), keys_of(rows), [_FIRST_MS] * rows


def _check(pure: ModuleType, columns: tuple[Any, Any, Any], batches: list[bytes]) -> None:
    values, keys, stamps = columns
    decoded: tuple[list[Any], list[Any], list[Any]] = ([], [], [])
    for batch in batches:
        ours = codec.decode_records(batch, 0, len(batch), _FIRST_MS)
        if ours != pure.decode_records(batch, 0, len(batch), _FIRST_MS):
            raise WrongOutput("the two builds of the codec decode different records")
        decoded[0].extend(ours[0])
        decoded[1].extend(ours[1])
        decoded[2].extend(ours[2])
    if decoded != (values, keys, stamps):
        raise WrongOutput("the decoded records differ from the encoded ones")
    if encode(pure, columns) != batches:
        raise WrongOutput("the two builds of the codec encode different bytes")


def _sum(first: Timing, second: Timing) -> Timing:
    """Return the time that both operations take together."""
    seconds = (first.per_record_s + second.per_record_s) * first.records
    return Timing(seconds, first.records)
