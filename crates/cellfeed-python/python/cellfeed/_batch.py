"""Minibatches, and the forms in which their matrix comes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ._optional import need

if TYPE_CHECKING:
    from numpy.typing import NDArray

OUTPUTS = ("numpy", "torch", "scipy")
LAYOUTS = ("csr", "dense")


class CsrArrays:
    """A matrix in compressed sparse rows, as three NumPy arrays under the names that AnnData uses.

    Attributes
    ----------
    data
        The values, row after row.
    indices
        The gene of each value, ascending in each row.
    indptr
        Where each row begins in these two; one more than there are rows.
    shape
        Cells and genes.
    """

    __slots__ = ("data", "indices", "indptr", "shape")

    def __init__(
        self,
        data: NDArray[Any],
        indices: NDArray[Any],
        indptr: NDArray[Any],
        *,
        shape: tuple[int, int],
    ) -> None:
        self.data = data
        self.indices = indices
        self.indptr = indptr
        self.shape = shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the values."""
        return self.data.dtype

    @property
    def nnz(self) -> int:
        """How many values there are."""
        return len(self.data)

    def __len__(self) -> int:
        return self.shape[0]

    def to_dense(self) -> NDArray[Any]:
        """All values, as an array of shape (cells, genes)."""
        out = np.zeros(self.shape, dtype=self.data.dtype)
        rows = np.repeat(np.arange(self.shape[0]), np.diff(self.indptr))
        out[rows, self.indices] = self.data
        return out

    def to_scipy(self) -> Any:
        """A ``scipy.sparse.csr_matrix`` of the same arrays."""
        sparse = need("scipy.sparse", "a SciPy matrix")
        arrays = (self.data, self.indices, self.indptr)
        return sparse.csr_matrix(arrays, shape=self.shape, copy=False)

    def to_torch(self) -> Any:
        """A sparse CSR tensor of PyTorch of the same arrays."""
        torch = need("torch", "a tensor")
        with warnings.catch_warnings():
            # That the layout is in beta is known, and said once by whoever asks PyTorch for it.
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
            return torch.sparse_csr_tensor(
                torch.from_numpy(self.indptr),
                torch.from_numpy(self.indices),
                torch.from_numpy(self.data),
                size=self.shape,
                check_invariants=False,
            )

    def take(self, rows: NDArray[Any]) -> CsrArrays:
        """Rows of it, in any order and as often as they are asked for."""
        lengths = np.diff(self.indptr)[rows]
        indptr = np.zeros(len(rows) + 1, dtype=self.indptr.dtype)
        np.cumsum(lengths, out=indptr[1:])
        # The place of each value: where its row begins, and how far into the row it is.
        at = np.repeat(self.indptr[rows] - indptr[:-1], lengths) + np.arange(indptr[-1])
        return CsrArrays(
            self.data[at], self.indices[at], indptr, shape=(len(rows), self.shape[1])
        )

    def __getitem__(self, rows: slice) -> CsrArrays:
        if not isinstance(rows, slice):
            raise TypeError("CsrArrays are cut by slices of rows; use take or to_scipy for more")
        start, stop, step = rows.indices(self.shape[0])
        if step != 1:
            return self.take(np.arange(start, stop, step))
        stop = max(start, stop)
        first, last = self.indptr[start], self.indptr[stop]
        shape = (stop - start, self.shape[1])
        indptr = self.indptr[start : stop + 1] - first
        return CsrArrays(self.data[first:last], self.indices[first:last], indptr, shape=shape)

    def __repr__(self) -> str:
        n, m = self.shape
        return f"<CsrArrays: {n} x {m}, {self.nnz} values of {self.dtype}>"


