"""Epochs of BioNeMo SCDL over a memory-mapped folder, in random order; prints JSON.

    python scdl_stream.py FOLDER [--batch-size 64] [--seconds 10]

As its documentation uses it: a torch DataLoader over SingleCellMemMapDataset with shuffle=True and
its own collate function, which gives torch sparse CSR tensors. No worker processes.
"""

import argparse
import json
import time

import measure


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder")
    measure.options(parser)
    parser.add_argument("--threads", type=int, default=1, help="of torch; more cost CPU, not time")
    parser.add_argument("--from-h5ad", help="make the folder of this file first, and stop")
    parser.add_argument("--labels-of", metavar="H5AD", help="with --label: where the labels are")
    args = parser.parse_args()

    import torch

    torch.set_num_threads(args.threads)
    shuffled = {"batch_size": args.batch_size, "shuffle": True}

    def generator():
        return torch.Generator().manual_seed(args.seed)

    if args.label:
        # Its collate function gives no labels; the order is torch's, whatever is ordered.
        labels = torch.as_tensor(measure.labels_of(args.labels_of, args.label).astype("i8"))
        loader = torch.utils.data.DataLoader(labels, generator=generator(), **shuffled)
        measure.entropy(loader, args.batch_size)
        return
    from bionemo.scdl.io.single_cell_memmap_dataset import SingleCellMemMapDataset
    from bionemo.scdl.util.torch_dataloader_utils import collate_sparse_matrix_batch

    if args.from_h5ad:
        SingleCellMemMapDataset(args.folder, h5ad_path=args.from_h5ad, use_X_not_raw=True)
        print(json.dumps({"made": True}))
        return
    imported = measure.peak_rss()
    start = time.perf_counter()
    dataset = SingleCellMemMapDataset(args.folder)
    opened = time.perf_counter() - start
    loader = torch.utils.data.DataLoader(
        dataset, collate_fn=collate_sparse_matrix_batch, generator=generator(), **shuffled
    )
    meter = measure.Meter(args, opened, imported)
    for minibatch in measure.epochs(args, loader):
        if meter.took(minibatch.shape[0], minibatch.values().numpy()):
            break
    meter.report("bionemo-scdl", "torch", "numpy")


if __name__ == "__main__":
    main()
