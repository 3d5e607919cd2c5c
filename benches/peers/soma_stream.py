"""One epoch of TileDB-SOMA-ML over a SOMA experiment, shuffled; prints JSON.

    python soma_stream.py FOLDER [--shuffle-chunk 64] [--io-batch 65536] [--batch-size 64]
    python soma_stream.py FOLDER --from-h5ad atlas.h5ad

As its documentation uses it: an ExperimentDataset in its experiment_dataloader, which gives SciPy CSR and
a data frame of obs. Chunks of neighbouring rows are shuffled, and the rows of as many chunks as make
an I/O batch are shuffled among themselves, which is block shuffling with other words.
"""

import argparse
import json
import time
import warnings

import measure


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder")
    measure.options(parser)
    parser.add_argument("--shuffle-chunk", type=int, default=64, help="its default")
    parser.add_argument("--io-batch", type=int, default=2**16, help="its default")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--from-h5ad", help="make the experiment of this file first, and stop")
    args = parser.parse_args()

    warnings.simplefilter("ignore")
    import tiledbsoma

    if args.from_h5ad:
        import anndata
        import tiledbsoma.io

        # X, obs and var alone: some files have beside them what it cannot store.
        found = anndata.read_h5ad(args.from_h5ad)
        bare = anndata.AnnData(found.X, obs=found.obs, var=found.var[[]])
        tiledbsoma.io.from_anndata(args.folder, bare, measurement_name="RNA")
        print(json.dumps({"made": True}))
        return
    import tiledbsoma_ml

    imported = measure.peak_rss()
    start = time.perf_counter()
    with tiledbsoma.Experiment.open(args.folder) as experiment:
        query = experiment.axis_query(measurement_name="RNA")
        columns = {"obs_column_names": [args.label]} if args.label else {}
        dataset = tiledbsoma_ml.ExperimentDataset(
            query, layer_name="data", batch_size=args.batch_size, io_batch_size=args.io_batch,
            shuffle=True, shuffle_chunk_size=args.shuffle_chunk, seed=args.seed,
            return_sparse_X=True, **columns,
        )
        loader = tiledbsoma_ml.experiment_dataloader(dataset, num_workers=args.workers)
        opened = time.perf_counter() - start
        if args.label:
            measure.entropy(
                (obs[args.label].astype(str) for _, obs in loader), args.batch_size, most=1024
            )
            return
        meter = measure.Meter(args, opened, imported, args.workers)
        for x, _ in measure.epochs(args, loader):
            # The first of its buffers takes many seconds; what comes after is to be seen too.
            whole, buffers = (meter.cells + x.shape[0]) % args.io_batch == 0, meter.cells // args.io_batch
            if meter.took(x.shape[0], x.data, may_stop=whole and buffers >= 2):
                break
        meter.report("tiledbsoma-ml", "tiledbsoma", "torch", "numpy", "scipy")


if __name__ == "__main__":
    main()
