"""Stores: what is in a file, and its rows and columns on demand."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Union

import numpy as np

from . import _native
from ._batch import CsrArrays
from ._obs import Obs, series
from ._optional import need
from ._options import has_nullable
from ._remote import remote_options
from ._sizes import show_bytes, show_count

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    PathLike = Union[str, "os.PathLike[str]"]

Join = Literal["inner", "outer"]
Rows = Any

_DTYPES = {
    "u8": "uint8",
    "u16": "uint16",
    "u32": "uint32",
    "u64": "uint64",
    "i8": "int8",
    "i16": "int16",
    "i32": "int32",
    "i64": "int64",
    "f16": "float16",
    "f32": "float32",
    "f64": "float64",
}


def open(
    path: PathLike | Sequence[PathLike],
    *,
    join: Join = "inner",
    label: str | None = None,
    threads: int | None = None,
    access: Literal["auto", "map", "read"] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    connections: int | None = None,
    gap: int | str | None = None,
    attempts: int | None = None,
    timeout: float | None = None,
    cache_dir: PathLike | None = None,
    cache_size: int | str | None = None,
) -> Store:
    """Open a store, or several as one.

    The format is told by looking at the contents: AnnData ``.h5ad`` and ``.zarr``, Parquet, raw CSR
    ``.csr``, 10x Genomics ``.h5``, BioNeMo SCDL folders. Only metadata is read.

    Parameters
    ----------
    path
        A file or a folder, or a list of them; also in a bucket, as ``"s3://bucket/atlas.zarr"``
        (``gs://``, ``az://``, ``https://``), with credentials from each cloud's usual environment
        variables; the options from ``storage_options`` on are for these. ``"file.h5mu#mod/rna"`` is a
        group inside an HDF5 file.
        Several are one store that has the cells of the first, then those of the second, and so on.
    join
        The genes of several stores, which are aligned by name: those that all have (``"inner"``), or
        those that any has (``"outer"``; where a store lacks a gene, its cells have no value of it).
    label
        The name of an obs column to add, which says for each cell which of several stores it is of.
    threads
        Threads that decode and gather. Default: one per core.
    access
        How rows come out of files that hold them as they are wanted: ``.csr`` stores, and ``.h5ad`` files
        that are not compressed. ``"map"`` saves a copy, ``"read"`` does not wait for one page after the
        other where the file is not in memory, and ``"auto"`` takes for each fetch what serves it better.
        Default: ``"auto"``. A file that is written anew in its place meanwhile, as
        ``AnnData.write_h5ad`` does, raises `OSError` either way.
    storage_options
        Settings of the object store, as ``{"endpoint": "http://host:9000", "region": "eu-west-1"}`` or
        ``{"skip_signature": True}``; they go before environment variables. Stores that are pickled, as
        for worker processes, have them along; they are never shown.
    connections
        Requests that are under way at once. Default: 256. Divide it among processes.
    gap
        Ranges at most so many bytes apart are one request, as a number or as ``"64KiB"``, the default.
    attempts
        How often a request is tried before it has failed. Default: 6.
    timeout
        After so many seconds without a byte an attempt has failed. Default: 20.
    cache_dir
        A folder of a local disk that keeps what is read from object stores, so that it is read from there
        the next time. Several processes may share it. Default: the environment variable
        ``CELLFEED_CACHE_DIR``, else there is no cache.
    cache_size
        Bytes that the cache may hold, as a number or as ``"500GiB"``. Default: ``CELLFEED_CACHE_SIZE``,
        else half of what the disk has free, and at most 64 GiB.

    Returns
    -------
    Store
        What was opened.

    Warns
    -----
    UserWarning
        If the cache can no longer be written: after an epoch, when rows were read, or when the store is
        closed. What it lacks comes from the object store.

    Examples
    --------
    >>> cellfeed.open("atlas.h5ad")  # doctest: +SKIP
    >>> cellfeed.open(["plate1.h5ad", "plate2.h5ad"], join="outer", label="file")  # doctest: +SKIP
    """
    if isinstance(path, (str, bytes)) or hasattr(path, "__fspath__"):
        paths = [path]
    elif hasattr(path, "obs_names"):
        raise _no_path(path)
    else:
        try:
            paths = list(path)
        except TypeError:
            raise _no_path(path) from None
    names = []
    for one in paths:
        try:
            name = os.fspath(one)
        except TypeError:
            raise _no_path(one) from None
        if not isinstance(name, str):
            raise TypeError("paths must be str, not bytes")
        names.append(name)
    if not names:
        raise ValueError("no stores to open; name at least one")
    if threads is not None and threads < 1:
        raise ValueError(f"threads is {threads}; it must be at least 1")
    remote = remote_options(
        storage_options, connections, gap, attempts, timeout, cache_dir, cache_size
    )
    store = Store._of(names, join=join, label=label, threads=threads, access=access, remote=remote)
    # What is wrong with it is said here.
    store._native  # noqa: B018
    store._warn()
    return store


class Store:
    """An open store. Made by `cellfeed.open`.

    What an AnnData user knows is here under the same names: `X`, `layers`, `obs`, `var`, `obs_names`,
    `var_names`, `shape`, `n_obs`, `n_vars`. Nothing is read before it is asked for.

    A store can be pickled, which carries its paths along and opens them anew, and is opened anew by
    itself in a process that was forked. Its files are closed by `close`, at the end of a ``with`` block,
    or when it is no longer used.
    """

    _paths: list[str]
    _options: dict[str, Any]
    _opened: _native.Store | None
    _closed: bool

    def __init__(self) -> None:
        raise TypeError("stores are made by cellfeed.open(path)")

    @classmethod
    def _of(cls, paths: list[str], **options: Any) -> Store:
        store = cls.__new__(cls)
        # A worker may be in another folder.
        store._paths = [_absolute(p) for p in paths]
        store._options = options
        store._opened = None
        store._closed = False
        return store

    def __reduce__(self) -> Any:
        if self._closed:
            raise ValueError(f"the store {self._paths[0]} is closed; it cannot be pickled")
        return _reopen, (self._paths, self._options)

    @property
    def _native(self) -> _native.Store:
        if self._closed:
            raise ValueError(f"the store {self._paths[0]} is closed; open it anew")
        # After a fork the threads are the parent's.
        if self._opened is None or not self._opened.is_here:
            self._opened = _native.Store(self._paths, **self._options)
        return self._opened

    def _warn(self) -> None:
        """Says what went wrong without failing anything, as with a cache on a full disk."""
        if self._opened is not None and self._opened.is_here:
            for what in self._opened.take_warnings():
                warnings.warn(what, stacklevel=3)

    def close(self) -> None:
        """Close its files. Iterators that run go on; nothing else can be had of it."""
        self._warn()
        self._closed = True
        self._opened = None

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    def __enter__(self) -> Store:
        self._native  # noqa: B018
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _with_threads(self, threads: int | None) -> Store:
        """This store, with other threads."""
        opened = self._opened is not None and self._opened.is_here
        if threads is None or (opened and threads == self._native.threads):
            return self
        return Store._of(self._paths, **{**self._options, "threads": threads})

    # --- What there is.

    @property
    def paths(self) -> list[str]:
        """Where the store is; of several opened as one, where each of them is."""
        return list(self._paths)

    @property
    def n_obs(self) -> int:
        """How many cells."""
        return self._native.n_obs

    @property
    def n_vars(self) -> int:
        """How many genes."""
        return self._native.n_vars

    @property
    def shape(self) -> tuple[int, int]:
        """Cells and genes."""
        return self.n_obs, self.n_vars

    def __len__(self) -> int:
        return self.n_obs

    @property
    def format(self) -> str:
        """The format, as ``"h5ad"``."""
        return self._native.format

    @property
    def threads(self) -> int:
        """Threads that decode and gather."""
        return self._native.threads

    @property
    def X(self) -> Matrix:
        """The main matrix; ``store.X[rows]`` reads rows of it.

        Raises
        ------
        NotFoundError
            If the store has no ``X``.
        """
        return Matrix(self, "X")

    @property
    def layers(self) -> Layers:
        """The layers by name; ``store.layers["counts"][rows]`` reads rows of one."""
        return Layers(self)

    @property
    def raw(self) -> Matrix | None:
        """The unfiltered matrix that AnnData keeps beside ``X``, if there is one."""
        if any(m["key"] == "raw/X" for m in self._native.matrices()):
            return Matrix(self, "raw/X")
        return None

    # --- Cells.

    @property
    def obs_columns(self) -> list[str]:
        """The names of the obs columns that can be read."""
        return [name for name, _, _, why in self._native.obs_columns() if why is None]

    @property
    def obs_names(self) -> NDArray[np.object_]:
        """The names of the cells.

        Raises
        ------
        NotFoundError
            If the store has no names of cells.
        """
        index = self._native.obs_index
        if index is None:
            from ._errors import NotFoundError

            raise NotFoundError(f"the store has no names of cells (file {self._paths[0]})")
        return _objects(self._native.read_obs([index], 0, self.n_obs)[0][0])

    @property
    def obs(self) -> Obs:
        """The obs columns: ``store.obs["plate"]`` is one, ``store.obs()`` the data frame of all."""
        return Obs(self)

    def obs_codes(self, column: str) -> NDArray[Any]:
        """One obs column of all cells as a NumPy array, as minibatches have it.

        Parameters
        ----------
        column
            The column.

        Returns
        -------
        numpy.ndarray
            Of a categorical column the codes, -1 where there is no value (`obs_categories` has what they
            mean). Other columns as they are; numbers of which some are missing as floats.
        """
        found, mask = self._native.read_obs([column], 0, self.n_obs)[0]
        if isinstance(found, list):
            return _objects(found)
        values: NDArray[Any] = found
        if mask is None:
            return values.astype(np.int64) if values.dtype == np.int32 else values
        values = values.astype(np.float64)
        values[mask] = np.nan
        return values

    def obs_categories(self, column: str) -> NDArray[np.object_]:
        """The categories of a categorical obs column: what its codes mean.

        Parameters
        ----------
        column
            The column.

        Returns
        -------
        numpy.ndarray
            The category of code ``i`` is at ``i``.

        Raises
        ------
        NotFoundError
            If there is no such column.
        ValueError
            If it is not categorical.
        """
        found = self._native.obs_categories(column)
        if found is None:
            raise ValueError(f"the obs column {column!r} is not categorical")
        return _objects(found[0])

    # --- Genes.

    @property
    def var_names(self) -> NDArray[np.object_]:
        """The names of the genes; empty if the store has none."""
        return _objects(self._native.var_names("X"))

    @property
    def var(self) -> pd.DataFrame:
        """What the store says of its genes, as a pandas data frame with their names as index."""
        pandas = need("pandas", "Store.var")
        names, columns = self._native.read_var("X")
        frame = {name: series(found, *pair) for name, _, found, pair in columns}
        index = pandas.RangeIndex(self.n_vars) if names is None else pandas.Index(names)
        out: pd.DataFrame = pandas.DataFrame(frame, index=index, columns=[c[0] for c in columns])
        return out

    def __repr__(self) -> str:
        return _describe(self)


class Matrix:
    """A matrix of a store that reads rows when it is indexed: ``store.X[10:20]``."""

    def __init__(self, store: Store, key: str) -> None:
        self._store = store
        self._key = key
        matrices = {found["key"]: found for found in store._native.matrices()}
        if key not in matrices:
            # Raises, and names what there is.
            store._native.check_matrix(key)
        self._about = matrices[key]

    @property
    def shape(self) -> tuple[int, int]:
        """Cells and genes."""
        return self._store.n_obs, self._about["n_vars"]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type in which values are stored."""
        return np.dtype(_DTYPES[self._about["dtype"]])

    @property
    def nnz(self) -> int | None:
        """Stored values; nothing where that is not known without reading."""
        nnz: int | None = self._about["nnz"]
        return nnz

    @property
    def encoding(self) -> str:
        """How it is laid out: ``"csr"``, ``"csc"`` or ``"dense"``."""
        return str(self._about["encoding"])

    @property
    def var_names(self) -> NDArray[np.object_]:
        """The names of its genes."""
        return _objects(self._store._native.var_names(self._key))

    def __len__(self) -> int:
        return self._store.n_obs

    def read(self, rows: Rows = None) -> CsrArrays:
        """Read rows as three NumPy arrays.

        Parameters
        ----------
        rows
            A row number, a slice, a boolean mask over all cells, or row numbers in any order; all by
            default.

        Returns
        -------
        CsrArrays
            ``data``, ``indices``, ``indptr`` and the shape; the values in the type in which they are
            stored.
        """
        wanted = _rows(rows, self._store.n_obs)
        ascending, back = np.unique(wanted, return_inverse=True)
        arrays = self._store._native.read_rows(self._key, ascending.astype(np.uint64))
        self._store._warn()
        found = CsrArrays(*arrays, shape=(len(ascending), self._about["n_vars"]))
        if len(wanted) == len(ascending) and np.array_equal(back, np.arange(len(back))):
            return found
        return found.take(back)

    def __getitem__(self, rows: Rows) -> Any:
        """Rows as a ``scipy.sparse.csr_matrix``, as AnnData gives them."""
        return self.read(rows).to_scipy()

    def __repr__(self) -> str:
        n, m = self.shape
        return f"<{self._key}: {n} x {m}, {self.encoding}, {self.dtype}; index it with rows>"


class Layers(Mapping[str, Matrix]):
    """The layers of a store, by name."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def _names(self) -> list[str]:
        keys = [m["key"] for m in self._store._native.matrices()]
        return [k.removeprefix("layers/") for k in keys if k.startswith("layers/")]

    def __getitem__(self, name: str) -> Matrix:
        return Matrix(self._store, f"layers/{name}")

    def __contains__(self, name: object) -> bool:
        return name in self._names()

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def __repr__(self) -> str:
        return f"Layers with names: {', '.join(self._names())}"


def _no_path(what: Any) -> TypeError:
    """What is said of something in memory that is given for a path."""
    message = f"path must be a path or a list of them, not {type(what).__name__}"
    file = getattr(what, "filename", None)
    if getattr(what, "isbacked", False) is True and file is not None:
        return TypeError(f"{message}; open its file, {os.fspath(file)!r}")
    return TypeError(f"{message}; cellfeed.CollectionLoader makes minibatches of what is in memory")


def _reopen(paths: list[str], options: dict[str, Any]) -> Store:
    return Store._of(paths, **options)


def _absolute(path: str) -> str:
    """The path from the root, ``~`` as in a shell; what is behind a # or a scheme stays."""
    return path if "://" in path else os.path.abspath(os.path.expanduser(path))


def _objects(values: Sequence[Any]) -> NDArray[np.object_]:
    out = np.empty(len(values), dtype=object)
    out[:] = values
    return out


def _rows(rows: Rows, n_obs: int) -> NDArray[np.int64]:
    """Row numbers of whatever rows are given as."""
    if rows is None:
        return np.arange(n_obs)
    if isinstance(rows, slice):
        return np.arange(*rows.indices(n_obs))
    if isinstance(rows, tuple):
        raise IndexError("only rows can be indexed; take genes of what comes back")
    found: NDArray[Any] = np.asarray(rows)
    if has_nullable(rows, found, "b"):
        if rows.isna().any():
            raise TypeError("the mask has missing values; mask.fillna(False) leaves these cells out")
        found = found.astype(bool)
    if found.dtype == np.bool_:
        if found.shape != (n_obs,):
            raise IndexError(f"the mask has shape {found.shape}, but there are {n_obs} cells")
        return np.flatnonzero(found)
    if found.size == 0:
        return np.empty(0, dtype=np.int64)
    if found.dtype.kind not in "iu":
        raise TypeError(f"rows must be numbers, a slice or a mask, not {found.dtype}")
    found = np.atleast_1d(found)
    if found.ndim != 1:
        raise IndexError("row numbers must have one dimension")
    low, high = int(found.min()), int(found.max())
    if low < -n_obs or high >= n_obs:
        bad = low if low < -n_obs else high
        raise IndexError(f"row {bad} does not exist; the store has {n_obs} cells")
    found = found.astype(np.int64)
    return np.where(found < 0, found + n_obs, found)


def _describe(store: Store) -> str:
    if store.closed:
        return f"Store {store._paths[0]}, closed"
    native = store._native
    n, m = store.shape
    where = store._paths[0] if len(store._paths) == 1 else f"{len(store._paths)} stores"
    size = sum(x["bytes"] for x in native.matrices())
    lines = [f"Store {where}"]
    made = f", written by {native.writer}" if native.writer else ""
    lines.append(f"    {show_count(n)} cells x {show_count(m)} genes, {native.format}{made}")
    for about in native.matrices():
        key, nnz = about["key"], about["nnz"]
        if about["unreadable"] is not None:
            lines.append(f"    {key}: cannot be read: {about['unreadable']}")
            continue
        dtype = _DTYPES[about["dtype"]]
        detail = f"{about['encoding']}, {dtype}"
        if nnz is not None and n:
            detail += f", {show_count(nnz)} non-zeros ({nnz / n:.0f} a cell)"
        lines.append(f"    {key}: {detail}")
    if size:
        lines[1] += f", {show_bytes(size)}"
    columns = native.obs_columns()
    if columns:
        shown = [name if why is None else f"{name} (unreadable)" for name, _, _, why in columns]
        more = f" and {len(shown) - 20} more" if len(shown) > 20 else ""
        lines.append(f"    obs: {', '.join(shown[:20])}{more}")
    return "\n".join(lines)
