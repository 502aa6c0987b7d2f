"""`python -m streamkit` is the command `streamkit`."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    # Python puts the current folder first in the module path. Move it to the end, so that a user's
    # file such as copy.py or json.py does not replace a module of the standard library.
    if not sys.flags.safe_path:
        sys.path.append(sys.path.pop(0))
    from streamkit.cli.main import main

    main()
