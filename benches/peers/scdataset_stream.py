"""Streams an .h5ad through scDataset as its documentation says, and prints how it went as JSON.

The collection is an AnnCollection over a backed AnnData, with one obs column, as in scDataset's own
benchmarks; minibatches are X alone, as those of `cellfeed stream` are unless asked. For CSR the
fetch is turned into one scipy matrix, of which minibatches are row subsets; for dense, scDataset's
`adata_to_mindex` is used.
"""

import argparse
import time
import warnings

import measure


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store")
    measure.options(parser)
    parser.add_argument("--block-size", type=int, default=16)
    parser.add_argument("--fetch-factor", type=int, default=256)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--layout", choices=["csr", "dense"], default="csr")
    args = parser.parse_args()

    warnings.simplefilter("ignore", FutureWarning)
    import anndata
    from anndata.experimental import AnnCollection
    from scdataset import BlockShuffling, scDataset
    from scdataset.transforms import adata_to_mindex
    from torch.utils.data import DataLoader

    def dataset_of(collection, **how):
        return scDataset(
            collection, BlockShuffling(block_size=args.block_size), batch_size=args.batch_size,
            fetch_factor=args.fetch_factor, seed=args.seed, **how,
        )

    if args.label:
        # The order does not depend on what is ordered.
        labels = measure.labels_of(args.store, args.label)
        measure.entropy(DataLoader(dataset_of(labels), batch_size=None), args.batch_size)
        return
    imported = measure.peak_rss()
    start = time.perf_counter()
    adata = anndata.read_h5ad(args.store, backed="r")
    # One column, as there: without any, to_adata() refuses to make an AnnData.
    adata.obs = adata.obs.iloc[:, :1]
    collection = AnnCollection([adata])
    opened = time.perf_counter() - start

    dense = args.layout == "dense"
    dataset = dataset_of(
        collection, fetch_transform=adata_to_mindex if dense else lambda view: view.X
    )
    how = {"num_workers": args.workers}
    if args.workers:
        # As its README recommends.
        how["prefetch_factor"] = args.fetch_factor + 1
    loader = DataLoader(dataset, batch_size=None, **how)

    meter = measure.Meter(args, opened, imported, args.workers)
    stop = False
    while not stop:
        for minibatch in loader:
            x = minibatch["X"] if dense else minibatch
            # Without workers only at the end of a fetch: the next minibatch would pay for all of
            # the next fetch.
            whole = args.workers or (meter.minibatches + 1) % args.fetch_factor == 0
            stop = meter.took(x.shape[0], x if dense else x.data, may_stop=whole)
            if stop:
                break
        stop = stop or meter.elapsed >= args.seconds
    # Workers count once they have ended.
    del loader
    meter.report("scdataset", "anndata", "torch", "numpy", "scipy", "h5py")


if __name__ == "__main__":
    main()
