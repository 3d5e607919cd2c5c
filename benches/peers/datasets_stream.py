"""One epoch of Hugging Face datasets over Parquet shards of Tahoe-100M's layout; prints JSON.

    python datasets_stream.py FOLDER [--block-size 16] [--fetch-factor 256] [--batch-size 64]

The shards become a map-style dataset by `load_dataset("parquet")`, which writes them into an Arrow
cache once; that is timed by itself. Then blocks of neighbouring cells in random order are fetched,
sorted by row, turned into one SciPy CSR matrix of f32 by numpy (the marker dropped, tokens to columns),
and minibatches are random rows of it: block shuffling, as scDataset does it. `--access` says what
`dataset[rows]` gives: lists of Python numbers, as it does unless told otherwise; numpy arrays, one a cell; or
Arrow tables, the fastest that the library has.
"""

import argparse
import importlib.metadata
import json
import pathlib
import resource
import sys
import time


def cpu_seconds():
    mine = resource.getrusage(resource.RUSAGE_SELF)
    return mine.ru_utime + mine.ru_stime


def shards(folder):
    """The shards of cells below a folder."""
    found = sorted(pathlib.Path(folder).rglob("train-*.parquet"))
    if not found:
        sys.exit(f"no train-*.parquet below {folder}")
    return [str(path) for path in found]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--block-size", type=int, default=16)
    parser.add_argument("--fetch-factor", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--access", choices=["python", "numpy", "arrow"], default="python")
    parser.add_argument("--cache", help="where the Arrow cache is kept between runs")
    parser.add_argument("--prepare", action="store_true", help="make the Arrow cache, and stop")
    parser.add_argument("--seconds", type=float, default=0, help="0: one whole epoch")
    args = parser.parse_args()

    import datasets
    import numpy as np
    import pyarrow.parquet
    from scipy import sparse

    datasets.disable_progress_bars()
    folder = pathlib.Path(args.folder)
    start = time.perf_counter()
    dataset = datasets.load_dataset(
        "parquet", data_files=shards(folder), split="train", cache_dir=args.cache
    ).select_columns(["genes", "expressions"])
    if args.prepare:
        print(json.dumps({"made": True, "seconds": time.perf_counter() - start}))
        return
    metadata = next(folder.rglob("gene_metadata.parquet"))
    tokens = pyarrow.parquet.read_table(metadata, columns=["token_id"])["token_id"].to_numpy()
    columns = np.full(tokens.max() + 1, -1, dtype=np.int32)
    columns[tokens] = np.arange(len(tokens), dtype=np.int32)
    if args.access != "python":
        dataset = dataset.with_format(args.access)
    open_seconds = time.perf_counter() - start

    rng = np.random.default_rng(args.seed)
    n = len(dataset)
    starts = rng.permutation(np.arange(0, n, args.block_size))
    blocks = args.batch_size * args.fetch_factor // args.block_size
    cells = minibatches = nnz = 0
    total = 0.0
    first, elapsed = None, 0.0
    cpu = cpu_seconds()
    start = time.perf_counter()
    for k in range(0, len(starts), blocks):
        begins = np.sort(starts[k : k + blocks])
        rows = (begins[:, None] + np.arange(args.block_size)).ravel()
        fetched = dataset[rows[rows < n]]
        if args.access == "arrow":
            genes = fetched["genes"].combine_chunks()
            offsets = genes.offsets.to_numpy()
            offsets = offsets - offsets[0]
            tokens_of = genes.flatten().to_numpy()
            data_of = fetched["expressions"].combine_chunks().flatten().to_numpy()
        else:
            lengths = [len(cell) for cell in fetched["genes"]]
            offsets = np.concatenate([[0], np.cumsum(lengths)])
            tokens_of = np.concatenate([np.asarray(cell) for cell in fetched["genes"]])
            data_of = np.concatenate([np.asarray(cell) for cell in fetched["expressions"]])
        # The head of each cell is a marker.
        keep = np.ones(offsets[-1], dtype=bool)
        keep[offsets[:-1]] = False
        indices = columns[tokens_of[keep]]
        data = data_of[keep].astype(np.float32, copy=False)
        indptr = offsets - np.arange(len(offsets))
        x = sparse.csr_matrix((data, indices, indptr), shape=(len(offsets) - 1, len(tokens)))
        order = rng.permutation(x.shape[0])
        for j in range(0, len(order), args.batch_size):
            minibatch = x[order[j : j + args.batch_size]]
            # Every value is touched, as a training step would.
            total += float(minibatch.data.sum(dtype=np.float64))
            nnz += int(minibatch.nnz)
            cells += minibatch.shape[0]
            minibatches += 1
            elapsed = time.perf_counter() - start
            first = elapsed if first is None else first
        if args.seconds and elapsed >= args.seconds:
            break
    used = cpu_seconds() - cpu
    print(json.dumps({
        "n_cells": cells,
        "n_minibatches": minibatches,
        "seconds": elapsed,
        "cells_per_second": cells / elapsed,
        "open_seconds": open_seconds,
        "first_minibatch_seconds": first,
        "cpu_seconds": used,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "sum": total,
        "nnz": nnz,
        "value_type": str(minibatch.data.dtype),
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("datasets", "pyarrow", "numpy", "scipy")
        },
    }))


if __name__ == "__main__":
    main()
