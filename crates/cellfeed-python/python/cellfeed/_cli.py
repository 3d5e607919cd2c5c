"""The command ``cellfeed``."""

from __future__ import annotations

import sys

from . import _native


def main() -> None:
    """Run it with the arguments of the process."""
    sys.exit(_native.command(["cellfeed", *sys.argv[1:]]))


if __name__ == "__main__":
    main()
