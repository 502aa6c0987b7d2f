"""`python -m streamkit` is the command `streamkit`."""

from __future__ import annotations

from streamkit.cli.main import main

if __name__ == "__main__":
    main()
