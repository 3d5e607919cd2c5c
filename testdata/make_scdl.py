"""Writes the BioNeMo SCDL test folders and their oracles into testdata/scdl/.

    python make_scdl.py [DIR]

Needs bionemo-scdl 0.1.3 and what it brings. Rows are partly unsorted, as SCDL takes them from its
source; one folder holds 16-bit counts, one 32-bit floats.
"""

import json
import pathlib
import shutil
import sys
import tempfile

import anndata
import numpy as np
import scipy.sparse as sp
from bionemo.scdl.io.single_cell_memmap_dataset import SingleCellMemMapDataset


def matrix(seed, fractions):
    rng = np.random.default_rng(seed)
    dense = rng.poisson(0.4, (31, 23)).astype(np.float32)
    dense[4] = 0
    dense[7, 3] = 300
    if fractions:
        dense[dense > 0] += rng.random((dense > 0).sum()).astype(np.float32)
    x = sp.csr_matrix(dense)
    for row in (2, 9):
        # The other way round.
        span = slice(x.indptr[row], x.indptr[row + 1])
        x.indices[span] = x.indices[span][::-1].copy()
        x.data[span] = x.data[span][::-1].copy()
    return x


def main():
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parent / "scdl"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for name, seed, dtype in (("counts-u16", 1, "uint16"), ("floats-f32", 2, "float32")):
        x = matrix(seed, dtype == "float32")
        with tempfile.TemporaryDirectory() as folder:
            source = pathlib.Path(folder) / "a.h5ad"
            anndata.AnnData(x).write_h5ad(source)
            SingleCellMemMapDataset(out / name, h5ad_path=source, data_dtype=dtype, use_X_not_raw=True)
        dense = np.asarray(x.todense())
        (out / f"{name}.rows.json").write_text(json.dumps({
            "n_obs": dense.shape[0], "n_vars": dense.shape[1], "writer": "bionemo-scdl 0.1.3",
            "rows": [[float(v) for v in row] for row in dense],
        }) + "\n")


if __name__ == "__main__":
    main()
