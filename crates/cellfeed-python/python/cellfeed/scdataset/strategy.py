"""Strategies: which rows an epoch has, and in which order they are read.

Every strategy draws from NumPy's default generator in the order in which scDataset 0.3.0 draws, so
that a seed gives the same rows.
"""

from __future__ import annotations

import operator
import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _taking as _rows
from ._order import Blocks, InTurn, LeftOut, Listed, Order, Within

__all__ = [
    "BlockShuffling",
    "BlockWeightedSampling",
    "ClassBalancedSampling",
    "SamplingStrategy",
    "Streaming",
]


class SamplingStrategy:
    """What all strategies share. Subclass it, and write `get_indices` and `get_len`.

    Parameters
    ----------
    indices : array_like of int or bool, optional
        Rows to choose from, all by default: row numbers, which are sorted, or a mask with a truth
        value for each row of the collection.

    Raises
    ------
    TypeError
        If indices are neither integers nor truth values.
    ValueError
        If they have more than one dimension, or one is negative.
    """

    # True: cells of a fetch are shuffled before it is cut into minibatches.
    _shuffle_before_yield: bool | None = None
    # Rows of the mask that was given, if it was a mask.
    _mask_length: int | None = None

    def __init__(self, indices: ArrayLike | None = None) -> None:
        self._indices: NDArray[np.int64] | None = self._validate_and_sort_indices(indices)

    def get_len(self, data_collection: Any) -> int:
        """Return how many samples an epoch over this collection has."""
        raise NotImplementedError("a strategy has to define get_len")

    def get_indices(
        self,
        data_collection: Any,
        seed: int | None = None,
        rng: np.random.Generator | None = None,
    ) -> NDArray[np.int64]:
        """Return the rows of an epoch, in the order in which they are read.

        Parameters
        ----------
        data_collection : object
            Asked for its length only.
        seed : int, optional
            Seed of a new generator.
        rng : numpy.random.Generator, optional
            A generator to draw from; `seed` is then ignored.

        Returns
        -------
        numpy.ndarray of int64
        """
        raise NotImplementedError("a strategy has to define get_indices")

    def _get_rng(
        self, seed: int | None = None, rng: np.random.Generator | None = None
    ) -> np.random.Generator:
        return np.random.default_rng(seed) if rng is None else rng

    def _validate_and_sort_indices(self, indices: ArrayLike | None) -> NDArray[np.int64] | None:
        if indices is None:
            return None
        given = np.asarray(indices)
        if given.ndim != 1:
            raise ValueError(f"indices are a list of rows, but have {given.ndim} dimensions")
        if given.dtype == bool:
            self._mask_length = len(given)
            return np.flatnonzero(given).astype(np.int64)
        if given.size == 0:
            return np.empty(0, dtype=np.int64)
        if not np.issubdtype(given.dtype, np.integer):
            raise TypeError(f"indices are row numbers or a mask of them, not {given.dtype}")
        rows = given.astype(np.int64)
        if rows.min() < 0:
            raise ValueError(
                f"indices are row numbers from 0 on, but one is {rows.min()}: rows are not "
                "counted from the end"
            )
        if np.any(rows[1:] < rows[:-1]):
            warnings.warn(
                "the indices were not sorted, and now are: neighbouring rows are read together",
                UserWarning,
                stacklevel=4,
            )
            rows.sort()
        return rows

    def _chosen(self, data_collection: Any) -> Order:
        """Return the rows to choose from, ascending."""
        if self._indices is None:
            return InTurn(_rows.count(data_collection))
        self._check_against(data_collection)
        return Listed(self._indices)

    def _count_chosen(self, data_collection: Any) -> int:
        if self._indices is None:
            return _rows.count(data_collection)
        self._check_against(data_collection)
        return len(self._indices)

    def _check_against(self, data_collection: Any) -> None:
        # A collection that only a fetch_callback understands need not have a length.
        if self._indices is None or not _rows.has_count(data_collection):
            return
        rows = _rows.count(data_collection)
        if self._mask_length is not None and self._mask_length != rows:
            raise ValueError(
                f"the mask of indices has {self._mask_length} values, "
                f"but the collection {rows} rows"
            )
        if len(self._indices) and self._indices[-1] >= rows:
            raise IndexError(
                f"indices go up to {self._indices[-1]}, but the collection has {rows} rows"
            )


