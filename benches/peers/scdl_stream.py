"""One epoch of BioNeMo SCDL over a memory-mapped folder, in random order; prints JSON.

    python scdl_stream.py FOLDER [--batch-size 64] [--seconds 10]

As its documentation uses it: a torch DataLoader over SingleCellMemMapDataset with shuffle=True and
its own collate function, which gives torch sparse CSR tensors. No worker processes.
"""

import argparse
import importlib.metadata
import json
import resource
import time


def cpu_seconds():
    mine = resource.getrusage(resource.RUSAGE_SELF)
    return mine.ru_utime + mine.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=0, help="0: one whole epoch")
    parser.add_argument("--threads", type=int, default=1, help="of torch; more cost CPU, not time")
    parser.add_argument("--from-h5ad", help="make the folder of this file first, and stop")
    args = parser.parse_args()

    import torch
    from bionemo.scdl.io.single_cell_memmap_dataset import SingleCellMemMapDataset
    from bionemo.scdl.util.torch_dataloader_utils import collate_sparse_matrix_batch

    torch.set_num_threads(args.threads)
    if args.from_h5ad:
        SingleCellMemMapDataset(args.folder, h5ad_path=args.from_h5ad, use_X_not_raw=True)
        print(json.dumps({"made": True}))
        return

    start = time.perf_counter()
    dataset = SingleCellMemMapDataset(args.folder)
    open_seconds = time.perf_counter() - start
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=args.batch_size, shuffle=True, collate_fn=collate_sparse_matrix_batch,
        generator=torch.Generator().manual_seed(args.seed),
    )
    cells = minibatches = nnz = 0
    total = 0.0
    first = None
    cpu = cpu_seconds()
    start = time.perf_counter()
    for minibatch in loader:
        values = minibatch.values()
        # Every value is touched, as a training step would.
        total += float(values.sum(dtype=torch.float64))
        nnz += values.numel()
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
        "versions": {
            name: importlib.metadata.version(name) for name in ("bionemo-scdl", "torch", "numpy")
        },
    }))


if __name__ == "__main__":
    main()
