"""The loader: minibatches of a store, epoch after epoch."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from . import _native, _ranks, _strategies
from ._batch import LAYOUTS, OUTPUTS, Batch, Maker, cut
from ._sizes import parse_bytes
from ._store import Matrix, Store, _names, _objects, _rows, open

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DTYPES = {
    "uint8": "u8",
    "uint16": "u16",
    "int32": "i32",
    "int64": "i64",
    "float16": "f16",
    "float32": "f32",
    "float64": "f64",
}


class Loader:
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
        ``"streaming_shuffled"``, or an object such as ``cellfeed.ClassBalanced("cell_type")``.
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
        The cells to use: conditions such as ``"plate != plate14"`` (several must all hold), a
        boolean mask over all cells, a slice, or row numbers.
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
        Fetches that may be read or wait beside the one in use.
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
        read_ahead: int = 1,
        fetch_transform: Callable[[Batch], Any] | None = None,
        batch_transform: Callable[[Any], Any] | None = None,
        pin_memory: bool = False,
    ) -> None:
        rank, world_size = _ranks.find(rank, world_size)
        # What the loader is made of again, in another process.
        self._arguments = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        if threads is not None:
            _whole("threads", threads, 1)
        if not isinstance(store, Store):
            store = self._arguments["store"] = open(store, threads=threads)
        self._store = store._with_threads(threads)
        self._strategy = _strategies.find(strategy, block_size)
        self._obs = _names(obs, "obs")
        self._matrix = Matrix(store, _matrix_key(layer))
        store._native.check_matrix(self._matrix._key)
        for name in self._obs:
            store._native.check_obs(name)
        self._fetch_factor = _whole("fetch_factor", fetch_factor, 1)
        self._plan = _native.Plan(
            store._native,
            _subset(subset, store),
            **self._strategy._arguments(store),
            batch_size=_whole("batch_size", batch_size, 1),
            fetch_factor=self._fetch_factor,
            drop_last=bool(drop_last),
            seed=_whole("seed", seed, 0),
            rank=rank,
            world_size=world_size,
        )
        self._batch_size = batch_size
        self._rank, self._world_size = rank, world_size
        for name, hook in (("fetch_transform", fetch_transform), ("batch_transform", batch_transform)):
            if hook is not None and not callable(hook):
                raise TypeError(f"{name} must be a function, not {type(hook).__name__}")
        self._fetch_transform, self._batch_transform = fetch_transform, batch_transform
        _one_of("output", output, OUTPUTS)
        _one_of("layout", layout, LAYOUTS)
        if pin_memory and output != "torch":
            raise ValueError('pin_memory is for output="torch"')
        self._genes = None if genes is None else _names(genes, "genes")
        self._make = Maker(output, layout, self.n_vars, self._obs, pin_memory)
        self._run_options: dict[str, Any] = {
            "matrix": self._matrix._key,
            "obs": [(name, _may_be_missing(name, store)) for name in self._obs],
            "layout": layout,
            "dtype": _dtype(dtype),
            "memory": parse_bytes(memory, "memory"),
            "read_ahead": _whole("read_ahead", read_ahead, 1),
            "genes": self._genes,
            "normalize_total": _number("normalize_total", normalize_total),
            "log1p": bool(log1p),
            "binarize": _threshold(binarize),
        }
        # Refuses what cannot be made of these genes and this type; nothing is read yet.
        _native.check_run(store._native, self._plan, **self._run_options)
        self._next_epoch = 0
        # A plan that goes on in the middle of its epoch, until that epoch is begun.
        self._resumed: _native.Plan | None = None
        self._resumed_epoch = 0
        # Where the iterator is that was made last.
        self._position: _Position | None = None

    # --- What it yields.

    @property
    def store(self) -> Store:
        """The store."""
        return self._store

    @property
    def batch_size(self) -> int:
        """Cells in a minibatch."""
        return self._batch_size

    @property
    def rank(self) -> int:
        """Which training process this is, from 0 on."""
        return self._rank

    @property
    def world_size(self) -> int:
        """How many training processes there are."""
        return self._world_size

    @property
    def n_cells(self) -> int:
        """Cells that an epoch of this rank yields."""
        return self._plan.n_cells

    @property
    def n_vars(self) -> int:
        """Genes of a minibatch."""
        return self._matrix.shape[1] if self._genes is None else len(self._genes)

    @property
    def var_names(self) -> NDArray[np.object_]:
        """The names of the genes, which are the columns of ``batch.X``."""
        return self._matrix.var_names if self._genes is None else _objects(self._genes)

    def __len__(self) -> int:
        """Minibatches in an epoch of this rank."""
        return self._plan.n_minibatches

    def plan_rows(self, epoch: int = 0) -> Iterator[NDArray[np.int64]]:
        """The row numbers of each minibatch of an epoch, without reading anything.

        Parameters
        ----------
        epoch
            The epoch.

        Yields
        ------
        numpy.ndarray
            The rows of a minibatch, in its order.
        """
        for fetch in range(self._plan.n_fetches):
            yield from self._plan.fetch(epoch, fetch)

    # --- Epochs.

    @property
    def epoch(self) -> int:
        """The epoch that the next ``iter()`` yields."""
        return self._next_epoch

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next ``iter()`` yields.

        Parameters
        ----------
        epoch
            Its number. If the loader was resumed in the middle of this epoch, what is left of it comes.
        """
        self._next_epoch = _whole("epoch", epoch, 0)
        self._position = None

    def __iter__(self) -> LoaderIterator:
        epoch, plan = self._next_epoch, self._plan
        if self._resumed is not None and self._resumed_epoch == epoch:
            plan = self._resumed
        self._resumed = None
        self._next_epoch = epoch + 1
        self._position = _Position(plan, epoch, plan.first_minibatch(epoch))
        return LoaderIterator(self, self._position)

    # --- States.

    def state_dict(self) -> dict[str, Any]:
        """Where the loader is: after the minibatches that its last iterator has yielded.

        Returns
        -------
        dict
            Small, of numbers and text; the same on every rank. `load_state_dict` goes on from it with the
            next minibatch, exactly.
        """
        if self._position is not None:
            return self._position.state()
        epoch = self._next_epoch
        resumed = self._resumed if self._resumed_epoch == epoch else None
        plan = self._plan if resumed is None else resumed
        return dict(json.loads(plan.state(epoch, plan.first_minibatch(epoch))))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state: the next ``iter()`` yields what was left of its epoch.

        Parameters
        ----------
        state
            What `state_dict` gave, of a loader over the same cells with the same strategy, sizes and seed.
            The number of ranks may be another at the end of a round of fetches.

        Raises
        ------
        ValueError
            If it is of another loader, with what differs.
        """
        if not isinstance(state, dict):
            raise TypeError(f"a state is a dict, not {type(state).__name__}")
        self._resumed = self._plan.resume(json.dumps(state))
        self._next_epoch = int(state["epoch"])
        self._resumed_epoch = self._next_epoch
        self._position = None

    def __reduce__(self) -> Any:
        return _remake, (self._arguments, self.state_dict())

    def __repr__(self) -> str:
        ranks = f", rank {self._rank} of {self._world_size}" if self._world_size > 1 else ""
        n, m = self._plan.n_cells, self.n_vars
        return (
            f"<Loader of {self._matrix._key}: {n:,} cells x {m:,} genes in {len(self):,} minibatches of "
            f"{self._batch_size}, {self._plan.strategy}, {self._fetch_factor} minibatches a fetch"
            f"{ranks}>"
        )


class _Position:
    """How far an iterator is."""

    __slots__ = ("plan", "epoch", "minibatch")

    def __init__(self, plan: _native.Plan, epoch: int, minibatch: int) -> None:
        self.plan = plan
        self.epoch = epoch
        self.minibatch = minibatch

    def state(self) -> dict[str, Any]:
        return dict(json.loads(self.plan.state(self.epoch, self.minibatch)))


class LoaderIterator:
    """The minibatches of an epoch. Made by ``iter(loader)``.

    Its thread ends with the epoch, when it is closed, or when it is no longer used.
    """

    def __init__(
        self,
        loader: Loader,
        position: _Position,
        worker: int = 0,
        n_workers: int = 1,
        skip: int = 0,
    ) -> None:
        self._loader = loader
        self._position = position
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
            raise
        except Exception:
            # A hook raised, or reading failed: nothing comes after that.
            self.close()
            raise
        self._position.minibatch = number + 1
        self.yielded += 1
        return batch

    def _to_fetch(
        self, plan: _native.Plan, worker: int, n_workers: int, skip: int
    ) -> tuple[_native.Plan, int]:
        """Goes back to the first minibatch of a fetch, which is transformed as a whole."""
        epoch, f = self._position.epoch, self._loader._fetch_factor
        last = plan.n_fetches_of(epoch) - 1
        if n_workers > 1:
            # All fetches of a worker but the epoch's last have as many minibatches.
            whole = skip // f
            share = plan.worker_minibatches(epoch, worker, n_workers)
            if last >= 0 and last % n_workers == worker:
                whole = min(whole, last // n_workers)
            self._drop = skip - whole * f
            return (plan, skip) if skip >= share else (plan, whole * f)
        first = min(plan.first_minibatch(epoch) // f, max(last, 0)) * f
        self._drop = plan.first_minibatch(epoch) - first
        return self._loader._plan.resume(plan.state(epoch, first)) if self._drop else plan, skip

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
        whole = loader._make(*_join(parts), epoch, start)
        assert loader._fetch_transform is not None
        whole = loader._fetch_transform(whole)
        n_cells = sum(len(part[1]) for part in parts)
        # Sparse matrices have a shape, but no length.
        kept = whole.shape[0] if hasattr(whole, "shape") else len(whole)
        if kept != n_cells:
            raise ValueError(
                f"fetch_transform was given {n_cells} cells and returned {kept}; it must keep "
                "their number, since minibatches are cut from what it returns"
            )
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
        """Seconds that were spent waiting for minibatches so far."""
        return self._run.waited

    def state_dict(self) -> dict[str, Any]:
        """Where this iterator is, as `Loader.state_dict`."""
        return self._position.state()

    def close(self) -> None:
        """End it, and its thread."""
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


def _remake(arguments: dict[str, Any], state: dict[str, Any]) -> Loader:
    loader = Loader(**arguments)
    loader.load_state_dict(state)
    return loader


def _whole(name: str, value: Any, least: int) -> int:
    """A whole number that is at least `least`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if not least <= value < 1 << 63:
        raise ValueError(f"{name} is {value}; it must be at least {least}, and below 2**63")
    return int(value)


