"""Packages that are imported only where they are asked for."""

from __future__ import annotations

import importlib
from typing import Any


def need(package: str, what: str) -> Any:
    """Imports a package, or says what it is needed for and how to get it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        root = package.partition(".")[0]
        if error.name is not None and error.name.partition(".")[0] != root:
            raise
        raise ImportError(f"{what} needs {root}: pip install {root}") from error
