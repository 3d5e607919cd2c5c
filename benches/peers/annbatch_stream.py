"""Epochs of annbatch over a collection in Zarr, in shuffled slices; prints JSON.

    python annbatch_stream.py COLLECTION.zarr [--slice-rows 512] [--slices 32] [--batch-size 64]
    python annbatch_stream.py COLLECTION.zarr --from-h5ad atlas.h5ad

As its documentation uses it on local disks: a Loader with shuffle=True and the codec pipeline of
zarrs-python, which gives SciPy CSR. X alone is read. `--slices` slices of `--slice-rows` rows are in
memory at a time, and minibatches are cut from these.
"""

import argparse
import json
import time
import warnings

import measure

warnings.simplefilter("ignore")


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
    measure.options(parser)
    parser.add_argument("--slice-rows", type=int, default=512)
    parser.add_argument("--slices", type=int, default=32)
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
        if args.obs or args.label:
            return anndata.AnnData(x, obs=anndata.io.read_elem(group["obs"]))
        return anndata.AnnData(x)

    imported = measure.peak_rss()
    start = time.perf_counter()
    loader = annbatch.Loader(
        chunk_size=args.slice_rows, preload_nchunks=args.slices, batch_size=args.batch_size,
        shuffle=True, drop_last=False, preload_to_gpu=False, rng=np.random.default_rng(args.seed),
    ).use_collection(annbatch.DatasetCollection(args.collection, mode="r"), load_adata=load)
    opened = time.perf_counter() - start
    if args.label:
        measure.entropy(
            (minibatch["obs"][args.label].astype(str) for minibatch in loader), args.batch_size
        )
        return
    window = args.slice_rows * args.slices
    meter = measure.Meter(args, opened, imported)
    stop = False
    while not stop:
        seen = 0
        for minibatch in loader:
            x = minibatch["X"]
            seen += x.shape[0]
            # Reading is done for all slices in memory at once: to stop in between would be unfair.
            stop = meter.took(x.shape[0], x.data, may_stop=seen % window == 0)
            if stop:
                break
        stop = stop or meter.elapsed >= args.seconds
    meter.report("annbatch", "anndata", "zarr", "zarrs", "numpy", "scipy")


if __name__ == "__main__":
    main()
