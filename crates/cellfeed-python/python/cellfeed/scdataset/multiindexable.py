"""Several collections of the same rows as one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .. import _taking as _rows

__all__ = ["MultiIndexable"]


class MultiIndexable:
    """Modalities of the same cells, indexed together.

    An integer gives a modality by its place and a string by its name; anything else chooses rows of
    all modalities, as a new `MultiIndexable`.

    Parameters
    ----------
    *indexables : object
        Modalities by place: arrays, sparse matrices, pandas frames, lists. Or one dict of
        modalities by name.
    names : sequence of str, optional
        Names of modalities given by place. Beside modalities given by keyword this is one too,
        called ``names``.
    unstructured : dict, optional
        What is not by row, such as the names of genes; passed on as it is.
    **named_indexables : object
        Modalities by name.

    Raises
    ------
    TypeError
        If there is no modality, one has no length, or some are given by place and some by name.
    ValueError
        If lengths differ, names are not as many as modalities, or a name comes twice.

    Examples
    --------
    >>> import numpy as np
    >>> from cellfeed.scdataset import MultiIndexable
    >>> both = MultiIndexable(rna=np.zeros((5, 3)), label=np.arange(5))
    >>> both[[0, 4]]["label"]
    array([0, 4])
    """

    def __init__(
        self,
        *indexables: Any,
        names: Sequence[str] | None = None,
        unstructured: dict[str, Any] | None = None,
        **named_indexables: Any,
    ) -> None:
        if unstructured is not None and not isinstance(unstructured, dict):
            raise TypeError(f"unstructured must be a dictionary, got {type(unstructured).__name__}")
        if indexables and named_indexables:
            raise TypeError("Cannot provide both positional and named indexables")
        if not indexables:
            # The one name that the signature takes for itself.
            if names is not None:
                named_indexables["names"] = names
            if not named_indexables:
                raise TypeError("Must provide at least one indexable object")
            modalities = list(named_indexables.values())
            names = list(named_indexables)
        elif len(indexables) == 1 and isinstance(indexables[0], dict):
            if not indexables[0]:
                raise ValueError("No indexables provided")
            modalities = list(indexables[0].values())
            names = list(indexables[0]) if names is None else list(names)
        else:
            modalities = list(indexables)
            names = None if names is None else list(names)
        self._check(modalities, names)
        self._indexables: list[Any] = modalities
        self._names: list[str] | None = names
        self._unstructured: dict[str, Any] = {} if unstructured is None else dict(unstructured)

    @staticmethod
    def _check(modalities: list[Any], names: list[str] | None) -> None:
        if names is not None:
            if len(names) != len(modalities):
                raise ValueError(
                    f"Length of names ({len(names)}) must match number of indexables "
                    f"({len(modalities)})"
                )
            twice = sorted({str(name) for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"names must differ, but these come twice: {', '.join(twice)}")
        first = -1
        for place, modality in enumerate(modalities):
            try:
                length = _rows.count(modality)
            except TypeError as error:
                raise TypeError(
                    "All indexables must support len() or have a shape, but that at position "
                    f"{place} is a {type(modality).__name__}"
                ) from error
            first = length if place == 0 else first
            if length != first:
                raise ValueError(
                    f"All indexables must have the same length: the first has {first} rows, but "
                    f"that at position {place} has {length}"
                )

    @property
    def names(self) -> list[str] | None:
        """Names of the modalities, None if they have none."""
        return None if self._names is None else list(self._names)

    @property
    def count(self) -> int:
        """The number of modalities."""
        return len(self._indexables)

    @property
    def unstructured(self) -> dict[str, Any]:
        """What is not by row."""
        return self._unstructured

    @property
    def unstructured_keys(self) -> list[str]:
        """Keys of what is not by row."""
        return list(self._unstructured)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return self._by_name(key)
        if isinstance(key, (int, np.integer)):
            if not -self.count <= key < self.count:
                raise IndexError(f"Index {key} out of range for {self.count} indexables")
            return self._indexables[int(key)]
        return self._subset(key)

    def _by_name(self, name: str) -> Any:
        if self._names is None:
            raise KeyError(f"No named indexables available. Available indices: 0-{self.count - 1}")
        if name not in self._names:
            raise KeyError(f"Key {name!r} not found. Available keys: {self._names}")
        return self._indexables[self._names.index(name)]

    def _subset(self, key: Any) -> MultiIndexable:
        try:
            parts = [_rows.take(modality, key) for modality in self._indexables]
        except (IndexError, ValueError) as error:
            raise IndexError(f"Invalid indices for sample selection: {error}") from error
        self._check(parts, None)
        subset = MultiIndexable.__new__(MultiIndexable)
        subset._indexables = parts
        subset._names = self._names
        subset._unstructured = dict(self._unstructured)
        return subset

    def __len__(self) -> int:
        """Return the number of rows."""
        return _rows.count(self._indexables[0])

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the modalities."""
        return iter(self._indexables)

    def keys(self) -> list[Any]:
        """Return the names of the modalities, or their places if they have none."""
        return list(range(self.count)) if self._names is None else list(self._names)

    def values(self) -> list[Any]:
        """Return the modalities."""
        return list(self._indexables)

    def items(self) -> Iterator[tuple[Any, Any]]:
        """Iterate over names, or places, and modalities."""
        return iter(list(zip(self.keys(), self._indexables, strict=True)))

    def __repr__(self) -> str:
        what = f"count={self.count}" if self._names is None else f"names={self._names}"
        more = f", unstructured_keys={self.unstructured_keys}" if self._unstructured else ""
        return f"MultiIndexable({what}, samples={len(self)}{more})"
