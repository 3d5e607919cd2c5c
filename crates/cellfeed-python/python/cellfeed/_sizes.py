"""Bytes and counts: as people write them, and as they read them."""

from __future__ import annotations

import re

_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4}
_UNITS.update({"ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30, "ti": 1 << 40})


def parse_bytes(size: int | str, name: str) -> int:
    """Bytes of a number or of a text such as ``"2GiB"``."""
    if isinstance(size, bool) or not isinstance(size, (int, str)):
        raise TypeError(f"{name} must be a number of bytes or a text such as '2GiB', not {size!r}")
    if isinstance(size, str):
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?\s*", size.lower())
        if found is None or found[2] not in _UNITS:
            raise ValueError(f"{name} is {size!r}; write bytes, or a text such as '512MiB' or '2GiB'")
        size = int(float(found[1]) * _UNITS[found[2]])
    if size < 1:
        raise ValueError(f"{name} is {size}; it must be more than 0")
    return min(size, (1 << 63) - 1)


def show_bytes(size: int) -> str:
    """Bytes for people."""
    value, unit = float(size), "bytes"
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"


def show_count(n: int) -> str:
    """A count for people."""
    return f"{n:,}"