class _Ordered(SamplingStrategy):
    """A strategy that gives an epoch's rows piece by piece."""

    def _order(
        self, data_collection: Any, seed: int | None, rng: np.random.Generator | None
    ) -> Order:
        raise NotImplementedError

    def get_indices(
        self,
        data_collection: Any,
        seed: int | None = None,
        rng: np.random.Generator | None = None,
    ) -> NDArray[np.int64]:
        return self._order(data_collection, seed, rng).all()

    get_indices.__doc__ = SamplingStrategy.get_indices.__doc__


def order_of(strategy: SamplingStrategy, data_collection: Any, seed: int) -> Order:
    """Return the order of an epoch.

    A user's own `get_indices` is asked, also where it overrides the one of a strategy from here.
    """
    for kind in type(strategy).__mro__:
        if "_order" in vars(kind) and isinstance(strategy, _Ordered):
            return strategy._order(data_collection, seed, None)
        if "get_indices" in vars(kind):
            break
    return Listed(strategy.get_indices(data_collection, seed=seed))


class Streaming(_Ordered):
    """Rows in the order of the file.

    Parameters
    ----------
    indices : array_like of int or bool, optional
        Rows to choose from; all by default.
    shuffle : bool, default False
        Shuffle the cells of each fetch before they are cut into minibatches.
    """

    def __init__(self, indices: ArrayLike | None = None, shuffle: bool = False) -> None:
        super().__init__(indices)
        self.shuffle = shuffle
        self._shuffle_before_yield = shuffle

    def get_len(self, data_collection: Any) -> int:
        """Return the number of rows to choose from."""
        return self._count_chosen(data_collection)

    def _order(
        self, data_collection: Any, seed: int | None, rng: np.random.Generator | None
    ) -> Order:
        return self._chosen(data_collection)


class BlockShuffling(_Ordered):
    """Blocks of neighbouring rows in random order, and cells of each fetch shuffled.

    Parameters
    ----------
    block_size : int, default 8
        Rows of a block.
    indices : array_like of int or bool, optional
        Rows to choose from; all by default. Blocks are neighbours among these.
    drop_last : bool, default False
        Leave out as many random rows as make the last block shorter. Otherwise the shorter block
        is put somewhere among the others.
    """

    _shuffle_before_yield = True

    def __init__(
        self, block_size: int = 8, indices: ArrayLike | None = None, drop_last: bool = False
    ) -> None:
        super().__init__(indices)
        self.block_size = _positive(block_size, "block_size")
        self.drop_last = drop_last

    def get_len(self, data_collection: Any) -> int:
        """Return the number of rows of an epoch."""
        n = self._count_chosen(data_collection)
        return n - n % self.block_size if self.drop_last else n

    def _order(
        self, data_collection: Any, seed: int | None, rng: np.random.Generator | None
    ) -> Order:
        rng = self._get_rng(seed, rng)
        rows = self._chosen(data_collection)
        left = len(rows) % self.block_size
        if self.drop_last and left:
            out = rng.choice(len(rows), size=left, replace=False)
            rows = Within(rows, LeftOut(len(rows), out))
        return Within(rows, Blocks(len(rows), self.block_size, rng))


