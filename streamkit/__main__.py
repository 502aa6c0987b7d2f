"""`python -m streamkit` is the command `streamkit`."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    # Python has put the current folder first. As for the command `streamkit`, what lies there
    # must not stand for a module of Python's: a user's file may be called copy.py or json.py.
    if not sys.flags.safe_path:
        sys.path.append(sys.path.pop(0))
    from streamkit.cli.main import main

    main()
