"""cellfeed.scdataset beside scDataset itself, on one .h5ad; prints medians, and JSON with --out.

    python benches/python/scdataset_compat.py atlas.h5ad [--rounds 5] [--fetches 4]

Three loaders give the same minibatches in the same order: scDataset on an AnnCollection over backed
AnnData, cellfeed.scdataset on that, and cellfeed.scdataset on a store of Cellfeed. They take turns in
one process; a turn is the first fetches of an epoch, of which each round has another. Sums of all
values have to agree. Besides, orders alone are timed: all fetches of an epoch with data that cost
nothing. Needs scDataset, anndata, h5py, torch and cellfeed.
"""

import argparse
import json
import os
import statistics
import time
import warnings

import numpy as np

LOADERS = ("scDataset", "cellfeed.scdataset", "cellfeed.scdataset on a store")


def turn(dataset, fetches, matrix_of):
    """Seconds, CPU seconds, cells and sum of the first fetches of the next epoch."""
    minibatches = fetches * dataset.fetch_factor
    cells, total = 0, 0.0
    cpu, start = time.process_time(), time.perf_counter()
    for number, minibatch in enumerate(dataset, 1):
        matrix = matrix_of(minibatch)
        cells += matrix.shape[0]
        total += float(matrix.data.sum(dtype=np.float64))
        if number == minibatches:
            break
    return time.perf_counter() - start, time.process_time() - cpu, cells, total


def view_matrix(view):
    return view.X


def itself(x):
    return x


class Nothing:
    """A collection whose rows cost nothing."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return self.rows

    def __getitem__(self, rows):
        return rows


def time_orders(libraries, rows):
    """Seconds until the first minibatch and for a whole epoch, without any data."""
    found = {}
    for name, library in libraries.items():
        dataset = library.scDataset(
            Nothing(rows), library.BlockShuffling(16), 64, 256, batch_callback=lambda *_: None, seed=0
        )
        start = time.perf_counter()
        minibatches = iter(dataset)
        next(minibatches)
        first = time.perf_counter() - start
        for _ in minibatches:
            pass
        found[name] = {"first": first, "epoch": time.perf_counter() - start}
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--fetches", type=int, default=4)
    parser.add_argument("--fetch-factor", type=int, default=64)
    parser.add_argument("--order-rows", type=int, default=10_000_000)
    parser.add_argument("--out")
    args = parser.parse_args()

    warnings.simplefilter("ignore")
    import anndata
    import cellfeed
    import cellfeed.scdataset as ours
    import scdataset as theirs
    from anndata.experimental import AnnCollection

    adata = anndata.read_h5ad(args.store, backed="r")
    adata.obs = adata.obs.iloc[:, :1]
    collection = AnnCollection([adata])
    store = cellfeed.open(args.store)
    options = {"batch_size": 64, "fetch_factor": args.fetch_factor, "seed": 0}
    datasets = {
        LOADERS[0]: theirs.scDataset(
            collection, theirs.BlockShuffling(16), fetch_transform=view_matrix, **options
        ),
        LOADERS[1]: ours.scDataset(
            collection, ours.BlockShuffling(16), fetch_transform=view_matrix, **options
        ),
        LOADERS[2]: ours.scDataset(store.X, ours.BlockShuffling(16), **options),
    }
    results = {name: {"cells_per_second": [], "cpu_per_100k": []} for name in datasets}
    order = np.random.default_rng(0)
    for number in range(args.rounds + 1):
        sums = set()
        for which in order.permutation(len(LOADERS)):
            name = LOADERS[which]
            seconds, cpu, cells, total = turn(datasets[name], args.fetches, itself)
            sums.add((cells, total))
            # The first round warms the page cache.
            if number:
                results[name]["cells_per_second"].append(cells / seconds)
                results[name]["cpu_per_100k"].append(cpu / cells * 1e5)
        if len({cells for cells, _ in sums}) > 1 or np.ptp([total for _, total in sums]) > 1e-3:
            raise SystemExit(f"the loaders do not agree: {sums}")
    orders = time_orders({"scDataset": theirs, "cellfeed.scdataset": ours}, args.order_rows)

    print(f"load {os.getloadavg()[0]:.1f}, {args.rounds} rounds of {args.fetches} fetches")
    print(f"{'':32}{'cells/s':>10}{'slowest..fastest':>20}{'CPU s/100k':>12}")
    for name, found in results.items():
        rates = found["cells_per_second"]
        spread = f"{min(rates):,.0f}..{max(rates):,.0f}"
        cpu = statistics.median(found["cpu_per_100k"])
        print(f"{name:32}{statistics.median(rates):>10,.0f}{spread:>20}{cpu:>12.2f}")
    for name, found in orders.items():
        print(
            f"{name}: order of {args.order_rows:,} rows alone, first minibatch after "
            f"{found['first']:.2f} s, epoch {found['epoch']:.2f} s"
        )
    if args.out:
        record = {"arguments": vars(args), "load": os.getloadavg(), "loaders": results}
        record["orders"] = orders
        with open(args.out, "w") as file:
            json.dump(record, file, indent=1)


if __name__ == "__main__":
    main()
