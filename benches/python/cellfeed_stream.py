"""Streams a store through cellfeed.Loader and prints how it went as JSON.

Minibatches are X alone, and every value is summed up, as `cellfeed stream` and the scripts of the peers
do. Of the CPU time, `summing_seconds` went into the sums, which NumPy makes slower than Rust, and
`loop_seconds` is all else that the thread that iterates did: what the loop costs in Python.
"""

import argparse
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "peers"))
import measure  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store")
    measure.options(parser)
    parser.add_argument("--strategy", default="block-shuffling", help="as the peers shuffle")
    parser.add_argument("--block-size", type=int, default=16)
    parser.add_argument("--fetch-factor", type=int, default=256)
    parser.add_argument("--layout", choices=["csr", "dense"], default="csr")
    parser.add_argument("--output", choices=["numpy", "torch", "scipy"], default="scipy")
    parser.add_argument("--access", choices=["auto", "map", "read"], help="of .csr and uncompressed .h5ad")
    parser.add_argument("--epochs", type=int, default=1, help="unless --seconds end it")
    args = parser.parse_args()

    import cellfeed

    imported = measure.peak_rss()
    start = time.perf_counter()
    loader = cellfeed.Loader(
        cellfeed.open(args.store, access=args.access),
        batch_size=args.batch_size,
        strategy=args.strategy,
        block_size=args.block_size,
        fetch_factor=args.fetch_factor,
        seed=args.seed,
        layout=args.layout,
        output=args.output,
        obs=[args.label] if args.label else [],
    )
    opened = time.perf_counter() - start
    if args.label:
        measure.entropy((batch.obs[args.label] for batch in loader), args.batch_size)
        return
    meter = measure.Meter(args, opened, imported)
    epoch, stop = 0, False
    while not stop:
        for batch in loader:
            x = batch.X
            if args.output == "torch":
                values = (x if args.layout == "dense" else x.values()).numpy()
            else:
                values = x if args.layout == "dense" else x.data
            stop = meter.took(len(batch), values)
            if stop:
                break
        epoch += 1
        stop = stop or (not args.seconds and epoch == args.epochs)
    meter.report("cellfeed", epochs=epoch)


if __name__ == "__main__":
    main()