class Batch:
    """A minibatch.

    Attributes
    ----------
    X
        The matrix, of shape (cells, genes), in the loader's layout and output.
    obs
        The obs columns that were asked for, by name. Of categorical columns integer codes, -1 where there
        is no value: ``store.obs_categories(name)`` has what they mean. Text is an array of ``str``.
    rows
        The row number in the store of each cell.
    epoch, number
        The epoch, and which of its minibatches this is.
    """

    __slots__ = ("X", "obs", "rows", "epoch", "number")

    def __init__(
        self, X: Any, obs: dict[str, Any], rows: Any, epoch: int = 0, number: int = 0
    ) -> None:
        self.X = X
        self.obs = obs
        self.rows = rows
        self.epoch = epoch
        self.number = number

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, cells: slice) -> Batch:
        """Some of the cells, next to each other."""
        if not isinstance(cells, slice):
            raise TypeError("a minibatch is cut by slices of cells")
        obs = {name: values[cells] for name, values in self.obs.items()}
        return Batch(cut(self.X, cells), obs, self.rows[cells], self.epoch, self.number)

    def _map(self, change: Callable[[Any], Any]) -> Batch:
        """The same with every tensor changed."""

        def only(value: Any) -> Any:
            return change(value) if hasattr(value, "pin_memory") else value

        obs = {name: only(values) for name, values in self.obs.items()}
        return Batch(only(self.X), obs, only(self.rows), self.epoch, self.number)

    def to(self, device: Any, *, non_blocking: bool = False) -> Batch:
        """The minibatch with its tensors on a device; what is no tensor stays."""
        return self._map(lambda t: t.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """The minibatch with its tensors in page-locked memory, from which copies to a GPU are quicker."""
        return self._map(_pin)

    def __repr__(self) -> str:
        shape = "x".join(str(n) for n in getattr(self.X, "shape", ()))
        columns = f", obs {', '.join(self.obs)}" if self.obs else ""
        kind = type(self.X).__name__
        return f"<Batch {self.number} of epoch {self.epoch}: {shape} {kind}{columns}>"


def _pin(tensor: Any) -> Any:
    import torch

    if tensor.layout is not torch.sparse_csr:
        return tensor.pin_memory()
    parts = (tensor.crow_indices(), tensor.col_indices(), tensor.values())
    crow, col, values = (part.pin_memory() for part in parts)
    return torch.sparse_csr_tensor(crow, col, values, size=tensor.shape, check_invariants=False)


def cut(x: Any, rows: slice) -> Any:
    """Rows of a matrix that are next to each other."""
    if getattr(x, "layout", None) is not None and str(x.layout) == "torch.sparse_csr":
        start, stop, _ = rows.indices(x.shape[0])
        crow = x.crow_indices()[start : stop + 1].numpy()
        first, last = int(crow[0]), int(crow[-1])
        data, indices = x.values()[first:last].numpy(), x.col_indices()[first:last].numpy()
        return CsrArrays(data, indices, crow - first, shape=(stop - start, x.shape[1])).to_torch()
    return x[rows]


class Maker:
    """Makes minibatches of what the native part gives, in the form that was asked for."""

    def __init__(self, output: str, layout: str, n_vars: int, obs: Sequence[str], pin: bool) -> None:
        self.output = output
        self.layout = layout
        self.n_vars = n_vars
        self.obs = list(obs)
        self.pin = pin
        # A missing package is told at once, not in the first minibatch.
        if output == "torch":
            self._tensor = need("torch", 'output="torch"').from_numpy
        if output == "scipy":
            need("scipy.sparse", 'output="scipy"')

    def __call__(
        self,
        x: tuple[NDArray[Any], ...],
        rows: NDArray[np.int64],
        obs: Sequence[Any],
        epoch: int,
        number: int,
    ) -> Batch:
        columns = dict(zip(self.obs, obs))
        for name, values in columns.items():
            if isinstance(values, list):
                array = np.empty(len(values), dtype=object)
                array[:] = values
                columns[name] = array
        if len(x) == 1:
            matrix: Any = x[0]
        else:
            matrix = CsrArrays(*x, shape=(len(rows), self.n_vars))
        if self.output == "scipy":
            if len(x) != 1:
                matrix = matrix.to_scipy()
            return Batch(matrix, columns, rows, epoch, number)
        if self.output == "numpy":
            return Batch(matrix, columns, rows, epoch, number)
        tensor = self._tensor
        for name, values in columns.items():
            if values.dtype != object:
                columns[name] = tensor(values)
        matrix = tensor(matrix) if len(x) == 1 else matrix.to_torch()
        batch = Batch(matrix, columns, tensor(rows), epoch, number)
        return batch.pin_memory() if self.pin else batch
