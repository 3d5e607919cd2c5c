"""Compares cellfeed.Loader with the loaders that Python has, on one .h5ad, and with `cellfeed stream`.

    python3 benches/python/compare.py atlas.h5ad --python VENV/bin/python --rounds 3

Every run is a process of its own without worker processes; contestants take turns in a shuffled order,
with the same m, b and f and the same form of minibatches, of which every value is summed up. What they
yield is compared. The Python must have the wheel of cellfeed and benches/peers/requirements.txt
installed. The difference to `cellfeed stream`, the same loop in Rust, is what Python costs.
"""

import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "peers")]
import contest  # noqa: E402
import harness  # noqa: E402


def main():
    parser = contest.parser(__doc__)
    parser.add_argument("store", help=".h5ad with a CSR X")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--block-size", type=int, default=16)
    parser.add_argument("--fetch-factor", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--layouts", nargs="+", choices=["csr", "dense"], default=["csr", "dense"])
    parser.add_argument("--annloader-seconds", type=float, default=10)
    args = parser.parse_args()
    if not args.python:
        parser.error("--python is needed: one with the wheel and benches/peers/requirements.txt")
    rust = args.cellfeed or harness.build("cellfeed-cli", "cellfeed")
    plan = ["--batch-size", args.batch_size, "--block-size", args.block_size]
    plan += ["--fetch-factor", args.fetch_factor, "--seed", args.seed]
    peers = HERE.parent / "peers"
    cases = []
    for layout in args.layouts:
        same = [args.store, *plan, "--layout", layout]
        contestants = {
            "cellfeed.Loader": [args.python, HERE / "cellfeed_stream.py", *same],
            "cellfeed stream": [rust, "stream", *same, "--json"],
            "scDataset": [args.python, peers / "scdataset_stream.py", *same],
        }
        if layout == "dense":
            # It gives nothing else of a backed file.
            contestants["AnnLoader"] = [
                args.python, HERE / "annloader_stream.py", args.store,
                "--batch-size", args.batch_size, "--seconds", args.annloader_seconds,
            ]
        cases.append({
            "name": layout,
            "stores": [pathlib.Path(args.store)],
            "contestants": {who: list(map(str, line)) for who, line in contestants.items()},
        })
    show = {args.python: "python", rust: "cellfeed", args.store: pathlib.Path(args.store).name}
    scripts = [line[1] for case in cases for line in case["contestants"].values()]
    show.update({name: pathlib.Path(name).name for name in scripts if name.endswith(".py")})
    good = contest.hold(args, "cellfeed.Loader against other loaders in Python", cases, show)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
