"""The error for a library that is not installed."""

from __future__ import annotations

from streamkit.errors import UsageError


def missing(library: str, extra: str, error: ImportError) -> UsageError:
    """Return the error for a library that cannot be imported, with the extra that installs it."""
    return UsageError(
        f"a frame needs the library {library}, which cannot be imported: {error}",
        hint=f"pip install 'fluvio-streamkit[{extra}]'",
    )
