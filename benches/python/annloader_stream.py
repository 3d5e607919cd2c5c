"""Streams an .h5ad through anndata's AnnLoader and prints how it went as JSON.

As its documentation uses it on a file that is not in memory: a backed AnnData in an AnnCollection,
shuffle=True, which reads cells one by one in random order. X alone, every value summed up.
"""

import argparse
import importlib.metadata
import json
import time
import warnings

from cellfeed_stream import cpu_seconds, peak_rss


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=20, help="an epoch would take hours")
    args = parser.parse_args()

    warnings.simplefilter("ignore")
    import anndata
    import numpy
    from anndata.experimental import AnnCollection, AnnLoader

    adata = anndata.read_h5ad(args.store, backed="r")
    adata.obs = adata.obs.iloc[:, :1]
    loader = AnnLoader(AnnCollection([adata]), batch_size=args.batch_size, shuffle=True)
    cells = nnz = 0
    total = 0.0
    cpu = cpu_seconds()
    start = time.perf_counter()
    for view in loader:
        x = view.X
        values = x.to_dense().numpy() if hasattr(x, "to_dense") else numpy.asarray(x)
        total += float(values.sum(dtype=numpy.float64))
        nnz += int(numpy.count_nonzero(values))
        cells += x.shape[0]
        elapsed = time.perf_counter() - start
        if elapsed >= args.seconds:
            break
    report = {
        "n_cells": cells,
        "seconds": elapsed,
        "cells_per_second": cells / elapsed,
        "cpu_seconds": cpu_seconds() - cpu,
        "peak_rss_bytes": peak_rss(),
        "sum": total,
        "nnz": nnz,
        "versions": {"anndata": importlib.metadata.version("anndata")},
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