def _number(name: str, value: Any) -> float | None:
    """A number, or nothing."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise TypeError(f"{name} must be a number, not {value!r}")
    return float(value)


def _threshold(binarize: Any) -> float | None:
    """A threshold of what may also be yes or no."""
    if isinstance(binarize, bool):
        return 0.0 if binarize else None
    return _number("binarize", binarize)


def _one_of(name: str, value: Any, there_are: tuple[str, ...]) -> None:
    if value not in there_are:
        raise ValueError(f"{name} is {value!r}; there are {', '.join(there_are)}")


def _matrix_key(layer: str | None) -> str:
    if layer is None or layer == "X":
        return "X"
    if not isinstance(layer, str):
        raise TypeError(f"layer must be the name of a layer, not {type(layer).__name__}")
    return "raw/X" if layer in ("raw", "raw/X") else f"layers/{layer.removeprefix('layers/')}"


def _dtype(dtype: Any) -> str:
    """What the native part calls a type; types of PyTorch are taken too."""
    name = str(dtype).removeprefix("torch.") if not isinstance(dtype, type) else None
    if name not in _DTYPES:
        try:
            name = np.dtype(dtype).name
        except TypeError:
            name = str(dtype)
    if name not in _DTYPES:
        raise ValueError(f"dtype is {name}; there are {', '.join(_DTYPES)}")
    return _DTYPES[name]


def _subset(subset: Any, store: Store) -> _native.Subset:
    n_obs = store.n_obs
    if subset is None:
        return _native.Subset.all(n_obs)
    if isinstance(subset, str):
        return store._native.subset([subset])
    if not hasattr(subset, "dtype") and isinstance(subset, (list, tuple)):
        if subset and all(isinstance(condition, str) for condition in subset):
            return store._native.subset(list(subset))
        subset = np.asarray(subset)
    try:
        rows = _rows(subset, n_obs)
    except (IndexError, TypeError) as error:
        raise type(error)(f"subset: {error}") from None
    return _native.Subset.of_rows(n_obs, rows.astype(np.uint64))


def _may_be_missing(name: str, store: Store) -> bool:
    """Whether whole numbers or truth values of a column may be missing: their type follows from it, and
    must be the same in every minibatch."""
    for column, kind, encoding, _ in store._native.obs_columns():
        if column == name and kind in ("integer", "boolean"):
            if encoding.startswith(("array", "plain")):
                return False
            return encoding.startswith("nullable") or store._native.has_missing(name)
    return False
