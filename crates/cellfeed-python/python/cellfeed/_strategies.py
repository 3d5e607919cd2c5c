"""How cells are chosen and ordered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ._options import has_nullable


@dataclass(frozen=True)
class Strategy:
    """How cells are chosen and ordered; what the strategies have in common."""

    def _arguments(self) -> dict[str, Any]:
        """What the native plan is made of."""
        raise TypeError("use one of the strategies, as cellfeed.BlockShuffling(block_size=16)")


def _of(strategy: str, block_size: int = 16, **more: Any) -> dict[str, Any]:
    if isinstance(block_size, bool) or not isinstance(block_size, (int, np.integer)):
        raise TypeError(f"block_size must be a whole number, not {block_size!r}")
    if block_size < 1:
        raise ValueError(f"block_size is {block_size}; it must be at least 1")
    out = {"strategy": strategy, "block_size": int(block_size), "shuffle": False}
    none: dict[str, Any] = {"draws": None, "replacement": True, "by": [], "weights": None, "labels": []}
    return {**out, **none, **more}


def _drawn(strategy: str, block_size: int, draws: Any, replacement: Any, **more: Any) -> dict[str, Any]:
    if draws is not None and (isinstance(draws, bool) or not isinstance(draws, (int, np.integer))):
        raise TypeError(f"draws must be a whole number, not {draws!r}")
    if draws is not None and draws < 1:
        raise ValueError(f"draws is {draws}; it must be at least 1")
    return _of(strategy, block_size, draws=draws, replacement=bool(replacement), **more)


@dataclass(frozen=True)
class Streaming(Strategy):
    """Cells in the order of the file.

    Parameters
    ----------
    shuffle
        Whether cells change places inside each fetch.
    """

    shuffle: bool = False

    def _arguments(self) -> dict[str, Any]:
        return _of("streaming", shuffle=bool(self.shuffle))


@dataclass(frozen=True)
class BlockShuffling(Strategy):
    """Blocks of neighbouring cells in random order, and the cells of each fetch shuffled.

    Parameters
    ----------
    block_size
        Cells that stay together on disk and in a fetch. 16 with a ``fetch_factor`` of 256 trains as
        true random sampling does.
    """

    block_size: int = 16

    def _arguments(self) -> dict[str, Any]:
        return _of("block_shuffling", self.block_size)


@dataclass(frozen=True)
class TrueRandom(Strategy):
    """Single cells in random order: the best mixture, and by far the most reading."""

    def _arguments(self) -> dict[str, Any]:
        return _of("true_random", 1)


@dataclass(frozen=True, eq=False)
class StratifiedBlockShuffling(Strategy):
    """Block shuffling in which every fetch is a sample of the whole file.

    Each fetch takes one random block from each of as many equal stretches of the file as it has blocks,
    or of the file's blocks sorted by labels. It mixes better than block shuffling at the same cost.

    Parameters
    ----------
    block_size
        Cells that stay together on disk and in a fetch.
    by
        An obs column, or several, whose labels every fetch shall have in their proportion; or an array
        of a label for each cell, or a data frame or an array with a column for each kind of label. By
        default the position in the file, which needs no labels.
    """

    block_size: int = 16
    by: Any = ()

    def _arguments(self) -> dict[str, Any]:
        by = self.by
        if isinstance(by, str):
            return _of("stratified", self.block_size, by=[by])
        if isinstance(by, (list, tuple)) and all(isinstance(name, str) for name in by):
            return _of("stratified", self.block_size, by=list(by))
        return _of("stratified", self.block_size, labels=_label_columns(by))


@dataclass(frozen=True, eq=False)
class BlockWeighted(Strategy):
    """Cells in proportion to their weights.

    With replacement a block is drawn by the sum of its weights, then cells within it, so that reading
    keeps its locality. Without, each cell comes at most once in an epoch.

    Parameters
    ----------
    weights
        A weight for each cell of the store, or the name of a numeric obs column that has them.
    block_size
        Cells that stay together on disk and in a fetch.
    draws
        Cells that an epoch draws. By default as many as there are to choose from; without replacement
        as many as can be had with every cell in proportion.
    replacement
        Whether a cell may come more than once in an epoch.
    """

    weights: Any
    block_size: int = 16
    draws: int | None = None
    replacement: bool = True

    def _arguments(self) -> dict[str, Any]:
        if isinstance(self.weights, str):
            what: dict[str, Any] = {"by": [self.weights]}
        else:
            weights = _weights(self.weights)
            if weights.ndim != 1:
                raise ValueError(f"weights have shape {weights.shape}; give one for each cell")
            what = {"weights": weights}
        return _drawn("block_weighted", self.block_size, self.draws, self.replacement, **what)


@dataclass(frozen=True, eq=False)
class ClassBalanced(Strategy):
    """About as many cells of each class.

    Parameters
    ----------
    labels
        The name of an obs column that has the classes, or a label for each cell of the store.
    block_size
        Cells that stay together on disk and in a fetch.
    draws
        Cells that an epoch draws. By default as many as there are to choose from; without replacement
        as many as can be had with every cell in proportion.
    replacement
        Whether a cell may come more than once in an epoch.
    """

    labels: Any
    block_size: int = 16
    draws: int | None = None
    replacement: bool = True

    def _arguments(self) -> dict[str, Any]:
        if isinstance(self.labels, str):
            what: dict[str, Any] = {"by": [self.labels]}
        else:
            what = {"labels": [codes_of(self.labels)]}
        return _drawn("class_balanced", self.block_size, self.draws, self.replacement, **what)


def _weights(weights: Any) -> Any:
    """A number for each cell."""
    found = np.asarray(weights)
    if has_nullable(weights, found, "biuf"):
        # Numbers of pandas that may be missing; a weight that is not there is refused as NaN is.
        found = weights.to_numpy(dtype=np.float64, na_value=np.nan)
    if found.dtype.kind not in "biuf":
        raise TypeError(f"weights must be numbers, or the name of an obs column, not {found.dtype}")
    return np.ascontiguousarray(found, dtype=np.float64)


def _label_columns(by: Any) -> list[Any]:
    """Codes of each column of labels."""
    if hasattr(by, "columns") and hasattr(by, "iloc"):
        return [codes_of(by.iloc[:, j]) for j in range(by.shape[1])]
    if getattr(by, "ndim", 1) == 2:
        values = np.asarray(by)
        return [codes_of(values[:, j]) for j in range(values.shape[1])]
    return [codes_of(by)]


def codes_of(labels: Any) -> Any:
    """A number for the label of each cell, in the order of the labels; -1 where there is none."""
    # A pandas series of categories, or such categories themselves, have codes.
    codes = getattr(getattr(labels, "cat", labels), "codes", None)
    values = np.asarray(labels if codes is None else codes)
    if values.ndim != 1:
        raise ValueError(f"labels have shape {values.shape}; there must be one for each cell")
    if codes is not None:
        return np.ascontiguousarray(values, dtype=np.int64)
    if values.dtype == object:
        there = np.array([not _is_missing(value) for value in values], dtype=bool)
        known = values[there].astype(str)
    else:
        # What is not a number, or not a time, differs from itself.
        there = values == values
        known = values[there]
    out = np.full(len(values), -1, dtype=np.int64)
    out[there] = np.unique(known, return_inverse=True)[1]
    return out


def _is_missing(value: Any) -> bool:
    """Whether it stands for no value: None, what differs from itself, and what will not say."""
    try:
        return value is None or bool(value != value)
    except (TypeError, ValueError):
        # pandas.NA answers NA to every comparison.
        return True


_NAMES = (
    "stratified",
    "block_shuffling",
    "true_random",
    "streaming",
    "streaming_shuffled",
    "weighted",
    "class_balanced",
)


def find(strategy: str | Strategy, block_size: int | None, by: Any, weights: Any) -> Strategy:
    """The strategy of a name, or the one that was given.

    Parameters
    ----------
    strategy
        A name, with hyphens as on the command line or with underscores, or a strategy.
    block_size, by, weights
        What a strategy of a name is made of; nothing where it has its own.
    """
    if isinstance(strategy, Strategy):
        for name, value in (("block_size", block_size), ("by", by), ("weights", weights)):
            if value is not None:
                raise ValueError(f"give {name} to the strategy, not beside it")
        return strategy
    if not isinstance(strategy, str):
        raise TypeError(
            f"strategy must be a name or a strategy of cellfeed, not {type(strategy).__name__}"
        )
    name = strategy.replace("-", "_")
    if name not in _NAMES:
        raise ValueError(f"no strategy is called {strategy!r}; there are {', '.join(_NAMES)}")
    if by is not None and name not in ("stratified", "class_balanced"):
        raise ValueError(f"by is for stratified and class_balanced, not for {name}")
    if (weights is not None) != (name == "weighted"):
        raise ValueError(
            f"weights are for weighted, not for {name}"
            if weights is not None
            else "weighted needs weights: an obs column of numbers, or an array"
        )
    size = 16 if block_size is None else block_size
    if name == "weighted":
        return BlockWeighted(weights, size)
    if name == "class_balanced":
        if by is None:
            raise ValueError("class_balanced needs by: the obs column of the classes, or an array")
        if isinstance(by, (list, tuple)) and by and all(isinstance(column, str) for column in by):
            if len(by) > 1:
                raise ValueError(f"class_balanced goes by one obs column, not by {len(by)}")
            by = by[0]
        return ClassBalanced(by, size)
    if name == "stratified":
        return StratifiedBlockShuffling(size, () if by is None else by)
    if name == "block_shuffling":
        return BlockShuffling(size)
    # The others have no blocks to choose the size of, and a size in a shared configuration is no harm.
    return TrueRandom() if name == "true_random" else Streaming(shuffle=name == "streaming_shuffled")
