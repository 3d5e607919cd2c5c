"""Streams a store through cellfeed.Loader and prints how it went as JSON.

Minibatches are X alone, and every value is summed up, as `cellfeed stream` and the scripts of the peers
do. Of the CPU time, `summing_seconds` went into the sums, which NumPy makes slower than Rust, and
`loop_seconds` is all else that the thread that iterates did: what the loop costs in Python.
"""

import argparse
import importlib.metadata
import json
import os
import time


def peak_rss():
    """The most resident memory of this process so far, in bytes."""
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def cpu_seconds():
    times = os.times()
    return times.user + times.system


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--strategy", default="block-shuffling", help="as the peers shuffle")
    parser.add_argument("--block-size", type=int, default=16)
    parser.add_argument("--fetch-factor", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--layout", choices=["csr", "dense"], default="csr")
    parser.add_argument("--output", choices=["numpy", "torch", "scipy"], default="scipy")
    parser.add_argument("--epochs", type=int, default=1)
    args = parser.parse_args()

    import numpy

    import cellfeed

    rss_after_imports = peak_rss()
    start = time.perf_counter()
    loader = cellfeed.Loader(
        args.store,
        batch_size=args.batch_size,
        strategy=args.strategy,
        block_size=args.block_size,
        fetch_factor=args.fetch_factor,
        seed=args.seed,
        layout=args.layout,
        output=args.output,
    )
    open_seconds = time.perf_counter() - start
    cells = minibatches = nnz = 0
    total = summing = 0.0
    first = None
    cpu, own = cpu_seconds(), time.thread_time()
    start = time.perf_counter()
    for _ in range(args.epochs):
        for batch in loader:
            x = batch.X
            if args.output == "torch":
                values = (x if args.layout == "dense" else x.values()).numpy()
            else:
                values = x if args.layout == "dense" else x.data
            before = time.thread_time()
            total += float(values.sum(dtype=numpy.float64))
            summing += time.thread_time() - before
            nnz += int(values.size)
            cells += len(batch)
            minibatches += 1
            first = time.perf_counter() - start if first is None else first
    elapsed = time.perf_counter() - start
    own = time.thread_time() - own
    report = {
        "n_cells": cells,
        "n_minibatches": minibatches,
        "seconds": elapsed,
        "cells_per_second": cells / elapsed,
        "open_seconds": open_seconds,
        "first_minibatch_seconds": first,
        "cpu_seconds": cpu_seconds() - cpu,
        "summing_seconds": summing,
        "loop_seconds": own - summing,
        "peak_rss_bytes": peak_rss(),
        "rss_after_imports_bytes": rss_after_imports,
        "sum": total,
        "nnz": nnz,
        "value_type": str(values.dtype),
        "versions": {"cellfeed (Python)": importlib.metadata.version("cellfeed")},
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