class BlockWeightedSampling(_Ordered):
    """Rows drawn by weight, sorted, and then put into blocks as by `BlockShuffling`.

    Parameters
    ----------
    block_size : int, default 8
        Rows of a block.
    indices : array_like of int or bool, optional
        Rows to choose from; all by default.
    weights : array_like of float, optional
        A weight for each row of the collection, or for each of `indices` in the order in which
        they are given. Equal by default. They need not sum to one.
    total_size : int, optional
        Rows of an epoch; as many as there are to choose from by default.
    replace : bool, default True
        Draw with replacement. Without, rows are drawn in rounds: no row comes twice in a round.
    sampling_size : int, optional
        Rows of a round, if `replace` is False.

    Raises
    ------
    ValueError
        If weights are negative, not finite or all zero; if `replace` is False and there is no
        `sampling_size`.
    """

    _shuffle_before_yield = True

    def __init__(
        self,
        block_size: int = 8,
        indices: ArrayLike | None = None,
        weights: ArrayLike | None = None,
        total_size: int | None = None,
        replace: bool = True,
        sampling_size: int | None = None,
    ) -> None:
        super().__init__(indices)
        self.block_size = _positive(block_size, "block_size")
        self.weights: NDArray[Any] | None = None if weights is None else _normalised(weights)
        # Where weights were given beside indices that were then sorted.
        self._weight_order: NDArray[np.int64] | None = None
        if self._indices is not None and self._mask_length is None and self.weights is not None:
            given = np.asarray(indices)
            if len(self.weights) == len(given):
                self._weight_order = np.argsort(given, kind="stable").astype(np.int64)
        self.total_size: int | None = None if total_size is None else operator.index(total_size)
        if self.total_size is not None and self.total_size < 0:
            raise ValueError(f"total_size must not be negative, but is {total_size}")
        self.replace = replace
        if not replace:
            if sampling_size is None:
                raise ValueError(
                    "sampling_size must be provided when replace=False: the rows of a round, "
                    "among which none comes twice"
                )
            sampling_size = _positive(sampling_size, "sampling_size")
        elif sampling_size is not None:
            warnings.warn(
                "sampling_size is ignored when replace=True: there are no rounds",
                UserWarning,
                stacklevel=2,
            )
        self.sampling_size = sampling_size

    def get_len(self, data_collection: Any) -> int:
        """Return the number of rows of an epoch."""
        return self._size(self._count_chosen(data_collection))

    def _order(
        self, data_collection: Any, seed: int | None, rng: np.random.Generator | None
    ) -> Order:
        rows = self._chosen(data_collection)
        drawn = self._draw(
            len(rows), self._probabilities(data_collection), self._get_rng(seed, rng)
        )
        drawn.sort()
        # Blocks are drawn from the seed anew, or from the generator as it goes on.
        blocks = Blocks(len(drawn), self.block_size, self._get_rng(seed, rng))
        return Within(Within(rows, Listed(drawn)), blocks)

    def _draw(
        self, n: int, probabilities: NDArray[Any] | None, rng: np.random.Generator
    ) -> NDArray[np.int64]:
        size = self._size(n)
        if self.sampling_size is None or self.replace:
            return rng.choice(n, size=size, replace=True, p=probabilities)
        rounds: list[NDArray[np.int64]] = []
        while size > 0:
            drawn = rng.choice(
                n, size=min(self.sampling_size, size), replace=False, p=probabilities
            )
            rounds.append(drawn)
            size -= len(drawn)
        return np.concatenate(rounds) if rounds else np.empty(0, dtype=np.int64)

    def _size(self, n: int) -> int:
        return n if self.total_size is None else self.total_size

    def _probabilities(self, data_collection: Any) -> NDArray[Any] | None:
        weights = self.weights
        if weights is None:
            return None
        if self._indices is None:
            rows = _rows.count(data_collection)
            if len(weights) != rows:
                raise ValueError(
                    f"weights length ({len(weights)}) must match the collection's ({rows})"
                )
        else:
            n = _rows.count(data_collection) if _rows.has_count(data_collection) else None
            if len(weights) == len(self._indices):
                # Weights of all rows stay with the rows, whatever the order of indices.
                if self._weight_order is not None and len(weights) != n:
                    weights = weights[self._weight_order]
            elif n is None or len(weights) == n:
                weights = weights[self._indices]
            else:
                raise ValueError(
                    f"weights length ({len(weights)}) must match the collection's ({n}) or that "
                    f"of indices ({len(self._indices)})"
                )
        total = weights.sum()
        if not total > 0:
            raise ValueError("weights must sum to a positive value over the chosen rows")
        return np.asarray(weights / total)


