"""Compares Cellfeed with Hugging Face datasets on Parquet shards of Tahoe-100M's layout.

    python3 benches/peers/compare_parquet.py atlas.h5ad --rounds 3 --out benches/runs/DATE-parquet.json

Makes `atlas.tahoe` beside the .h5ad file where it is missing: shards of 28,225 cells with row groups of
1,000, as Tahoe-100M is published. Then runs whole epochs of block shuffling in shuffled turns, each
in a process of its own, all giving CSR of f32. What Hugging Face datasets reads is its own Arrow
cache of the shards, uncompressed, which it makes first, untimed, as lists of Python numbers (its
default), as numpy arrays and as Arrow tables; Cellfeed reads the shards themselves, and for comparison
its own Parquet layout.
"""

import pathlib
import subprocess
import sys

import contest
from contest import HERE, harness


def main():
    parser = contest.parser(__doc__)
    parser.add_argument("store", help="a .h5ad file with CSR X of f32")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--settings", nargs="+", default=["16x256"], metavar="BLOCKxFACTOR")
    parser.add_argument("--epochs", type=int, default=1, help="of Cellfeed's runs")
    parser.add_argument("--memory", default="2GiB", help="of Cellfeed")
    parser.add_argument("--seconds", type=float, default=0, help="of datasets, at least; 0: an epoch")
    args = parser.parse_args()
    source = pathlib.Path(args.store)
    cellfeed = args.cellfeed or harness.build("cellfeed-cli", "cellfeed")
    python = contest.python(args, "requirements-datasets.txt")
    peer = HERE / "datasets_stream.py"
    folder, own = source.with_suffix(".tahoe"), source.with_suffix(".parquet")
    cache = source.with_suffix(".tahoe-cache")
    if not folder.exists():
        make = HERE.parent.parent / "testdata" / "make_tahoe.py"
        partial = source.with_suffix(".tahoe-partial")
        subprocess.run([python, make, "atlas", source, partial], check=True)
        partial.rename(folder)
    if not own.exists():
        subprocess.run([cellfeed, "convert", source, own], check=True)
    subprocess.run([python, peer, folder, "--cache", cache, "--prepare"], check=True)
    cases = []
    for setting in args.settings:
        block, factor = (int(part) for part in setting.split("x"))
        plan = ["--batch-size", args.batch_size, "--block-size", block, "--fetch-factor", factor]
        mine = ["--strategy", "block-shuffling", *plan, "--epochs", args.epochs, "--memory", args.memory, "--json"]
        cases.append({
            "name": f"blocks of {block}, fetch factor {factor}",
            "stores": [folder, own, cache],
            "contestants": {
                "cellfeed": [cellfeed, "stream", folder, *mine],
                "cellfeed, own layout": [cellfeed, "stream", own, *mine],
                **{
                    f"datasets, {access}": [python, peer, folder, "--cache", cache, "--access",
                                            access, "--seconds", args.seconds, *plan]
                    for access in ("python", "numpy", "arrow")
                },
            },
        })
    show = {str(cellfeed): "cellfeed", str(python): "python3", str(cache): cache.name,
            str(peer): "benches/peers/datasets_stream.py", str(folder): folder.name,
            str(own): own.name}
    return 0 if contest.hold(args, "cellfeed and Hugging Face datasets", cases, show) else 1


if __name__ == "__main__":
    sys.exit(main())
