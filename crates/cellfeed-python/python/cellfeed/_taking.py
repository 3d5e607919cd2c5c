"""Rows of whatever a user has: how many there are, and how some of them are taken.

``collection[rows]`` means rows in NumPy, but columns or labels in pandas, nothing in a list, and in
h5py it wants ascending rows without repeats.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from . import _store_rows

Key = Any


def count(collection: Any) -> int:
    """Return the number of rows.

    Sparse matrices refuse ``len``; their shape says it.
    """
    try:
        return len(collection)
    except TypeError:
        shape = getattr(collection, "shape", None)
        if not isinstance(shape, tuple) or not shape:
            raise
        return int(shape[0])


def has_count(collection: Any) -> bool:
    """Return whether `count` would answer."""
    try:
        count(collection)
    except (TypeError, AttributeError, NotImplementedError):
        return False
    return True


def take(collection: Any, key: Key) -> Any:
    """Return the rows that `key` chooses: a slice, or a list or array of numbers or truth values."""
    if hasattr(collection, "iloc"):
        return collection.iloc[key]
    if isinstance(collection, (list, tuple)):
        return collection[key] if isinstance(key, slice) else _of_list(collection, key)
    if isinstance(collection, Mapping):
        return {name: take(column, key) for name, column in collection.items()}
    if _store_rows.is_store(collection):
        return _store_rows.take(collection, key)
    if _is_h5py_dataset(collection) and not isinstance(key, slice):
        return _of_h5py(collection, key)
    return collection[key]


def _numbers(key: Key, length: int) -> np.ndarray[Any, np.dtype[Any]]:
    numbers = np.asarray(key)
    if numbers.dtype == bool:
        if len(numbers) != length:
            raise IndexError(f"a mask of {len(numbers)} for {length} rows")
        return np.flatnonzero(numbers)
    return numbers if numbers.size else numbers.astype(np.int64)


def _of_list(collection: list[Any] | tuple[Any, ...], key: Key) -> list[Any]:
    return [collection[i] for i in _numbers(key, len(collection)).tolist()]


def _is_h5py_dataset(collection: Any) -> bool:
    # Whoever has such an object has imported h5py.
    h5py = sys.modules.get("h5py")
    return h5py is not None and isinstance(collection, h5py.Dataset)


def _of_h5py(collection: Any, key: Key) -> Any:
    rows = _numbers(key, len(collection))
    if rows.size < 2 or bool(np.all(rows[1:] > rows[:-1])):
        return collection[rows]
    # Weighted sampling draws rows again: each is read once.
    ascending, places = np.unique(rows, return_inverse=True)
    return collection[ascending][places]
