"""Minibatches of whatever a Python program has, by the plans of Cellfeed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _ranks, _strategies, _taking
from ._plans import Planned, Position, transformed
from ._subsets import native_subset

if TYPE_CHECKING:
    from numpy.typing import NDArray


class CollectionLoader(Planned):
    """Minibatches of a collection: a NumPy array, a Hugging Face dataset, an AnnData, a data frame, a
    dict of columns, or anything with a length that ``collection[rows]`` takes rows of.

    Iterating yields an epoch, each ``iter()`` the next, as in `cellfeed.Loader`; strategies, ranks,
    states and `cellfeed.torch.CellDataset` work as there. Each fetch asks the collection once for its
    rows, ascending and each once, and minibatches are cut from the answer. It is read in the thread that
    iterates: for files that Cellfeed reads itself `cellfeed.Loader` is far quicker.

    Parameters
    ----------
    collection
        The collection. Of a dict of columns every column is taken the same rows of.
    batch_size
        Rows in a minibatch.
    block_size
        Neighbouring rows that stay together in a fetch; 16 by default. For a strategy that is given by
        name.
    fetch_factor
        Minibatches that are read and shuffled together.
    strategy
        As in `cellfeed.Loader`.
    by, weights
        What a strategy that is given by name goes by: arrays, one value for each row.
    subset
        The rows to use: a boolean mask over all rows, a slice, or row numbers.
    seed
        The seed of every random choice.
    drop_last
        Whether a minibatch that is not full is left out.
    rank, world_size
        Which training process of how many this is, found as in `cellfeed.Loader`.
    fetch
        How rows are read: a function of the collection and an ascending array of row numbers; by default
        ``collection[rows]``, or what this means for the collection.
    fetch_transform
        A function that is called with what was read for a fetch and returns what is to be cut into
        minibatches, of as many rows.
    batch_transform
        A function that is called with each minibatch; what it returns is what the loader yields.

    Examples
    --------
    >>> x, y = np.random.rand(10_000, 50), np.arange(10_000) // 100
    >>> loader = cellfeed.CollectionLoader({"x": x, "y": y}, strategy="stratified", by=y)
    >>> next(iter(loader))["x"].shape
    (64, 50)
    """

    def __init__(
        self,
        collection: Any,
        *,
        batch_size: int = 64,
        block_size: int | None = None,
        fetch_factor: int = 256,
        strategy: str | _strategies.Strategy = "stratified",
        by: Any = None,
        weights: Any = None,
        subset: Any = None,
        seed: int = 0,
        drop_last: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
        fetch: Callable[[Any, NDArray[np.int64]], Any] | None = None,
        fetch_transform: Callable[[Any], Any] | None = None,
        batch_transform: Callable[[Any], Any] | None = None,
    ) -> None:
        rank, world_size = _ranks.find(rank, world_size)
        # What the loader is made of again, in another process.
        self._arguments = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        if isinstance(collection, (str, bytes)) or hasattr(collection, "__fspath__"):
            raise TypeError("a path is no collection; cellfeed.Loader reads files")
        self._collection = collection
        self._n_rows = _length(collection, "the collection")
        if fetch is not None and not callable(fetch):
            raise TypeError(f"fetch must be a function, not {type(fetch).__name__}")
        self._fetch = fetch or _taking.take
        self._begin(
            None,
            native_subset(subset, self._n_rows, None),
            _strategies.find(strategy, block_size, by, weights),
            batch_size=batch_size,
            fetch_factor=fetch_factor,
            drop_last=drop_last,
            seed=seed,
            rank=rank,
            world_size=world_size,
            fetch_transform=fetch_transform,
            batch_transform=batch_transform,
        )

    @property
    def collection(self) -> Any:
        """The collection."""
        return self._collection

    def __iter__(self) -> CollectionIterator:
        return self._iterate(self._next_position())

    def _iterate(
        self, position: Position, worker: int = 0, n_workers: int = 1, skip: int = 0
    ) -> CollectionIterator:
        return CollectionIterator(self, position, worker, n_workers, skip)

    def __repr__(self) -> str:
        kind = type(self._collection).__name__
        return (
            f"<CollectionLoader of a {kind}: {self._plan.n_cells:,} of {self._n_rows:,} rows "
            f"{self._describe_plan()}>"
        )


class CollectionIterator:
    """The minibatches of an epoch. Made by ``iter(loader)``.

    Attributes
    ----------
    rows
        The row numbers of the minibatch that was yielded last.
    """

    def __init__(
        self, loader: CollectionLoader, position: Position, worker: int, n_workers: int, skip: int
    ) -> None:
        self._loader = loader
        self._position = position
        self.rows: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        # Minibatches of the worker's share that were yielded, those that are skipped included.
        self.yielded = skip
        self._skip = skip
        plan, epoch = position.plan, position.epoch
        fetches = range(worker, plan.n_fetches_of(epoch), n_workers)
        self._fetches = iter([k for k in fetches if k >= plan.first_fetch(epoch)])
        # Minibatches that were read: their numbers, rows and contents.
        self._ready: deque[tuple[int, NDArray[np.int64], Any]] = deque()

    def __iter__(self) -> CollectionIterator:
        return self

    def __next__(self) -> Any:
        loader = self._loader
        try:
            while not self._ready:
                self._read(next(self._fetches))
            number, rows, batch = self._ready.popleft()
            if loader._batch_transform is not None:
                batch = loader._batch_transform(batch)
        except StopIteration:
            raise
        except BaseException:
            # Reading failed, or a hook raised or was interrupted: nothing comes after that.
            self.close()
            raise
        self.rows = rows
        self._position.minibatch = number + 1
        self.yielded += 1
        return batch

    def _read(self, k: int) -> None:
        """Reads a fetch and cuts it, if any of it is still to come."""
        loader, plan, epoch = self._loader, self._position.plan, self._position.epoch
        minibatches = plan.fetch(epoch, k)
        start = k * loader._fetch_factor
        left = max(0, plan.first_minibatch(epoch) - start)
        skipped = min(self._skip, max(0, len(minibatches) - left))
        self._skip -= skipped
        left += skipped
        if left >= len(minibatches):
            return
        ascending, places = np.unique(np.concatenate(minibatches), return_inverse=True)
        data = loader._fetch(loader._collection, ascending)
        read = _length(data, "what was read")
        if read != len(ascending):
            raise ValueError(f"the collection was asked for {len(ascending)} rows and gave {read}")
        if loader._fetch_transform is not None:
            made = "what fetch_transform returned"
            data = transformed(loader._fetch_transform, data, read, lambda d: _length(d, made))
        at = 0
        for j, rows in enumerate(minibatches):
            here = places[at : at + len(rows)]
            at += len(rows)
            if j >= left:
                self._ready.append((start + j, rows, _taking.take(data, here)))

    def state_dict(self) -> dict[str, Any]:
        """Where this iterator is, as `CollectionLoader.state_dict`."""
        return self._position.state()

    def close(self) -> None:
        """End it."""
        self._ready.clear()
        self._fetches = iter(())


def _length(collection: Any, what: str) -> int:
    """How many rows there are."""
    if isinstance(collection, Mapping):
        lengths = {str(name): _length(column, what) for name, column in collection.items()}
        if len(set(lengths.values())) != 1:
            found = ", ".join(f"{name}: {n}" for name, n in lengths.items())
            raise ValueError(f"{what} must have columns of one length; it has {found or 'none'}")
        return next(iter(lengths.values()))
    try:
        return _taking.count(collection)
    except TypeError:
        raise TypeError(f"{what} has no length: {type(collection).__name__}") from None
