"""Conversion between formats."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from . import _native, _work
from ._options import names_of, whole
from ._remote import remote_options
from ._sizes import parse_bytes, show_bytes, show_count
from ._store import Join, Store, _absolute, open


@dataclass(frozen=True)
class Converted:
    """What a conversion did.

    Attributes
    ----------
    path, format
        What was written.
    n_obs, n_vars, nnz, bytes
        Cells, genes of ``X``, stored values of all matrices, and bytes on disk.
    n_vars_of_each
        Genes that the source had; of several, each of them, of which a join keeps ``n_vars``.
    left_out
        What is not in it, and why.
    missing_genes
        Genes that were asked for and are not there.
    """

    path: str
    format: str
    n_obs: int
    n_vars: int
    n_vars_of_each: tuple[int, ...]
    nnz: int
    bytes: int
    left_out: tuple[tuple[str, str], ...]
    missing_genes: tuple[str, ...]

    def __repr__(self) -> str:
        left = f", {len(self.left_out)} elements left out" if self.left_out else ""
        missing = f", {len(self.missing_genes)} genes missing" if self.missing_genes else ""
        had = ", ".join(map(show_count, self.n_vars_of_each))
        had = f" of {had}" if set(self.n_vars_of_each) - {self.n_vars} else ""
        return (
            f"<Converted {self.path}: {self.format}, {show_count(self.n_obs)} cells x "
            f"{show_count(self.n_vars)}{had} genes, "
            f"{show_count(self.nnz)} non-zeros, {show_bytes(self.bytes)}{left}{missing}>"
        )


def convert(
    source: Store | str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    destination: str | os.PathLike[str],
    *,
    format: Literal["h5ad", "zarr", "parquet", "csr"] | None = None,
    codec: str | None = None,
    chunk_rows: int | None = None,
    shuffle: bool = False,
    seed: int = 0,
    layers: Iterable[str] | None = None,
    raw: bool = True,
    obs: Iterable[str] | None = None,
    genes: Iterable[str] | None = None,
    join: Join = "inner",
    memory: int | str = "2GiB",
    threads: int | None = None,
    overwrite: bool = False,
    staging: str | os.PathLike[str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> Converted:
    """Convert a store into another format.

    The destination appears when it is complete: what is interrupted leaves nothing behind. It may be in a
    bucket: then it is put together on this machine and uploaded, which is tried before the work begins.

    Parameters
    ----------
    source
        A store, or what `cellfeed.open` takes; several become one.
    destination
        The store to write, a path or a URL such as ``"s3://bucket/atlas.zarr"`` (``gs://``, ``az://``). Its
        ending is its format: ``.h5ad``, ``.zarr``, ``.parquet`` or ``.csr``.
    format
        The format, whatever the ending.
    codec
        How values are compressed, in the format's own words, as ``cellfeed convert --help`` lists them:
        ``"packed"`` for ``.csr``, ``"gzip"`` for ``.h5ad``, ``"zstd:5"`` for ``.zarr``.
    chunk_rows
        Cells in one chunk, about.
    shuffle
        Whether all cells are put in random order.
    seed
        The seed of that order.
    layers
        The layers to keep; all by default.
    raw
        Whether ``raw`` is kept.
    obs
        The obs columns to keep; all by default.
    genes
        The names of the genes to keep, in the order of the store; all by default.
    join
        As in `cellfeed.open`.
    memory
        Bytes for rows that are read and written, as a number or as ``"2GiB"``.
    threads
        Threads; one per core by default.
    overwrite
        Whether a destination that exists is replaced, once the new one is complete. In a bucket, a store
        of many files is removed then, and the new one opens when it is uploaded.
    staging
        The folder in which a store for a bucket is put together, which takes as much as the store; the
        system's for what is temporary by default.
    storage_options
        Settings of the object stores that source and destination are in, as in `cellfeed.open`.
    progress
        Whether to show a progress bar, if tqdm is installed.

    Returns
    -------
    Converted
        What was written, and what was left out.
    """
    if not isinstance(source, Store):
        source = open(source, join=join, threads=threads, storage_options=storage_options)
    source = source._with_threads(threads)
    work = _native.convert(
        source._native,
        _absolute(os.fspath(destination)),
        format=format,
        codec=codec,
        chunk_rows=None if chunk_rows is None else whole("chunk_rows", chunk_rows, 1),
        shuffle=whole("seed", seed, 0) if shuffle else None,
        layers=None if layers is None else names_of(layers, "layers"),
        raw=bool(raw),
        obs=None if obs is None else names_of(obs, "obs"),
        genes=None if genes is None else names_of(genes, "genes"),
        memory=parse_bytes(memory, "memory"),
        overwrite=bool(overwrite),
        staging=None if staging is None else os.path.abspath(os.fspath(staging)),
        remote=remote_options(storage_options, None, None, None, None, None, None),
    )
    done = _work.run(work, progress, " cells")
    done["left_out"] = tuple(tuple(pair) for pair in done["left_out"])
    done["n_vars_of_each"] = tuple(done["n_vars_of_each"])
    done["missing_genes"] = tuple(done["missing_genes"])
    return Converted(path=os.fspath(destination), **done)
