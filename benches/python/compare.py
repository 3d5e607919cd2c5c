"""Compares cellfeed.Loader with the loaders that Python has, and with the same loop in Rust.

    python3 benches/python/compare.py atlas.h5ad --rounds 5 --gzip --annbatch --leak \\
        --caches warm cold --out benches/runs/DATE-python.json

Every run is a process of its own without worker processes; contestants take turns in a shuffled order,
with the same m, b and f and the same form of minibatches, of which every value is summed up. What they
yield is compared. Figures are medians: samples a second, CPU seconds, peak memory.

- `cellfeed stream` is the same loop in Rust. What Python costs is told in CPU seconds of the thread that
  iterates, apart from the sums, for which NumPy takes longer than Rust.
- scDataset reads an AnnCollection over backed AnnData, as in its documentation; AnnLoader reads cells
  one by one, and gives dense minibatches only; annbatch reads a Zarr collection that it makes of the
  file, and cellfeed.Loader reads the same collection beside it.
- `--leak` runs one loader for 10^5 minibatches and tells how far memory grew.
- `--caches cold` empties the page cache of the store before each run.

The first time it makes an environment of benches/peers/requirements-python.txt (some 6 GB: torch's CUDA
libraries) and builds the wheel into it, which needs Rust. `--python` takes a Python that has the
packages; with `--install` the wheel is built into that too.
"""

import argparse
import json
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "peers")]
import compare_zarr  # noqa: E402
import contest  # noqa: E402
import harness  # noqa: E402

PEERS = HERE.parent / "peers"


def arguments():
    parser = contest.parser(__doc__)
    parser.add_argument("stores", nargs="+", metavar="STORE", help=".h5ad with a CSR X")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--block-size", type=int, default=16)
    parser.add_argument("--fetch-factor", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=5, help="of Cellfeed's runs, which are short")
    parser.add_argument("--layouts", nargs="+", choices=["csr", "dense"], default=["csr", "dense"])
    parser.add_argument("--caches", nargs="+", choices=["warm", "cold"], default=["warm"])
    parser.add_argument("--gzip", action="store_true", help="of the first store also one with gzip")
    parser.add_argument("--annbatch", action="store_true", help="also annbatch, Python 3.12 or later")
    parser.add_argument(
        "--seconds", type=float, default=30, help="of a peer's run, at most about; 0: whole epochs"
    )
    parser.add_argument("--leak", action="store_true", help="also run 10^5 minibatches")
    parser.add_argument("--leak-minibatches", type=int, default=100_000)
    parser.add_argument("--install", action="store_true", help="build the wheel into --python")
    args = parser.parse_args()
    if args.cold:
        args.caches = ["cold"]
    return parser, args


def python_of(args):
    """The Python with the peers and the wheel."""
    made = not args.python
    python = contest.python(args, HERE.parent / "peers" / "requirements-python.txt")
    if made or args.install:
        print("building the wheel ...", file=sys.stderr)
        # Without --editable, and by maturin's default in release.
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "--no-deps", "--force-reinstall",
             harness.ROOT / "crates" / "cellfeed-python"],
            check=True,
        )
    return str(python)


def gzipped(rust, store):
    """The same file with gzip; made if it is missing."""
    path = store.with_name(f"{store.stem}.gzip.h5ad")
    if not path.exists():
        print("making", path.name, "...", file=sys.stderr)
        command = [rust, "convert", store, path, "--codec", "gzip"]
        subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
    return path


def cases_of(args, rust, python, stores):
    plan = ["--batch-size", args.batch_size, "--block-size", args.block_size]
    plan += ["--fetch-factor", args.fetch_factor, "--seed", args.seed]
    # The strategy of the peers, whatever the default is.
    named = ["--strategy", "block-shuffling"]
    ours = [python, HERE / "cellfeed_stream.py", *named]
    cases = []
    for store in stores:
        for layout in args.layouts:
            same = [store, *plan, "--layout", layout]
            contestants = {
                "cellfeed.Loader": [*ours, *same, "--epochs", args.epochs],
                "cellfeed stream": [rust, "stream", *named, *same, "--epochs", args.epochs, "--json"],
                "scDataset": [python, PEERS / "scdataset_stream.py", *same, "--seconds", args.seconds],
            }
            if layout == "dense":
                # It gives nothing else of a backed file.
                contestants["AnnLoader"] = [
                    python, PEERS / "annloader_stream.py", store,
                    "--batch-size", args.batch_size, "--seconds", args.seconds or 30,
                ]
            cases.append({"name": f"{store.name}, {layout}", "stores": [store], "contestants": contestants})
    if args.annbatch:
        slices, rest = divmod(args.batch_size * args.fetch_factor, args.block_size)
        if rest:
            sys.exit("annbatch needs fetches of a whole number of blocks")
        make = argparse.Namespace(dataset_rows=2_000_000)
        store = compare_zarr.collection(make, python, stores[0], args.block_size)
        cases.append({
            "name": f"{store.name}, csr",
            "stores": [store],
            "contestants": {
                "cellfeed.Loader": [*ours, store, *plan, "--epochs", args.epochs],
                "cellfeed stream": [rust, "stream", *named, store, *plan, "--epochs", args.epochs, "--json"],
                "annbatch": [
                    python, PEERS / "annbatch_stream.py", store, "--batch-size", args.batch_size,
                    "--slice-rows", args.block_size, "--slices", slices, "--seconds", args.seconds,
                ],
            },
        })
    return [
        {**case, "contestants": {who: list(map(str, line)) for who, line in case["contestants"].items()}}
        for case in cases
    ]


