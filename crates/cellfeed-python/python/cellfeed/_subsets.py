"""Which cells to use."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import _native
from ._store import Store, _rows


def native_subset(subset: Any, n_obs: int, store: Store | None) -> _native.Subset:
    """The native subset of conditions on obs columns of a store, a mask, a slice or row numbers."""
    if subset is None:
        return _native.Subset.all(n_obs)
    texts = isinstance(subset, str) or (
        isinstance(subset, (list, tuple)) and subset and all(isinstance(c, str) for c in subset)
    )
    if texts:
        if store is None:
            raise TypeError("a collection has no obs columns; give subset as a mask or as row numbers")
        return store._native.subset([subset] if isinstance(subset, str) else list(subset))
    if isinstance(subset, (list, tuple)) and not hasattr(subset, "dtype"):
        subset = np.asarray(subset)
    try:
        rows = _rows(subset, n_obs)
    except (IndexError, TypeError) as error:
        raise type(error)(f"subset: {error}") from None
    return _native.Subset.of_rows(n_obs, rows.astype(np.uint64))
