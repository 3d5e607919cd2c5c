"""How stores behind URLs are reached, and where what is read of them is kept."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ._options import number, whole
from ._sizes import parse_bytes


def remote_options(
    storage_options: Mapping[str, Any] | None,
    connections: int | None,
    gap: int | str | None,
    attempts: int | None,
    timeout: float | None,
    cache_dir: str | os.PathLike[str] | None,
    cache_size: int | str | None,
) -> dict[str, Any]:
    """What the native part takes."""
    seconds = number("timeout", timeout)
    if seconds is not None and not 0 < seconds < 1e9:
        raise ValueError(f"timeout is {seconds}; it must be a positive number of seconds")
    folder = os.environ.get("CELLFEED_CACHE_DIR") if cache_dir is None else cache_dir
    size = cache_size
    if not folder:
        if size is not None:
            raise ValueError("cache_size without a cache; name its folder with cache_dir")
    elif size is None:
        size = os.environ.get("CELLFEED_CACHE_SIZE") or None
    if folder and not isinstance(os.fspath(folder), str):
        raise TypeError("cache_dir must be str or a path, not bytes")
    return {
        "settings": _settings(storage_options),
        "connections": None if connections is None else whole("connections", connections, 1),
        "gap": None if gap is None else 0 if gap in (0, "0") else parse_bytes(gap, "gap"),
        "attempts": None if attempts is None else min(whole("attempts", attempts, 1), (1 << 32) - 1),
        "timeout": seconds,
        # A worker may be in another folder.
        "cache_dir": os.path.abspath(folder) if folder else None,
        "cache_size": None if size is None else parse_bytes(size, "cache_size"),
    }


def _settings(options: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """Names and values of settings; what is wrong is said without the values, which may be secrets."""
    if options is None:
        return []
    if not isinstance(options, Mapping):
        raise TypeError(
            f"storage_options must be a dictionary of settings, not {type(options).__name__}"
        )
    settings = []
    for name, value in options.items():
        if not isinstance(name, str):
            raise TypeError(f"names in storage_options must be str, not {type(name).__name__}")
        if isinstance(value, bool):
            value = "true" if value else "false"
        elif not isinstance(value, (str, int)):
            raise TypeError(
                f"storage_options[{name!r}] must be str, int or bool, not {type(value).__name__}"
            )
        settings.append((name, str(value)))
    return settings
