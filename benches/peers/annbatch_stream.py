"""One epoch of annbatch over a collection in Zarr, in shuffled slices; prints JSON.

    python annbatch_stream.py COLLECTION.zarr [--slice-rows 512] [--slices 32] [--batch-size 64]
    python annbatch_stream.py COLLECTION.zarr --from-h5ad atlas.h5ad

As its documentation uses it on local disks: a Loader with shuffle=True and the codec pipeline of
zarrs-python, which gives SciPy CSR. X alone is read. `--slices` slices of `--slice-rows` rows are in
memory at a time, and minibatches are cut from these.
"""

import argparse
import importlib.metadata
import json
import resource
import time
import warnings

warnings.simplefilter("ignore")


def cpu_seconds():
    mine = resource.getrusage(resource.RUSAGE_SELF)
    return mine.ru_utime + mine.ru_stime


def peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def make(args):
    """The collection of one file, as annbatch makes it: shuffled, sharded, blosc-lz4."""
    import annbatch
    import anndata
    import numpy as np
    import zarr

    rng = np.random.default_rng(args.seed)
    collection = annbatch.DatasetCollection(zarr.open_group(args.collection, mode="w", zarr_format=3))
    collection.add_adatas(
        [args.from_h5ad], rng=rng, n_obs_per_chunk=args.chunk_rows, dataset_size=args.dataset_rows,
        # Everything in memory: it is a file of moderate size, and X is all that matters here.
        load_adata=lambda path: bare(anndata.read_h5ad(path)),
    )
    groups = [group["X"] for group in collection]
    print(json.dumps({
        "made": True,
        "datasets": len(groups),
        "inner_chunks": [group["data"].chunks for group in groups],
        "indices": str(groups[0]["indices"].dtype),
        "data": str(groups[0]["data"].dtype),
    }))


def bare(adata):
    import anndata

    return anndata.AnnData(adata.X, obs=adata.obs, var=adata.var[[]])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("collection")
    parser.add_argument("--slice-rows", type=int, default=512)
    parser.add_argument("--slices", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--seconds", type=float, default=0,
        help="stop after the slices in memory are used up, once so long has passed; 0: whole epoch",
    )
    parser.add_argument("--pipeline", choices=["zarrs", "zarr"], default="zarrs")
    parser.add_argument("--obs", action="store_true", help="all obs columns with each minibatch")
    parser.add_argument("--from-h5ad", help="make the collection of this file first, and stop")
    parser.add_argument("--chunk-rows", type=int, default=64, help="of an inner chunk, when made")
    parser.add_argument("--dataset-rows", type=int, default=2_000_000, help="when made")
    args = parser.parse_args()
    import zarr

    if args.pipeline == "zarrs":
        zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})
    if args.from_h5ad:
        make(args)
        return
    import annbatch
    import anndata
    import numpy as np

    def load(group):
        x = anndata.io.sparse_dataset(group["X"])
        if args.obs:
            return anndata.AnnData(x, obs=anndata.io.read_elem(group["obs"]))
        return anndata.AnnData(x)

    imported = peak_bytes()
    start = time.perf_counter()
    loader = annbatch.Loader(
        chunk_size=args.slice_rows, preload_nchunks=args.slices, batch_size=args.batch_size,
        shuffle=True, drop_last=False, preload_to_gpu=False, rng=np.random.default_rng(args.seed),
    ).use_collection(annbatch.DatasetCollection(args.collection, mode="r"), load_adata=load)
    open_seconds = time.perf_counter() - start
    window = args.slice_rows * args.slices
    cells = minibatches = nnz = 0
    total = 0.0
    first, elapsed, longest, last = None, 0.0, 0.0, 0.0
    cpu = cpu_seconds()
    start = time.perf_counter()
    for minibatch in loader:
        x = minibatch["X"]
        # Every value is touched, as a training step would.
        total += float(x.data.sum(dtype=np.float64))
        nnz += x.nnz
        cells += x.shape[0]
        minibatches += 1
        elapsed = time.perf_counter() - start
        first = elapsed if first is None else first
        longest, last = max(longest, elapsed - last), elapsed
        # Reading is done for all slices in memory at once: to stop in between would be unfair.
        if args.seconds and elapsed >= args.seconds and cells % window == 0:
            break
    used = cpu_seconds() - cpu
    print(json.dumps({
        "n_cells": cells,
        "n_minibatches": minibatches,
        "seconds": elapsed,
        "cells_per_second": cells / elapsed,
        "open_seconds": open_seconds,
        "first_minibatch_seconds": first,
        "longest_wait_seconds": longest,
        "cpu_seconds": used,
        "peak_rss_bytes": peak_bytes(),
        "rss_after_imports_bytes": imported,
        "sum": total,
        "nnz": nnz,
        "value_type": str(x.data.dtype),
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("annbatch", "anndata", "zarr", "zarrs", "numpy", "scipy")
        },
    }))


if __name__ == "__main__":
    main()
