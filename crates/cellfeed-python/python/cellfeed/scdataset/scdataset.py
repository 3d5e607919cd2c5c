"""The dataset: reads fetches by a strategy, and cuts them into minibatches."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from .._epochs import Epochs
from .. import _taking as _rows
from ._ranks import Share
from ._reopen import let_h5py_be_spawned
from .strategy import SamplingStrategy, order_of

__all__ = ["scDataset"]

# Seeds of epochs are as far apart.
_SEED_STEP = 1000


class scDataset(IterableDataset[Any]):
    """Minibatches of any collection, for ``DataLoader(dataset, batch_size=None)``.

    A fetch reads ``batch_size * fetch_factor`` rows at once, sorted, and is cut into minibatches.
    Ranks of a distributed training take fetches in turn, and all have the same number of
    minibatches; workers of a rank share its fetches.

    Parameters
    ----------
    data_collection : object
        Anything that is indexed by an array of row numbers: NumPy arrays, SciPy's sparse matrices,
        AnnData and its collections, h5py datasets, Hugging Face datasets, `MultiIndexable`; also
        pandas frames, lists, dicts of columns, and what `cellfeed.open` gives, whose rows have
        ``X``, ``obs`` and ``rows``.
    strategy : SamplingStrategy
        Which rows, and in which order.
    batch_size : int
        Cells of a minibatch.
    fetch_factor : int, default 16
        Minibatches of a fetch.
    drop_last : bool, default False
        Leave out the last minibatch if it is not full.
    fetch_callback : callable, optional
        ``fetch_callback(data_collection, rows)`` reads a fetch in the place of
        ``data_collection[rows]``.
    fetch_transform : callable, optional
        Applied to each fetch.
    batch_callback : callable, optional
        ``batch_callback(fetch, positions)`` takes a minibatch in the place of ``fetch[positions]``.
    batch_transform : callable, optional
        Applied to each minibatch.
    rank, world_size : int, optional
        Which part of a distributed training this is; by default what `torch.distributed` says if
        it is initialised, or else the only one.
    seed : int, optional
        Drawn from torch's generator by default; rank 0 then tells the others.

    Attributes
    ----------
    collection : object
        What was given as `data_collection`.
    fetch_size : int
        Rows of a fetch.
    sort_before_fetch : bool
        True; set it to False to read the rows of a fetch in the strategy's order.
    equal_ranks : bool
        True; set it to False to deal fetches to ranks as scDataset does, where some ranks can have
        more minibatches than others.

    Raises
    ------
    TypeError
        If `strategy` is none, or a number is not an integer.
    ValueError
        If `batch_size` or `fetch_factor` is not positive, the seed is negative, or there is no such
        rank.
    RuntimeError
        If there are several ranks, no seed, and `torch.distributed` is not initialised.

    Examples
    --------
    >>> import numpy as np
    >>> from cellfeed.scdataset import BlockShuffling, scDataset
    >>> dataset = scDataset(np.arange(20), BlockShuffling(4), batch_size=4, fetch_factor=2, seed=0)
    >>> len(dataset)
    5
    >>> next(iter(dataset))
    array([10, 16, 11, 18])
    """

    def __init__(
        self,
        data_collection: Any,
        strategy: SamplingStrategy,
        batch_size: int,
        fetch_factor: int = 16,
        drop_last: bool = False,
        fetch_callback: Callable[..., Any] | None = None,
        fetch_transform: Callable[..., Any] | None = None,
        batch_callback: Callable[..., Any] | None = None,
        batch_transform: Callable[..., Any] | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(strategy, SamplingStrategy):
            raise TypeError(
                "strategy must be an instance of SamplingStrategy, such as "
                f"cellfeed.scdataset.BlockShuffling(), not {strategy!r}"
            )
        self.collection = data_collection
        self.strategy = strategy
        self.batch_size = _positive(batch_size, "batch_size")
        self.fetch_factor = _positive(fetch_factor, "fetch_factor")
        self.drop_last = drop_last
        self.fetch_size = self.batch_size * self.fetch_factor
        self.sort_before_fetch = True
        self.equal_ranks = True
        self.fetch_callback = fetch_callback
        self.fetch_transform = fetch_transform
        self.batch_callback = batch_callback
        self.batch_transform = batch_transform
        self.rank, self.world_size = _ranks(rank, world_size)
        self._base_seed = _seed(seed, self.world_size)
        self._epochs = Epochs()
        # How often this process has begun as a worker, by the seed of its loader.
        self._turns: dict[int, int] = {}
        # Whoever gives a collection that holds a file of h5py has imported it by now.
        let_h5py_be_spawned()

    @property
    def _epoch(self) -> int:
        """The epoch of the next iteration, in the main process and in workers alike."""
        return self._epochs.next

    @_epoch.setter
    def _epoch(self, epoch: int) -> None:
        self._epochs.set(operator.index(epoch))

    def __len__(self) -> int:
        """Return the number of minibatches of this rank in an epoch."""
        return self._share(self.strategy.get_len(self.collection)).batches()

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the minibatches of an epoch; the next iteration is the next epoch."""
        worker = get_worker_info()
        if worker is None:
            return self._begin()
        # Begun at once, so that all workers of a loader have begun before any begins again.
        loader = worker.seed - worker.id
        turn = self._turns.get(loader, 0)
        self._turns[loader] = turn + 1
        epoch = self._epochs.claim_as_worker(loader, turn, worker.num_workers, None)
        return self._batches(epoch, worker.id, worker.num_workers)

    def _begin(self) -> Iterator[Any]:
        yield from self._batches(self._epochs.claim(), 0, 1)

    def _batches(self, epoch: int, worker: int, workers: int) -> Iterator[Any]:
        seed = self._base_seed + _SEED_STEP * epoch
        order = order_of(self.strategy, self.collection, seed)
        share = self._share(len(order))
        rng = np.random.default_rng(seed)
        for number in share.of_worker(worker, workers):
            fetch = share[number]
            if fetch.batches == 0:
                continue
            rows = order.span(fetch.begin, fetch.end)
            if self.sort_before_fetch:
                rows.sort()
            data = self._fetch(rows)
            if self.strategy._shuffle_before_yield:
                positions = rng.permutation(len(rows))
            else:
                positions = np.arange(len(rows))
            for begin, end in fetch.cuts():
                yield self._batch(data, positions[begin:end])
            # Not held while the next one is read.
            del data

    def _fetch(self, rows: np.ndarray[Any, np.dtype[np.int64]]) -> Any:
        if self.fetch_callback is None:
            data = _rows.take(self.collection, rows)
        else:
            data = self.fetch_callback(self.collection, rows)
        return data if self.fetch_transform is None else self.fetch_transform(data)

    def _batch(self, data: Any, positions: np.ndarray[Any, np.dtype[np.int64]]) -> Any:
        if self.batch_callback is None:
            batch = _rows.take(data, positions)
        else:
            batch = self.batch_callback(data, positions)
        return batch if self.batch_transform is None else self.batch_transform(batch)

    def _share(self, n: int) -> Share:
        if self.equal_ranks and not self.drop_last and 0 < n < self.world_size:
            raise ValueError(
                f"{n} cells are too few for {self.world_size} ranks: each needs one at least"
            )
        return Share(
            n,
            self.batch_size,
            self.fetch_size,
            self.drop_last,
            self.rank,
            self.world_size,
            self.equal_ranks,
        )


