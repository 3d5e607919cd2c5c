#!/usr/bin/env python3
"""Whether other tools read what `cellfeed convert` writes, and read the same.

    python3 check_written.py SOURCE.h5ad WRITTEN...

Each WRITTEN (.h5ad, .zarr, .csr) was converted from SOURCE. It is opened with Python anndata or numpy, and compared with what anndata reads from SOURCE. Needs anndata 0.12 or later and zarr 3.
Prints what was compared; exits 1 at the first difference.
"""

import pathlib
import sys

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp


def fail(where, what):
    sys.exit(f"{where}: {what}")


def same_matrix(where, a, b):
    a, b = (m if sp.issparse(m) else sp.csr_matrix(np.asarray(m)) for m in (a, b))
    a, b = a.tocsr().astype(np.float64), b.tocsr().astype(np.float64)
    a.sort_indices()
    b.sort_indices()
    if a.shape != b.shape:
        fail(where, f"shapes {a.shape} and {b.shape}")
    # Explicit zeros may come of dense sources or not; values may not differ.
    a.eliminate_zeros()
    b.eliminate_zeros()
    equal = (
        np.array_equal(a.indptr, b.indptr)
        and np.array_equal(a.indices, b.indices)
        and np.array_equal(a.data, b.data, equal_nan=True)
    )
    if not equal:
        fail(where, "values differ")


def same_frame(where, a, b):
    if list(a.columns) != list(b.columns):
        fail(where, f"columns {list(a.columns)} and {list(b.columns)}")
    if list(map(str, a.index)) != list(map(str, b.index)):
        fail(where, "names differ")
    for name in a.columns:
        left, right = a[name], b[name]
        if isinstance(left.dtype, pd.CategoricalDtype) != isinstance(right.dtype, pd.CategoricalDtype):
            fail(f"{where}/{name}", f"{left.dtype} and {right.dtype}")
        if isinstance(left.dtype, pd.CategoricalDtype):
            categories = [list(map(str, c.cat.categories)) for c in (left, right)]
            if categories[0] != categories[1] or left.cat.ordered != right.cat.ordered:
                fail(f"{where}/{name}", "categories differ")
            if list(left.cat.codes) != list(right.cat.codes):
                fail(f"{where}/{name}", "codes differ")
            continue
        missing = [list(pd.isna(c)) for c in (left, right)]
        if missing[0] != missing[1]:
            fail(f"{where}/{name}", "missing values differ")
        for row, (x, y, gone) in enumerate(zip(left, right, missing[0])):
            if not gone and x != y:
                fail(f"{where}/{name}", f"row {row} has {x!r} and {y!r}")


def same_tree(where, a, b):
    if isinstance(a, dict):
        if set(a) != set(b):
            fail(where, f"members {sorted(a)} and {sorted(b)}")
        for key in a:
            same_tree(f"{where}/{key}", a[key], b[key])
    elif isinstance(a, pd.DataFrame):
        same_frame(where, a, b)
    elif sp.issparse(a):
        same_matrix(where, a, b)
    elif isinstance(a, np.ndarray) and a.dtype.kind in "fc":
        if not np.array_equal(a, np.asarray(b), equal_nan=True):
            fail(where, "values differ")
    elif isinstance(a, (np.ndarray, list, tuple)):
        if list(map(str, np.ravel(a))) != list(map(str, np.ravel(b))):
            fail(where, "values differ")
    elif a != b and not (a != a and b != b):
        fail(where, f"{a!r} and {b!r}")


def same_anndata(where, a, b):
    if (a.X is None) != (b.X is None):
        fail(where, "only one has X")
    if a.X is not None:
        same_matrix(f"{where}: X", a.X, b.X)
    if set(a.layers) != set(b.layers):
        fail(where, f"layers {sorted(a.layers)} and {sorted(b.layers)}")
    for name in a.layers:
        same_matrix(f"{where}: layers/{name}", a.layers[name], b.layers[name])
    if (a.raw is None) != (b.raw is None):
        fail(where, "only one has raw")
    if a.raw is not None:
        same_matrix(f"{where}: raw/X", a.raw.X, b.raw.X)
        same_frame(f"{where}: raw/var", a.raw.var, b.raw.var)
    same_frame(f"{where}: obs", a.obs, b.obs)
    same_frame(f"{where}: var", a.var, b.var)
    for part in ("obsm", "varm", "obsp", "varp"):
        left, right = (dict(getattr(x, part)) for x in (a, b))
        same_tree(f"{where}: {part}", left, right)
    same_tree(f"{where}: uns", dict(a.uns), dict(b.uns))


def check_csr(path, source):
    """The arrays of the raw CSR format, read by numpy as docs/csr-format.md says."""
    import reader_csr

    same_matrix(f"{path.name}: X", source.X, reader_csr.read(path))


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    source = anndata.read_h5ad(sys.argv[1])
    for name in sys.argv[2:]:
        path = pathlib.Path(name)
        if path.suffix == ".h5ad":
            same_anndata(path.name, source, anndata.read_h5ad(path))
        elif path.suffix == ".zarr":
            same_anndata(path.name, source, anndata.read_zarr(path))
        elif path.suffix == ".csr":
            check_csr(path, source)
        else:
            fail(name, "no tool is known that reads this")
        print(f"{path.name}: read by other tools, and the same as {pathlib.Path(sys.argv[1]).name}")


if __name__ == "__main__":
    main()
