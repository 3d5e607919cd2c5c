"""Streams an .h5ad through anndata's AnnLoader and prints how it went as JSON.

As its documentation uses it on a file that is not in memory: a backed AnnData in an AnnCollection,
shuffle=True, which reads cells one by one in random order. X alone, and dense, as it comes.
"""

import argparse
import time
import warnings

import measure


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store")
    measure.options(parser)
    args = parser.parse_args()

    warnings.simplefilter("ignore")
    import anndata
    import numpy
    from anndata.experimental import AnnCollection, AnnLoader

    if args.label:
        import torch

        # It shuffles as torch's DataLoader does, by a generator that it does not let one seed.
        labels = torch.as_tensor(measure.labels_of(args.store, args.label).astype("i8"))
        loader = torch.utils.data.DataLoader(labels, batch_size=args.batch_size, shuffle=True)
        measure.entropy(loader, args.batch_size)
        return
    imported = measure.peak_rss()
    start = time.perf_counter()
    adata = anndata.read_h5ad(args.store, backed="r")
    adata.obs = adata.obs.iloc[:, :1]
    loader = AnnLoader(AnnCollection([adata]), batch_size=args.batch_size, shuffle=True)
    opened = time.perf_counter() - start
    meter = measure.Meter(args, opened, imported)
    for view in measure.epochs(args, loader):
        x = view.X
        values = x.to_dense().numpy() if hasattr(x, "to_dense") else numpy.asarray(x)
        if meter.took(x.shape[0], values, nnz=numpy.count_nonzero(values)):
            break
    meter.report("anndata", "torch")


if __name__ == "__main__":
    main()
