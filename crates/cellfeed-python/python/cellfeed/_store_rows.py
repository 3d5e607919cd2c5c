"""Stores of Cellfeed as collections: rows are read natively, and look like those of an AnnData."""

from __future__ import annotations

import sys
import weakref
from typing import Any

import numpy as np

# Columns of obs that have been asked for, of each store, whole: codes take a byte or two a cell.
_columns: weakref.WeakKeyDictionary[Any, dict[str, Any]] = weakref.WeakKeyDictionary()


def is_store(collection: Any) -> bool:
    """Return whether this is what `cellfeed.open` gives."""
    # Whoever has a store has imported its module.
    module = sys.modules.get("cellfeed._store")
    return module is not None and isinstance(collection, module.Store)


class CellRows:
    """Rows of a store, in memory.

    Attributes
    ----------
    X : scipy.sparse.csr_matrix
        Their values.
    obs : ObsRows
        Their columns of obs, by name; read when they are asked for.
    rows : numpy.ndarray of int64
        Their numbers in the store.
    """

    def __init__(self, store: Any, rows: Any, matrix: Any) -> None:
        self._store = store
        self.rows = rows
        self.X = matrix

    @property
    def obs(self) -> ObsRows:
        """Columns of obs, by name."""
        return ObsRows(self._store, self.rows)

    @property
    def shape(self) -> tuple[int, int]:
        """Cells and genes."""
        rows, genes = self.X.shape
        return int(rows), int(genes)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, positions: Any) -> CellRows:
        return CellRows(self._store, self.rows[positions], self.X[positions])

    def __repr__(self) -> str:
        return f"<{self.shape[0]} cells x {self.shape[1]} genes of {self._store!r}>"


class ObsRows:
    """Columns of obs for some rows of a store."""

    def __init__(self, store: Any, rows: Any) -> None:
        self._store = store
        self._rows = rows

    def __getitem__(self, column: str) -> Any:
        """Return a column as a pandas series, with all categories if it is categorical."""
        known = _columns.setdefault(self._store, {})
        if column not in known:
            known[column] = self._store.obs([column])[column]
        return known[column].iloc[self._rows]


def take(store: Any, key: Any) -> CellRows:
    """Read rows of a store."""
    rows = np.atleast_1d(np.arange(len(store))[key] if isinstance(key, slice) else np.asarray(key))
    if rows.dtype == bool:
        rows = np.flatnonzero(rows)
    rows = rows.astype(np.int64)
    return CellRows(store, rows, store.X[rows])
