"""Epochs of Hugging Face datasets over Parquet shards of Tahoe-100M's layout; prints JSON.

    python datasets_stream.py FOLDER [--block-size 16] [--fetch-factor 256] [--batch-size 64]

The shards become a map-style dataset by `load_dataset("parquet")`, which writes them into an Arrow
cache once; that is timed by itself. Then blocks of neighbouring cells in random order are fetched,
sorted by row, turned into one SciPy CSR matrix of f32 by numpy (the marker dropped, tokens to columns),
and minibatches are random rows of it: block shuffling, as scDataset does it. `--access` says what
`dataset[rows]` gives: lists of Python numbers, as it does unless told otherwise; numpy arrays, one a cell; or
Arrow tables, the fastest that the library has.
"""

import argparse
import json
import pathlib
import sys
import time

import measure


def shards(folder):
    """The shards of cells below a folder."""
    found = sorted(pathlib.Path(folder).rglob("train-*.parquet"))
    if not found:
        sys.exit(f"no train-*.parquet below {folder}")
    return [str(path) for path in found]


class Fetches:
    """The rows of each fetch of an epoch, sorted, and the same in the order of its minibatches."""

    def __init__(self, args, rng, n):
        self.args, self.rng, self.n = args, rng, n

    def __iter__(self):
        import numpy as np

        block_size = self.args.block_size
        starts = self.rng.permutation(np.arange(0, self.n, block_size))
        blocks = self.args.batch_size * self.args.fetch_factor // block_size
        for k in range(0, len(starts), blocks):
            begins = np.sort(starts[k : k + blocks])
            rows = (begins[:, None] + np.arange(block_size)).ravel()
            rows = rows[rows < self.n]
            yield rows, self.rng.permutation(rows)


def cut(rows, batch_size):
    return (rows[j : j + batch_size] for j in range(0, len(rows), batch_size))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder")
    measure.options(parser)
    parser.add_argument("--block-size", type=int, default=16)
    parser.add_argument("--fetch-factor", type=int, default=256)
    parser.add_argument("--access", choices=["python", "numpy", "arrow"], default="python")
    parser.add_argument("--cache", help="where the Arrow cache is kept between runs")
    parser.add_argument("--prepare", action="store_true", help="make the Arrow cache, and stop")
    parser.add_argument("--labels-of", metavar="H5AD", help="with --label: where the labels are")
    args = parser.parse_args()

    import datasets
    import numpy as np
    import pyarrow.parquet
    from scipy import sparse

    datasets.disable_progress_bars()
    folder = pathlib.Path(args.folder)
    rng = np.random.default_rng(args.seed)
    if args.label:
        labels = measure.labels_of(args.labels_of, args.label)
        orders = (order for _, order in Fetches(args, rng, len(labels)))
        measure.entropy(
            (labels[rows] for order in orders for rows in cut(order, args.batch_size)), args.batch_size
        )
        return
    imported = measure.peak_rss()
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
    opened = time.perf_counter() - start

    meter = measure.Meter(args, opened, imported)
    for rows, order in measure.epochs(args, Fetches(args, rng, len(dataset))):
        fetched = dataset[rows]
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
        # Where the rows lie in what was fetched.
        stop = False
        for part in cut(np.searchsorted(rows, order), args.batch_size):
            stop = meter.took(len(part), x[part].data)
        if stop:
            break
    meter.report("datasets", "pyarrow", "numpy", "scipy")


if __name__ == "__main__":
    main()
