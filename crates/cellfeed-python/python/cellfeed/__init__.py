"""Quasi-random minibatches of single-cell data, straight from files that do not fit in memory.

>>> import cellfeed
>>> store = cellfeed.open("atlas.h5ad")  # doctest: +SKIP
>>> loader = cellfeed.Loader(store, batch_size=64, obs=["cell_type"])  # doctest: +SKIP
>>> for batch in loader:  # doctest: +SKIP
...     batch.X, batch.obs["cell_type"], batch.rows

`open` reads AnnData ``.h5ad`` and ``.zarr``, Parquet, raw CSR stores, 10x Genomics ``.h5`` and BioNeMo
SCDL folders, one or several as one. `Loader` yields minibatches; `cellfeed.torch.CellDataset` is the
same as a dataset of PyTorch, and `CollectionLoader` takes what is no file. `diversity` says how mixed
minibatches are, `tune` which options are the fastest that mix enough. NumPy is all that is needed; PyTorch, SciPy and pandas are imported where
they are asked for.
"""

from ._batch import Batch, CsrArrays
from ._collection import CollectionIterator, CollectionLoader
from ._convert import Converted, convert
from ._diversity import Diversity, ExpectedDiversity, diversity
from ._errors import NotFoundError
from ._loader import Loader, LoaderIterator
from ._native import __version__
from ._store import Matrix, Store, open
from ._strategies import (
    BlockShuffling,
    BlockWeighted,
    ClassBalanced,
    Strategy,
    StratifiedBlockShuffling,
    Streaming,
    TrueRandom,
)
from ._tune import Tuned, tune

__all__ = [
    "Batch",
    "BlockShuffling",
    "BlockWeighted",
    "ClassBalanced",
    "CollectionIterator",
    "CollectionLoader",
    "Converted",
    "CsrArrays",
    "Diversity",
    "ExpectedDiversity",
    "Loader",
    "LoaderIterator",
    "Matrix",
    "NotFoundError",
    "Store",
    "StratifiedBlockShuffling",
    "Strategy",
    "Streaming",
    "TrueRandom",
    "Tuned",
    "__version__",
    "convert",
    "diversity",
    "open",
    "tune",
]
