"""Reads the file that a variable such as ``STREAMKIT_SETTINGS_PASSWORD_FILE`` names."""

from __future__ import annotations

from pathlib import Path

from streamkit.errors import UsageError
from streamkit.limits import MIB


def read_secret_file(variable: str, path: str) -> str:
    """Return the text of a file without one newline at its end.

    Raises:
        UsageError: The file cannot be read, is empty, or is not UTF-8 text of at most 1 MiB. The
            message never contains a part of the file.
    """
    shown = _shown_path(path)
    try:
        with Path(path).open("rb") as file:
            data = file.read(MIB + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"{variable}: cannot read {shown}: {reason}",
            hint="set it to the path of a file that this process may read",
        ) from None
    if len(data) > MIB:
        raise UsageError(f"{variable}: {shown} is larger than 1 MiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = None
    if text is None:  # raised here, because the error above contains the data
        raise UsageError(
            f"{variable}: {shown} is not UTF-8 text", hint="store binary data as base64"
        )
    text = text.removesuffix("\r\n" if text.endswith("\r\n") else "\n")
    if not text:
        raise UsageError(f"{variable}: {shown} is empty")
    return text


def _shown_path(path: str) -> str:
    """Return a path for an error text; what is not clearly a path may be the secret itself."""
    return f"the file {path!r}" if path.startswith(("/", "./", "../", "~")) else "the file"
