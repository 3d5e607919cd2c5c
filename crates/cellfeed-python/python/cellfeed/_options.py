"""What options may be, and what is said of those that make no sense."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DTYPES = {
    "uint8": "u8",
    "uint16": "u16",
    "int32": "i32",
    "int64": "i64",
    "float16": "f16",
    "float32": "f32",
    "float64": "f64",
}


def whole(name: str, value: Any, least: int) -> int:
    """A whole number that is at least `least`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if not least <= value < 1 << 63:
        raise ValueError(f"{name} is {value}; it must be at least {least}, and below 2**63")
    return int(value)


def number(name: str, value: Any) -> float | None:
    """A number, or nothing."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise TypeError(f"{name} must be a number, not {value!r}")
    return float(value)


def threshold(binarize: Any) -> float | None:
    """A threshold of what may also be yes or no."""
    if isinstance(binarize, bool):
        return 0.0 if binarize else None
    return number("binarize", binarize)


def one_of(name: str, value: Any, there_are: tuple[str, ...]) -> None:
    """Refuses a word that is none of those that there are."""
    if value not in there_are:
        raise ValueError(f"{name} is {value!r}; there are {', '.join(there_are)}")


def checked(name: str, hook: Any) -> None:
    """Refuses a hook that cannot be called."""
    if hook is not None and not callable(hook):
        raise TypeError(f"{name} must be a function, not {type(hook).__name__}")


def names_of(columns: str | Iterable[str], what: str) -> list[str]:
    """Column names of what may be one."""
    names = [columns] if isinstance(columns, str) else list(columns)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"{what} must be names of columns, not {type(name).__name__}")
    return names


def has_nullable(values: Any, array: NDArray[Any], kinds: str) -> bool:
    """Whether an array of objects was made of numbers or truth values of pandas that may be missing."""
    return array.dtype == object and getattr(getattr(values, "dtype", None), "kind", "O") in kinds


def matrix_key(layer: str | None) -> str:
    """What the native part calls a layer."""
    if layer is None or layer == "X":
        return "X"
    if not isinstance(layer, str):
        raise TypeError(f"layer must be the name of a layer, not {type(layer).__name__}")
    return "raw/X" if layer in ("raw", "raw/X") else f"layers/{layer.removeprefix('layers/')}"


def value_type(dtype: Any) -> str:
    """What the native part calls a type; types of PyTorch are taken too."""
    name = str(dtype).removeprefix("torch.") if not isinstance(dtype, type) else None
    if name not in _DTYPES:
        try:
            name = np.dtype(dtype).name
        except TypeError:
            name = str(dtype)
    if name not in _DTYPES:
        raise ValueError(f"dtype is {name}; there are {', '.join(_DTYPES)}")
    return _DTYPES[name]