def leak(args, python, store):
    """Runs 10^5 minibatches; answers what memory did."""
    command = [python, HERE / "leak.py", store, "--minibatches", args.leak_minibatches]
    report = harness.run_json([str(word) for word in command], {python: "python", str(store): store.name})
    if "error" in report:
        print("leak test:", report["error"])
        return report, False
    print(
        f"\nleak test: {report['n_minibatches']:,} minibatches in {report['seconds']:.0f} s, resident memory "
        f"{report['rss_after_a_tenth_bytes'] / 1e6:,.1f} MB after a tenth, "
        f"{report['rss_after_half_bytes'] / 1e6:,.1f} MB after half, {report['rss_end_bytes'] / 1e6:,.1f} MB "
        f"at the end: {'flat' if report['flat'] else 'NOT FLAT'}; threads {report['threads_start']} and {report['threads_end']}, "
        f"open files {report['files_start']} and {report['files_end']}"
    )
    return report, report["flat"]


def per_cells(path):
    """A table of CPU seconds for 100,000 cells and of memory, from a record."""
    rows = []
    record = json.loads(path.read_text())
    for summary in record["summaries"]:
        for who, found in summary.items():
            if not isinstance(found, dict) or not found["cells_per_cpu_second"]:
                continue
            runs = [r for r in record["runs"] if (r["case"], r["who"]) == (summary["case"], who)]
            sums, loop = (
                harness.median([r[key] / r["n_cells"] * 1e5 for r in runs if r.get(key) is not None])
                for key in ("summing_seconds", "loop_seconds")
            )
            rows.append([
                f"{summary['case']}: {who}",
                harness.number(1e5 / found["cells_per_cpu_second"], 2),
                harness.number(sums, 2),
                harness.number(loop, 3),
                harness.number(found["peak_rss_bytes"] and found["peak_rss_bytes"] / 1e6),
            ])
    print("\n" + harness.table(rows, ["", "CPU s/100k cells", "of it sums", "Python's loop", "peak MB"]))


def main():
    parser, args = arguments()
    stores = [pathlib.Path(store).resolve() for store in args.stores]
    missing = [store.name for store in stores if not store.exists()]
    if missing:
        parser.error(f"{', '.join(missing)} is not there; `cellfeed generate` makes one")
    rust = args.cellfeed or harness.build("cellfeed-cli", "cellfeed")
    python = python_of(args)
    if args.gzip:
        stores.insert(1, gzipped(rust, stores[0]))
    cases = cases_of(args, rust, python, stores)
    show = {python: "python", rust: "cellfeed"}
    words = {word for case in cases for line in case["contestants"].values() for word in line}
    show.update({word: pathlib.Path(word).name for word in words if "/" in word and word not in show})
    good, out = True, args.out
    for cache in args.caches:
        args.cold = cache == "cold"
        if out:
            path = pathlib.Path(out)
            path = path.with_stem(path.stem + "-cold") if args.cold and len(args.caches) > 1 else path
            args.out = str(path)
        print(f"\npage cache {cache}")
        what = f"cellfeed.Loader against other loaders in Python, page cache {cache}"
        good = contest.hold(args, what, cases, show) and good
        if out:
            per_cells(path)
    if args.leak:
        report, flat = leak(args, python, stores[0])
        good = good and flat
        if out:
            path = pathlib.Path(out)
            record = {"what": "memory over many minibatches", **harness.facts(), "run": report}
            path.with_stem(path.stem + "-leak").write_text(json.dumps(record, indent=1) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
