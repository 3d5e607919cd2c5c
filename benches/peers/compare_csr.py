"""Compares Cellfeed's .csr stores with BioNeMo SCDL on the same cells.

    python3 benches/peers/compare_csr.py atlas.h5ad --rounds 3

Makes `atlas.csr`, `atlas.packed.csr` and an SCDL folder beside the .h5ad file where they are missing,
then runs whole epochs in shuffled turns, each in a process of its own, all giving CSR of f32. SCDL
reads random rows; Cellfeed is run with true random sampling and with blocks of 16 cells.
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
    parser.add_argument("--fetch-factor", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=1, help="of Cellfeed's runs")
    args = parser.parse_args()
    source = pathlib.Path(args.store)
    cellfeed = args.cellfeed or harness.build("cellfeed-cli", "cellfeed")
    python = contest.python(args, "requirements-scdl.txt")
    peer = HERE / "scdl_stream.py"
    folder = source.with_suffix(".scdl")
    if not folder.exists():
        command = [python, peer, folder, "--from-h5ad", source]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    stores = {"plain": source.with_suffix(".csr"), "packed": source.with_suffix(".packed.csr")}
    for codec, store in stores.items():
        if not store.exists():
            subprocess.run([cellfeed, "convert", source, store, "--codec", codec], check=True)
    plan = ["--batch-size", args.batch_size, "--fetch-factor", args.fetch_factor, "--json",
            "--epochs", args.epochs]
    blocks = ["--strategy", "block-shuffling", "--block-size", 16]
    single = ["--strategy", "true-random"]
    cases = [
        {
            "name": name,
            "stores": [store, folder],
            "contestants": {
                "cellfeed": [cellfeed, "stream", store, *plan, *how],
                "scdl": [python, peer, folder, "--batch-size", args.batch_size],
            },
        }
        for name, store, how in (
            ("plain, blocks of 16", stores["plain"], blocks),
            ("plain, true random", stores["plain"], single),
            ("packed, blocks of 16", stores["packed"], blocks),
            # The folder itself, read by Cellfeed without conversion.
            ("SCDL folder, blocks of 16", folder, blocks),
            ("SCDL folder, true random", folder, single),
        )
    ]
    show = {str(cellfeed): "cellfeed", str(python): "python3",
            str(peer): "benches/peers/scdl_stream.py", str(folder): folder.name,
            **{str(store): store.name for store in stores.values()}}
    return 0 if contest.hold(args, "cellfeed and BioNeMo SCDL", cases, show) else 1


if __name__ == "__main__":
    sys.exit(main())
