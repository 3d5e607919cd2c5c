"""Streams an .h5ad through scDataset as its documentation says, and prints how it went as JSON.

The collection is an AnnCollection over a backed AnnData, with one obs column, as in scDataset's own
benchmarks; minibatches are X alone, as those of `cellfeed stream` are unless asked. For CSR the
fetch is turned into one scipy matrix, of which minibatches are row subsets; for dense, scDataset's
`adata_to_mindex` is used. Every value of a minibatch is summed up, as `cellfeed stream` does. Run
by compare_h5ad.py in the environment of requirements.txt.
"""

import argparse
import importlib.metadata
import json
import os
import resource
import time
import warnings


def peak_rss():
    """The most resident memory of this process so far, in bytes."""
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def cpu_seconds():
    """CPU seconds of this process and of worker processes that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--block-size", type=int, default=16)
    parser.add_argument("--fetch-factor", type=int, default=256)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--layout", choices=["csr", "dense"], default="csr")
    parser.add_argument("--seconds", type=float, default=0, help="0: one whole epoch")
    args = parser.parse_args()

    warnings.simplefilter("ignore", FutureWarning)
    import anndata
    import numpy
    from anndata.experimental import AnnCollection
    from scdataset import BlockShuffling, scDataset
    from scdataset.transforms import adata_to_mindex
    from torch.utils.data import DataLoader

    rss_after_imports = peak_rss()
    start = time.perf_counter()
    adata = anndata.read_h5ad(args.store, backed="r")
    # One column, as there: without any, to_adata() refuses to make an AnnData.
    adata.obs = adata.obs.iloc[:, :1]
    collection = AnnCollection([adata])
    open_seconds = time.perf_counter() - start

    dataset = scDataset(
        collection,
        BlockShuffling(block_size=args.block_size),
        batch_size=args.batch_size,
        fetch_factor=args.fetch_factor,
        fetch_transform=adata_to_mindex if args.layout == "dense" else lambda view: view.X,
        seed=args.seed,
    )
    options = {"num_workers": args.workers}
    if args.workers:
        # As its README recommends.
        options["prefetch_factor"] = args.fetch_factor + 1
    loader = DataLoader(dataset, batch_size=None, **options)

    cells = minibatches = nnz = epochs = 0
    total = 0.0
    first = None
    stop = False
    cpu = cpu_seconds()
    start = time.perf_counter()
    while not stop:
        for minibatch in loader:
            x = minibatch["X"] if args.layout == "dense" else minibatch
            values = x if args.layout == "dense" else x.data
            total += float(values.sum(dtype=numpy.float64))
            nnz += int(values.size)
            cells += x.shape[0]
            minibatches += 1
            elapsed = time.perf_counter() - start
            first = elapsed if first is None else first
            # Without workers only at the end of a fetch: the next minibatch would pay for all of
            # the next fetch.
            whole = args.workers or minibatches % args.fetch_factor == 0
            if args.seconds and whole and elapsed >= args.seconds:
                stop = True
                break
        else:
            elapsed = time.perf_counter() - start
            epochs += 1
            stop = elapsed >= args.seconds
    workers_rss = 0
    if args.workers:
        del loader
        workers_rss = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 * args.workers
    used = cpu_seconds() - cpu
    report = {
        "n_cells": cells,
        "n_minibatches": minibatches,
        "epochs": epochs,
        "seconds": elapsed,
        "cells_per_second": cells / elapsed,
        "open_seconds": open_seconds,
        "first_minibatch_seconds": first,
        "cpu_seconds": used,
        # With workers the largest counts for each.
        "peak_rss_bytes": peak_rss() + workers_rss,
        "rss_after_imports_bytes": rss_after_imports,
        "sum": total,
        "nnz": nnz,
        "value_type": str(values.dtype),
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("scdataset", "anndata", "torch", "numpy", "scipy", "h5py")
        },
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
