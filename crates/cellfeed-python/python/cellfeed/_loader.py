"""The loader: minibatches of a store, epoch after epoch."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from . import _native, _ranks, _strategies
from ._batch import LAYOUTS, OUTPUTS, Batch, Maker, cut
from ._options import matrix_key, names_of, number, one_of, threshold, value_type, whole
from ._plans import Planned, Position, transformed
from ._sizes import parse_bytes
from ._store import Matrix, Store, _objects, open
from ._subsets import native_subset
from ._taking import count

if TYPE_CHECKING:
    from numpy.typing import NDArray

class Loader(Planned):
    """Minibatches of a store, read ahead on threads of its own while you use the last.

    Iterating yields an epoch. Each ``iter()`` is the next epoch, with another order; `set_epoch` says
    which. The order depends on ``seed``, the epoch and the options, and on nothing else: not on threads,
    memory or the format.

    Parameters
    ----------
    store
        A store, or what `cellfeed.open` takes.
    batch_size
        Cells in a minibatch.
    block_size
        Cells that stay together on disk; 16 by default. For a strategy that is given by name.
    fetch_factor
        Minibatches that are read and shuffled together.
    strategy
        ``"stratified"``, ``"block_shuffling"``, ``"true_random"``, ``"streaming"``,
        ``"streaming_shuffled"``, ``"weighted"``, ``"class_balanced"``, or an object such as
        ``cellfeed.ClassBalanced("cell_type", draws=10_000)``.
    by
        For a strategy that is given by name: the obs column, or several, whose labels ``"stratified"``
        goes by (else by the position in the file), or that ``"class_balanced"`` balances; or an array
        of labels.
    weights
        For ``"weighted"``: an obs column of numbers, or an array of them.
    obs
        Obs columns to load beside the matrix.
    layer
        The layer to load; ``X`` by default, ``"raw"`` for ``raw/X``.
    output
        What minibatches are made of: ``"numpy"`` (sparse ones as `CsrArrays`), ``"torch"`` tensors,
        or ``"scipy"``.
    layout
        ``"csr"`` or ``"dense"``.
    dtype
        The type of values: float32, float64, float16, int32, int64, uint8 or uint16. A value that an
        integer type cannot hold is an error.
    genes
        The names of the genes to load, in this order; all by default.
    normalize_total
        The total to which each cell is scaled, over all genes of the matrix, before genes are chosen: as
        ``scanpy.pp.normalize_total`` with this ``target_sum``.
    log1p
        Whether ``ln(1 + x)`` is taken, after that.
    binarize
        A threshold: 1 for values above it, 0 for others. True is a threshold of 0.
    subset
        The cells to use: conditions such as ``"plate != plate14"`` or ``"cell_type is present"``
        (several must all hold), a boolean mask over all cells, a slice, or row numbers.
    seed
        The seed of every random choice.
    drop_last
        Whether a minibatch that is not full is left out.
    rank, world_size
        Which training process of how many this is. By default those of ``torch.distributed`` if it is
        initialised, else those of the environment (``RANK``, ``WORLD_SIZE``), else one alone. All ranks
        together visit every cell once, and all have the same number of minibatches.
    threads
        Threads that decode and gather; those of the store by default.
    memory
        Bytes that fetches and waiting minibatches may take, as a number or as ``"2GiB"``.
    read_ahead
        Fetches that may be read or wait beside the one in use: by default one, four of a store behind a
        URL.
    fetch_transform
        A function that is called with all cells of a fetch as one `Batch` and returns what is to be cut
        into minibatches: a `Batch`, or anything that ``[start:stop]`` cuts.
    batch_transform
        A function that is called with each minibatch; what it returns is what the loader yields.
    pin_memory
        Whether tensors are in page-locked memory.

    Examples
    --------
    >>> loader = cellfeed.Loader("atlas.h5ad", obs=["cell_type"], output="torch", layout="dense")
    ... # doctest: +SKIP
    >>> for batch in loader:  # doctest: +SKIP
    ...     loss = model(batch.X, batch.obs["cell_type"])
    """

    def __init__(
        self,
        store: Store | str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        batch_size: int = 64,
        block_size: int | None = None,
        fetch_factor: int = 256,
        strategy: str | _strategies.Strategy = "stratified",
        by: Any = None,
        weights: Any = None,
        obs: str | Iterable[str] = (),
        layer: str | None = None,
        output: Literal["numpy", "torch", "scipy"] = "numpy",
        layout: Literal["csr", "dense"] = "csr",
        dtype: Any = "float32",
        genes: Iterable[str] | None = None,
        normalize_total: float | None = None,
        log1p: bool = False,
        binarize: float | bool | None = None,
        subset: Any = None,
        seed: int = 0,
        drop_last: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
        threads: int | None = None,
        memory: int | str = "1GiB",
        read_ahead: int | None = None,
        fetch_transform: Callable[[Batch], Any] | None = None,
        batch_transform: Callable[[Any], Any] | None = None,
        pin_memory: bool = False,
    ) -> None:
        rank, world_size = _ranks.find(rank, world_size)
        # What the loader is made of again, in another process.
        self._arguments = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        if threads is not None:
            whole("threads", threads, 1)
        if not isinstance(store, Store):
            store = self._arguments["store"] = open(store, threads=threads)
        self._store = store._with_threads(threads)
        found = _strategies.find(strategy, block_size, by, weights)
        self._obs = names_of(obs, "obs")
        self._matrix = Matrix(store, matrix_key(layer))
        store._native.check_matrix(self._matrix._key)
        for name in self._obs:
            store._native.check_obs(name)
        self._begin(
            store,
            native_subset(subset, store.n_obs, store),
            found,
            batch_size=batch_size,
            fetch_factor=fetch_factor,
            drop_last=drop_last,
            seed=seed,
            rank=rank,
            world_size=world_size,
            fetch_transform=fetch_transform,
            batch_transform=batch_transform,
        )
        one_of("output", output, OUTPUTS)
        one_of("layout", layout, LAYOUTS)
        if pin_memory and output != "torch":
            raise ValueError('pin_memory is for output="torch"')
        self._genes = None if genes is None else names_of(genes, "genes")
        self._make = Maker(output, layout, self.n_vars, self._obs, pin_memory)
        self._run_options: dict[str, Any] = {
            "matrix": self._matrix._key,
            "obs": [(name, _may_be_missing(name, store)) for name in self._obs],
            "layout": layout,
            "dtype": value_type(dtype),
            "memory": parse_bytes(memory, "memory"),
            "read_ahead": None if read_ahead is None else whole("read_ahead", read_ahead, 1),
            "genes": self._genes,
            "normalize_total": number("normalize_total", normalize_total),
            "log1p": bool(log1p),
            "binarize": threshold(binarize),
        }
        # Refuses what cannot be made of these genes and this type; nothing is read yet.
        _native.check_run(store._native, self._plan, **self._run_options)

    @property
    def store(self) -> Store:
        """The store."""
        return self._store

    @property
    def n_vars(self) -> int:
        """Genes of a minibatch."""
        return self._matrix.shape[1] if self._genes is None else len(self._genes)

    @property
    def var_names(self) -> NDArray[np.object_]:
        """The names of the genes, which are the columns of ``batch.X``."""
        return self._matrix.var_names if self._genes is None else _objects(self._genes)

    def __iter__(self) -> LoaderIterator:
        return self._iterate(self._next_position())

    def _iterate(
        self, position: Position, worker: int = 0, n_workers: int = 1, skip: int = 0
    ) -> LoaderIterator:
        return LoaderIterator(self, position, worker, n_workers, skip)

    def _share_cores(self, n_workers: int) -> None:
        if self._arguments["threads"] is None:
            # The workers of all ranks of this machine would each take every core.
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
            self._store = self._store._with_threads(max(1, cores // n_workers))

    def __repr__(self) -> str:
        n, m = self._plan.n_cells, self.n_vars
        return (
            f"<Loader of {self._matrix._key}: {n:,} cells x {m:,} genes {self._describe_plan()}>"
        )


class LoaderIterator:
    """The minibatches of an epoch. Made by ``iter(loader)``.

    Its thread ends with the epoch, when it is closed, or when it is no longer used.
    """

    def __init__(
        self,
        loader: Loader,
        position: Position,
        worker: int = 0,
        n_workers: int = 1,
        skip: int = 0,
    ) -> None:
        self._loader = loader
        self._position = position
        self._turn = threading.Lock()
        # Minibatches of the worker's share that were yielded, those that are skipped included.
        self.yielded = skip
        self._cut: deque[Any] = deque()
        # Minibatches of the first fetch that were yielded before.
        self._drop = 0
        plan = position.plan
        if loader._fetch_transform is not None:
            plan, skip = self._to_fetch(plan, worker, n_workers, skip)
        self._run = _native.Run(
            loader._store._native,
            plan,
            epoch=position.epoch,
            worker=worker,
            n_workers=n_workers,
            skip=skip,
            **loader._run_options,
        )

    def __iter__(self) -> LoaderIterator:
        return self

    def __next__(self) -> Any:
        # A second thread is refused before it can take a part of what the first has begun, or end it.
        if not self._turn.acquire(blocking=False):
            raise RuntimeError("another thread waits for this iterator; give each thread its own")
        try:
            return self._advance()
        finally:
            self._turn.release()

    def _advance(self) -> Any:
        loader = self._loader
        try:
            if loader._fetch_transform is None:
                x, rows, obs, number = next(self._run)
                batch: Any = loader._make(x, rows, obs, self._position.epoch, number)
            else:
                while not self._cut:
                    self._next_fetch()
                number, batch = self._cut.popleft()
            if loader._batch_transform is not None:
                batch = loader._batch_transform(batch)
        except StopIteration:
            loader._store._warn()
            raise
        except BaseException as error:
            # Reading failed, or a hook raised or was interrupted, and has lost what it was given: nothing
            # comes after that.
            if isinstance(error, Exception) or loader._has_hooks:
                self.close()
            raise
        self._position.minibatch = number + 1
        self.yielded += 1
        return batch

    def _to_fetch(
        self, plan: _native.Plan, worker: int, n_workers: int, skip: int
    ) -> tuple[_native.Plan, int]:
        """Goes back to the first minibatch of a fetch, which is transformed as a whole."""
        epoch = self._position.epoch
        fetch, minibatch = plan.worker_first(epoch, worker, n_workers, skip)
        first = fetch * self._loader._fetch_factor
        if fetch == plan.n_fetches_of(epoch) or minibatch == first:
            return plan, skip
        # Of a plan that goes on with that fetch, the worker's share begins with it.
        self._drop = minibatch - first
        return self._loader._plan.resume(plan.state(epoch, first)), 0

    def _next_fetch(self) -> None:
        """Reads a fetch, has it transformed and cuts it."""
        loader, epoch = self._loader, self._position.epoch
        plan, f = self._position.plan, loader._fetch_factor
        parts = [next(self._run)]
        start = parts[0][3]
        fetch = min(start // f, plan.n_fetches_of(epoch) - 1)
        end = plan.n_minibatches_of(epoch) if fetch == plan.n_fetches_of(epoch) - 1 else start + f
        while len(parts) < end - start:
            parts.append(next(self._run))
        cells = loader._make(*_join(parts), epoch, start)
        assert loader._fetch_transform is not None
        whole = transformed(loader._fetch_transform, cells, len(cells), count)
        at = 0
        for x, rows, _, number in parts:
            batch = cut(whole, slice(at, at + len(rows)))
            at += len(rows)
            if isinstance(batch, Batch):
                batch.number = number
            if number - start >= self._drop:
                self._cut.append((number, batch))
        self._drop = 0

    @property
    def waited(self) -> float:
        """Seconds that were spent waiting for minibatches so far. May be read in any thread."""
        return self._run.waited

    def state_dict(self) -> dict[str, Any]:
        """Where this iterator is, as `Loader.state_dict`."""
        return self._position.state()

    def close(self) -> None:
        """End it, and its thread; in any thread, also while another waits for a minibatch."""
        self._cut.clear()
        self._run.close()


def _join(parts: list[Any]) -> tuple[tuple[NDArray[Any], ...], NDArray[np.int64], list[Any]]:
    """Minibatches end to end."""
    xs, rows, obs = [p[0] for p in parts], [p[1] for p in parts], [p[2] for p in parts]
    x: tuple[NDArray[Any], ...]
    if len(xs[0]) == 1:
        x = (np.concatenate([x[0] for x in xs]),)
    else:
        data, indices = (np.concatenate([x[i] for x in xs]) for i in (0, 1))
        lengths = np.concatenate([np.diff(x[2]) for x in xs])
        indptr = np.zeros(len(lengths) + 1, dtype=np.int64)
        np.cumsum(lengths, out=indptr[1:])
        # As in a minibatch, as long as they can say where its values are.
        x = (data, indices, indptr.astype(np.int32) if len(data) < 1 << 31 else indptr)
    columns: list[Any] = [
        list(chain.from_iterable(column)) if isinstance(column[0], list) else np.concatenate(column)
        for column in zip(*obs)
    ]
    return x, np.concatenate(rows), columns


def _may_be_missing(name: str, store: Store) -> bool:
    """Whether whole numbers or truth values of a column may be missing: their type follows from it, and
    must be the same in every minibatch."""
    for column, kind, encoding, _ in store._native.obs_columns():
        if column == name and kind in ("integer", "boolean"):
            if encoding.startswith(("array", "plain")):
                return False
            return encoding.startswith("nullable") or store._native.has_missing(name)
    return False
