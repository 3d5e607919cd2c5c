"""The obs columns of a store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from ._optional import need
from ._options import names_of

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike

    from ._store import Store


class Obs:
    """The obs columns of a store, which are read when they are asked for: `Store.obs`.

    ``store.obs["plate"]`` is a column and ``store.obs[["plate", "donor"]]`` a data frame of two, as in
    AnnData; ``store.obs()`` is the data frame of all, ``store.obs(start=0, stop=10)`` of some cells.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def __call__(
        self, columns: str | Iterable[str] | None = None, *, start: int = 0, stop: int | None = None
    ) -> pd.DataFrame:
        """Read columns as a pandas data frame.

        Parameters
        ----------
        columns
            Which columns; all that can be read by default.
        start, stop
            Which cells, as in a slice; all by default.

        Returns
        -------
        pandas.DataFrame
            Categorical columns are categorical. The index has the names of the cells if ``columns``
            was not given, else row numbers, since reading the names may take as long as the rest.

        Raises
        ------
        NotFoundError
            If there is no such column.
        """
        pandas = need("pandas", "Store.obs")
        names = self.columns if columns is None else names_of(columns, "columns")
        n_obs, native = self._store.n_obs, self._store._native
        start, stop, _ = slice(start, stop).indices(n_obs)
        stop = max(start, stop)
        index = native.obs_index if columns is None else None
        wanted = [*names, *([index] if index is not None else [])]
        arrays = native.read_obs(wanted, start, stop)
        known = {name for name, _, _, _ in native.obs_columns()}
        frame = {
            name: series(native.obs_categories(name) if name in known else None, *arrays[i])
            for i, name in enumerate(names)
        }
        rows = pandas.RangeIndex(start, stop) if index is None else pandas.Index(arrays[-1][0], name=None)
        out: pd.DataFrame = pandas.DataFrame(frame, index=rows, columns=names)
        return out

    @overload
    def __getitem__(self, columns: str) -> pd.Series[Any]: ...
    @overload
    def __getitem__(self, columns: list[str]) -> pd.DataFrame: ...
    def __getitem__(self, columns: str | list[str]) -> Any:
        if not isinstance(columns, (str, list)):
            raise TypeError(
                "obs is indexed by the name of a column or a list of names; "
                "obs(start=0, stop=10) reads some cells"
            )
        frame = self(columns)
        return frame[columns] if isinstance(columns, str) else frame

    @property
    def columns(self) -> list[str]:
        """The names of the columns that can be read."""
        return self._store.obs_columns

    @property
    def shape(self) -> tuple[int, int]:
        """Cells and columns."""
        return self._store.n_obs, len(self.columns)

    def __contains__(self, name: object) -> bool:
        return name in self.columns

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        """Cells, as of a data frame."""
        return self._store.n_obs

    def __getattr__(self, name: str) -> Any:
        message = f"obs has no attribute {name!r}; obs() is a data frame, which is read then"
        if not name.startswith("_") and name in self.columns:
            message = f"obs has no attribute {name!r}; the column is obs[{name!r}]"
        raise AttributeError(message)

    def __repr__(self) -> str:
        n, m = self.shape
        names = ", ".join(self.columns[:20]) + (f" and {m - 20} more" if m > 20 else "")
        return f"<obs: {n} cells, {m} columns: {names}; obs() reads them as a data frame>"


def series(categories: tuple[list[str], bool] | None, values: Any, mask: ArrayLike | None) -> Any:
    """A column for a pandas data frame."""
    pandas = need("pandas", "a data frame")
    if categories is not None:
        names, ordered = categories
        return pandas.Categorical.from_codes(values, categories=names, ordered=ordered)
    if mask is None:
        return values
    kinds = {"b": pandas.arrays.BooleanArray, "i": pandas.arrays.IntegerArray, "u": pandas.arrays.IntegerArray}
    return kinds[values.dtype.kind](values, np.asarray(mask))
