"""``python -m cellfeed``: the command ``cellfeed``."""

from ._cli import main

main()
