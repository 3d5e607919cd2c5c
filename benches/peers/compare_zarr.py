"""Compares Cellfeed with annbatch on annbatch's own Zarr collections.

    python3 benches/peers/compare_zarr.py atlas.h5ad --rounds 5 --out benches/runs/DATE-zarr.json

Makes `atlas.annbatch64.zarr` and `atlas.annbatch16.zarr` beside the .h5ad file where they are missing:
collections as annbatch makes them, with inner chunks of 64 and of 16 rows of mean length. Then runs
whole epochs in shuffled turns, each in a process of its own, all giving CSR of f32 from X alone. What
annbatch calls a slice of so many rows is a block of Cellfeed, and as many slices are in memory as a
fetch has blocks: 16,384 cells.

Without a file it makes one first: `--cells` cells by `cellfeed generate`.
"""

import pathlib
import subprocess
import sys

import contest
from contest import HERE, harness

SETTINGS = ("512x32", "64x256", "16x1024", "8x2048", "1x16384")


def atlas(args, cellfeed):
    """The file to make collections of."""
    source = pathlib.Path(args.store)
    if not source.exists():
        print("making", source.name, "...", file=sys.stderr)
        command = [cellfeed, "generate", source, "--cells", args.cells, "--genes", args.genes]
        subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
    return source


def collection(args, python, source, chunk_rows):
    """A collection with inner chunks of so many rows; made if it is missing."""
    store = source.with_suffix(f".annbatch{chunk_rows}.zarr")
    if not store.exists():
        print("making", store.name, "...", file=sys.stderr)
        # Under another name until it is complete.
        partial = source.with_suffix(f".annbatch{chunk_rows}.partial.zarr")
        command = [python, HERE / "annbatch_stream.py", partial, "--from-h5ad", source,
                   "--chunk-rows", chunk_rows, "--dataset-rows", args.dataset_rows]
        subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
        partial.rename(store)
    return store


def case(args, cellfeed, python, store, chunk_rows, setting):
    """Both contestants at one setting."""
    rows, slices = (int(part) for part in setting.split("x"))
    if rows * slices % args.batch_size:
        sys.exit(f"{setting} is no whole number of minibatches of {args.batch_size}")
    mine = [cellfeed, "stream", store, "--strategy", "block-shuffling",
            "--batch-size", args.batch_size, "--block-size", rows,
            "--fetch-factor", rows * slices // args.batch_size, "--epochs", args.epochs, "--json"]
    if args.threads:
        mine += ["--threads", args.threads]
    if args.memory:
        mine += ["--memory", args.memory]
    peer = [python, HERE / "annbatch_stream.py", store, "--batch-size", args.batch_size,
            "--slice-rows", rows, "--slices", slices, "--seconds", args.seconds]
    return {
        "name": f"inner chunks of {chunk_rows} rows, {setting}",
        "stores": [store],
        "contestants": {"cellfeed": mine, "annbatch": peer},
    }


def main():
    parser = contest.parser(__doc__)
    parser.add_argument("store", help="a .h5ad file with CSR X of f32; made if it is not there")
    parser.add_argument("--cells", type=int, default=200_000, help="of a file that is made")
    parser.add_argument("--genes", type=int, default=20_000, help="of a file that is made")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--settings", nargs="+", default=SETTINGS, metavar="ROWSxSLICES")
    parser.add_argument("--chunk-rows", nargs="+", type=int, default=[64, 16])
    parser.add_argument("--dataset-rows", type=int, default=2_000_000, help="of a collection")
    parser.add_argument(
        "--epochs", type=int, default=6,
        help="of Cellfeed's runs: one is over in a second, and most of it goes into fresh memory",
    )
    parser.add_argument("--threads", type=int, help="of Cellfeed; one per core")
    parser.add_argument("--memory", help="of Cellfeed, e.g. 2GiB")
    parser.add_argument(
        "--seconds", type=float, default=30,
        help="of annbatch, at least, unless its epoch ends before; it needs minutes for single rows",
    )
    args = parser.parse_args()
    if not args.python and sys.version_info < (3, 12):
        parser.error("annbatch needs Python 3.12 or later: run this with one, or name one by --python")
    cellfeed = args.cellfeed or harness.build("cellfeed-cli", "cellfeed")
    python = contest.python(args, "requirements-annbatch.txt")
    source = atlas(args, cellfeed)
    stores = {rows: collection(args, python, source, rows) for rows in args.chunk_rows}
    cases = [
        case(args, cellfeed, python, store, rows, setting)
        for rows, store in stores.items() for setting in args.settings
    ]
    show = {str(cellfeed): "cellfeed", str(python): "python3",
            str(HERE / "annbatch_stream.py"): "benches/peers/annbatch_stream.py",
            **{str(store): store.name for store in stores.values()}}
    return 0 if contest.hold(args, "cellfeed and annbatch", cases, show) else 1


if __name__ == "__main__":
    sys.exit(main())
