"""Ready-made hooks: what AnnData, Tahoe-100M and BioNeMo give, as arrays and tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from .multiindexable import MultiIndexable

__all__ = ["adata_to_mindex", "bionemo_to_tensor", "hf_tahoe_to_tensor"]


def adata_to_mindex(batch: Any, columns: Sequence[str] | None = None) -> MultiIndexable:
    """Turn rows of an AnnData, or of a collection of these, into X and columns of obs.

    A ``fetch_transform``.

    Parameters
    ----------
    batch : AnnData, a view of an AnnCollection, or rows of a store of Cellfeed
        Rows, in memory or backed.
    columns : sequence of str, optional
        Columns of obs; none by default.

    Returns
    -------
    MultiIndexable
        ``X``, dense, and each column by its name.

    Raises
    ------
    ValueError
        If there is no X, or a column is called ``X`` too.
    KeyError
        If there is no such column.
    """
    matrix = batch.X
    if matrix is None:
        raise ValueError("the AnnData has no X")
    if hasattr(matrix, "to_memory"):
        matrix = matrix.to_memory()
    if hasattr(matrix, "toarray"):
        matrix = matrix.toarray()
    modalities: dict[str, Any] = {"X": np.asarray(matrix)}
    for column in [columns] if isinstance(columns, str) else columns or []:
        if column == "X":
            raise ValueError("the obs column X would take the place of the matrix: rename it")
        values = batch.obs[column]
        modalities[column] = getattr(values, "values", values)
    return MultiIndexable(modalities)


def hf_tahoe_to_tensor(batch: Any, num_genes: int = 62713) -> torch.Tensor:
    """Turn rows as Tahoe-100M is published on Hugging Face into a dense tensor.

    A ``fetch_transform``.

    Parameters
    ----------
    batch : dict of lists, or list of dicts
        With ``genes``, the numbers of the genes of each cell, and ``expressions``, their values.
    num_genes : int, default 62713
        Columns of the tensor.

    Returns
    -------
    torch.Tensor of float32, cells x num_genes

    Raises
    ------
    ValueError
        If `batch` is neither, or a cell has not as many genes as expressions.
    IndexError
        If a gene's number is not within `num_genes`.
    """
    if isinstance(batch, dict):
        genes, values = batch["genes"], batch["expressions"]
    elif isinstance(batch, list):
        genes = [cell["genes"] for cell in batch]
        values = [cell["expressions"] for cell in batch]
    else:
        raise ValueError(
            "batch must be a dictionary or a list of dictionaries, with genes and expressions, "
            f"but is a {type(batch).__name__}"
        )
    lengths = np.fromiter((len(cell) for cell in genes), dtype=np.int64)
    others = np.fromiter((len(cell) for cell in values), dtype=np.int64)
    if not np.array_equal(lengths, others):
        raise ValueError("each cell must have as many genes as expressions")
    tensor = torch.zeros((len(lengths), num_genes), dtype=torch.float32)
    if not lengths.sum():
        return tensor
    columns = np.concatenate([np.asarray(cell) for cell in genes]).astype(np.int64)
    if columns.min() < 0 or columns.max() >= num_genes:
        worst = columns.min() if columns.min() < 0 else columns.max()
        raise IndexError(f"genes are numbered 0 to {num_genes - 1}, but one is {worst}")
    rows = np.repeat(np.arange(len(lengths)), lengths)
    filled = np.concatenate([np.asarray(cell) for cell in values])
    tensor.numpy()[rows, columns] = filled.astype(np.float32, copy=False)
    return tensor


def bionemo_to_tensor(
    data_collection: Any, idx: int | slice | Sequence[int] | np.ndarray[Any, Any] | torch.Tensor
) -> torch.Tensor:
    """Read rows of a BioNeMo `SingleCellMemMapDataset` as a dense tensor.

    A ``fetch_callback``.

    Parameters
    ----------
    data_collection : SingleCellMemMapDataset
        Each row is a tensor of two rows, the values and the numbers of their genes.
    idx : int, slice, or sequence of int or bool
        Which rows; negative numbers count from the end.

    Returns
    -------
    torch.Tensor of float32, rows x genes
        As wide as the collection says; for one that does not say, as the largest gene needs.

    Raises
    ------
    TypeError
        If `idx` is something else.
    IndexError
        If there is no such row.
    """
    rows = _row_numbers(idx, len(data_collection))
    cells = [np.asarray(data_collection[row]) for row in rows]
    genes = [cell[1].astype(np.int64) for cell in cells]
    width = _width(data_collection)
    if width is None:
        width = max((int(numbers.max()) + 1 for numbers in genes if numbers.size), default=0)
    dense = np.zeros((len(rows), width), dtype=np.float32)
    for row, (cell, numbers) in enumerate(zip(cells, genes, strict=True)):
        dense[row, numbers] = cell[0]
    return torch.from_numpy(dense)


def _row_numbers(idx: Any, length: int) -> list[int]:
    if isinstance(idx, slice):
        return list(range(*idx.indices(length)))
    if isinstance(idx, str) or not isinstance(
        idx, (int, np.integer, Sequence, np.ndarray, torch.Tensor)
    ):
        raise TypeError(f"Unsupported index type: {type(idx)}")
    numbers = np.atleast_1d(np.asarray(idx))
    if numbers.dtype == bool:
        if len(numbers) != length:
            raise IndexError(f"a mask of {len(numbers)} for {length} rows")
        numbers = np.flatnonzero(numbers)
    elif numbers.size and not np.issubdtype(numbers.dtype, np.integer):
        raise TypeError(f"rows are integers, not {numbers.dtype}")
    rows = []
    for number in numbers.tolist():
        if not -length <= number < length:
            raise IndexError(f"row {number} of {length}")
        rows.append(int(number) % length)
    return rows


def _width(data_collection: Any) -> int | None:
    if hasattr(data_collection, "number_of_variables"):
        return int(max(data_collection.number_of_variables(), default=0))
    shape = getattr(data_collection, "shape", None)
    if callable(shape):
        return int(max(np.atleast_1d(shape()[1]), default=0))
    if isinstance(shape, tuple) and len(shape) == 2:
        return int(shape[1])
    return None