def _positive(value: int, name: str) -> int:
    number = operator.index(value)
    if number <= 0:
        raise ValueError(f"{name} must be positive, but is {value}")
    return number


def _distributed() -> Any:
    """Return `torch.distributed` if it is initialised."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed
    return None


def _ranks(rank: int | None, world_size: int | None) -> tuple[int, int]:
    distributed = _distributed()
    if distributed is not None:
        rank = distributed.get_rank() if rank is None else rank
        world_size = distributed.get_world_size() if world_size is None else world_size
    world_size = 1 if world_size is None else operator.index(world_size)
    if world_size < 1:
        raise ValueError(f"world_size must be positive, but is {world_size}")
    if rank is None and world_size > 1:
        warnings.warn(
            f"world_size is {world_size}, but nothing says which rank this is: it takes rank 0's "
            "part. Give rank, or initialise torch.distributed before making the dataset",
            UserWarning,
            stacklevel=3,
        )
    rank = 0 if rank is None else operator.index(rank)
    if not 0 <= rank < world_size:
        raise ValueError(f"ranks are 0 to {world_size - 1}, but rank is {rank}")
    return rank, world_size


def _seed(seed: int | None, world_size: int) -> int:
    if seed is not None:
        number = operator.index(seed)
        if number < 0:
            raise ValueError(f"seed must not be negative, but is {seed}")
        return number
    drawn = int(torch.randint(0, 2**31, (1,)).item())
    if world_size == 1:
        return drawn
    distributed = _distributed()
    if distributed is None:
        raise RuntimeError(
            f"world_size is {world_size}, but torch.distributed is not initialized, so that ranks "
            "cannot agree on a seed: give one, or call torch.distributed.init_process_group() first"
        )
    told = [drawn]
    distributed.broadcast_object_list(told, src=0)
    return told[0]