class ClassBalancedSampling(BlockWeightedSampling):
    """Weighted sampling with the weight 1 over the number of cells of a cell's class.

    Parameters
    ----------
    labels : array_like
        The class of each row of the collection, which balances over all of it; or of each of
        `indices` in the order in which they are given, which balances over these.
    block_size, indices, total_size, replace, sampling_size
        As in `BlockWeightedSampling`.

    Raises
    ------
    ValueError
        If there are no labels, or fewer than indices.
    """

    def __init__(
        self,
        labels: ArrayLike,
        block_size: int = 8,
        indices: ArrayLike | None = None,
        total_size: int | None = None,
        replace: bool = True,
        sampling_size: int | None = None,
    ) -> None:
        self.labels: NDArray[Any] = np.asarray(labels)
        if self.labels.ndim == 0:
            raise TypeError(f"labels are a list of classes, not {labels!r}")
        if self.labels.ndim > 1:
            raise ValueError(
                f"labels are a list of classes, but have {self.labels.ndim} dimensions"
            )
        if not len(self.labels):
            raise ValueError("labels cannot be empty")
        self._classes, self._missing = _classes(labels, self.labels)
        chosen = len(self.labels)
        if indices is not None:
            given = np.asarray(indices)
            chosen = int(given.sum()) if given.dtype == bool else given.size
        if len(self.labels) < chosen:
            raise ValueError(
                f"labels length ({len(self.labels)}) must be either equal to that of indices "
                f"({chosen}), to balance over these, or to that of the collection"
            )
        super().__init__(
            block_size=block_size,
            indices=indices,
            weights=self._compute_class_weights(),
            total_size=total_size,
            replace=replace,
            sampling_size=sampling_size,
        )

    def _compute_class_weights(self) -> NDArray[np.float64]:
        _, classes, counts = np.unique(self._classes, return_inverse=True, return_counts=True)
        weights = np.asarray((1.0 / counts)[classes.reshape(-1)], dtype=np.float64)
        if self._missing is not None and self._missing.any():
            warnings.warn(
                f"{int(self._missing.sum())} labels are missing: their cells are never drawn",
                UserWarning,
                stacklevel=3,
            )
            weights[self._missing] = 0.0
        return weights


def _positive(value: int, name: str) -> int:
    number = operator.index(value)
    if number <= 0:
        raise ValueError(f"{name} must be positive, but is {value}")
    return number


def _normalised(weights: ArrayLike) -> NDArray[Any]:
    given = np.asarray(weights)
    if given.ndim != 1:
        raise ValueError(f"weights are a list, but have {given.ndim} dimensions")
    if given.size and not np.issubdtype(given.dtype, np.number) and given.dtype != bool:
        raise TypeError(f"weights are numbers, not {given.dtype}")
    if not np.all(np.isfinite(given)):
        raise ValueError("weights must be finite")
    if np.any(given < 0):
        raise ValueError("weights must be non-negative")
    total = given.sum()
    if not total > 0:
        raise ValueError("weights must sum to a positive value")
    return np.asarray(given / total)


def _classes(
    given: ArrayLike, labels: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Return what tells the classes of labels apart, and which labels are missing."""
    # A pandas categorical has codes already, -1 where there is none.
    codes = getattr(getattr(given, "cat", given), "codes", None)
    if codes is not None:
        codes = np.asarray(codes)
        return codes, codes < 0
    if np.issubdtype(labels.dtype, np.floating):
        return labels, np.isnan(labels)
    return labels, None
