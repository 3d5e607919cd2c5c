"""All peers and Cellfeed on one atlas: one command, one table, one plot.

    python3 benches/peers/all.py atlas.h5ad --rounds 3 --caches warm cold \\
        --out benches/runs/DATE-peers.json --svg benches/runs/DATE-peers.svg

It makes an environment with all peers from PyPI (`peers/.venv-all`, some 6.5 GB), generates the atlas
where it is missing, and makes of it what each peer reads: the .h5ad uncompressed and with gzip,
annbatch's Zarr collections, an SCDL folder, a SOMA experiment, Parquet shards as Tahoe-100M has with the
Arrow cache of Hugging Face datasets, and Cellfeed's own formats. Then each contestant runs in a process
of its own, in shuffled turns, and what they yield is compared: all must have summed up the same X.

Three cases:

- CSR f32 at equal settings: minibatches of 64 cells, blocks of 16, 16,384 cells in memory. SCDL has no
  blocks: its rows are truly random.
- CSR f32 as their makers recommend it, against Cellfeed as it is when nothing is said.
- dense f32, at the settings of the first case.

Every loop sums up all values. Cellfeed decodes on all cores; peers have no worker processes but where
the name says so. Where a peer cannot be installed or fails, the table says so, with the reason.
"""

import argparse
import json
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE), str(HERE.parent / "python")]
import compare_zarr  # noqa: E402
import contest  # noqa: E402
import harness  # noqa: E402
import plot_all  # noqa: E402
from harness import number  # noqa: E402

# Beside requirements-python.txt, which has scDataset, annbatch and anndata.
EXTRA = {
    "SCDL": ["bionemo-scdl==0.1.3"],
    "datasets": ["datasets==5.2.0", "pyarrow==26.0.1"],
    "SOMA-ML": ["tiledbsoma==2.3.0", "tiledbsoma-ml==0.1.0"],
}
EQUAL, BEST, DENSE = "CSR f32, equal settings", "CSR f32, each at its best", "dense f32, equal settings"


def arguments():
    parser = contest.parser(__doc__)
    parser.add_argument("store", help="a .h5ad file with uncompressed CSR X of f32; made if it is missing")
    parser.add_argument("--cells", type=int, default=200_000, help="of a file that is made")
    parser.add_argument("--genes", type=int, default=20_000, help="of a file that is made")
    parser.add_argument("--label", default="plate", help="the obs column whose entropy is told")
    parser.add_argument("--seconds", type=float, default=6, help="of each run, at least")
    parser.add_argument("--step-ms", type=float, default=0, help="a consumer that needs so long for a step")
    parser.add_argument("--caches", nargs="+", choices=["warm", "cold"], default=["warm"])
    parser.add_argument("--cases", nargs="+", choices=["equal", "best", "dense"],
                        default=["equal", "best", "dense"])
    parser.add_argument("--without", nargs="+", choices=sorted(EXTRA), default=[], metavar="PEER",
                        help="leave peers out: the experiment of SOMA-ML takes long to make (%(choices)s)")
    parser.add_argument("--install", action="store_true", help="build the wheel into --python")
    parser.add_argument("--svg", help="draw the medians of the first state of the page cache")
    args = parser.parse_args()
    if args.cold:
        args.caches = ["cold"]
    return args


def environment(args):
    """The Python with all peers and the wheel, and why a peer is not in it."""
    made = not args.python
    if made:
        args.venv = args.venv or HERE / ".venv-all"
    python = contest.python(args, "requirements-python.txt")
    absent = dict.fromkeys(args.without, "left out by --without")
    for peer, packages in EXTRA.items():
        if peer in absent:
            continue
        command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
                   "--only-binary=:all:", "--constraint", HERE / "requirements-python.txt", *packages]
        if made:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                absent[peer] = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
    if made or args.install:
        package = harness.ROOT / "crates" / "cellfeed-python"
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", "--force-reinstall",
                        package], check=True)
    return str(python), absent


def make(path, what, *command):
    """Makes a store under another name until it is complete; answers why it could not."""
    if path.exists():
        return None
    print("making", path.name, "...", file=sys.stderr)
    partial = path.with_name(f"partial-{path.name}")
    line = [str(partial if word is what else word) for word in command]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode or not partial.exists():
        return (done.stderr.strip().splitlines() or ["no message"])[-1]
    partial.rename(path)
    return None


def stores_of(args, cellfeed, python, absent):
    """The atlas in each format, by name; what cannot be made is added to `absent`."""
    h5ad = pathlib.Path(args.store).resolve()
    to = object()
    at = {
        name: h5ad.with_suffix(f".{ending}") if ending else h5ad
        for name, ending in {
            "h5ad": "", "gzip": "gzip.h5ad", "csr": "csr", "packed": "packed.csr",
            "zarr": "annbatch16.zarr", "zarr64": "annbatch64.zarr", "parquet": "parquet",
            "scdl": "scdl", "soma": "soma", "tahoe": "tahoe", "cache": "tahoe-cache",
        }.items()
    }
    convert = [cellfeed, "convert", h5ad]
    problems = {
        None: [
            make(h5ad, to, cellfeed, "generate", to, "--cells", args.cells, "--genes", args.genes),
            make(at["gzip"], to, *convert, to, "--codec", "gzip"),
            make(at["csr"], to, *convert, to),
            make(at["packed"], to, *convert, to, "--codec", "packed"),
            make(at["parquet"], to, *convert, to),
        ],
    }
    made_by = {
        "SCDL": [("scdl", HERE / "scdl_stream.py", to, "--from-h5ad", h5ad)],
        "SOMA-ML": [("soma", HERE / "soma_stream.py", to, "--from-h5ad", h5ad)],
        "datasets": [
            ("tahoe", harness.ROOT / "testdata" / "make_tahoe.py", "atlas", h5ad, to),
            ("cache", HERE / "datasets_stream.py", at["tahoe"], "--prepare", "--cache", to),
        ],
    }
    for peer, commands in made_by.items():
        if peer not in absent:
            problems[peer] = [make(at[store], to, python, *command) for store, *command in commands]
    for peer, found in problems.items():
        why = next((problem for problem in found if problem), None)
        if why and peer is None:
            sys.exit(f"all.py: cannot make the atlas: {why}")
        if why:
            absent[peer] = why
    how = argparse.Namespace(dataset_rows=2_000_000)
    for rows in (16, 64):
        compare_zarr.collection(how, python, h5ad, rows)
    return at


def contestants(args, cellfeed, python, at):
    """By case, name to (command, stores, command that tells the entropy)."""
    common = ["--batch-size", 64]
    timed = ["--seconds", args.seconds, *(["--step-ms", args.step_ms] if args.step_ms else [])]
    plan = [*common, "--block-size", 16, "--fetch-factor", 256]
    shuffled = ["--strategy", "block-shuffling", *plan]
    labels = ["--labels-of", at["h5ad"]]

    def rust(store, *how):
        run = [cellfeed, "stream", at[store], *how, "--json"]
        # The same plan, whatever the store; an SCDL folder has no labels.
        labelled = [cellfeed, "stream", at["csr"], *how, "--json", "--label", args.label]
        return [*run, *timed], [at[store]], labelled

    def script(name, *how, folder=HERE, extra=(), also=()):
        stores = [at[store] for store in (how[0], *also)]
        run = [python, folder / name, stores[0], *how[1:]]
        return [*run, *timed], stores, [*run, "--label", args.label, *extra]

    def loader(store, *how):
        return script("cellfeed_stream.py", store, *how, folder=HERE.parent / "python")

    def datasets(access):
        return script("datasets_stream.py", "tahoe", *plan, "--access", access, "--cache", at["cache"],
                      extra=labels, also=["cache"])

    scdl = script("scdl_stream.py", "scdl", *common, extra=labels)
    dense = ["--layout", "dense"]
    return {
        EQUAL: {
            "Cellfeed .csr": rust("csr", *shuffled),
            "Cellfeed .csr, Python": loader("csr", *shuffled),
            "Cellfeed packed .csr": rust("packed", *shuffled),
            "Cellfeed .h5ad": rust("h5ad", *shuffled),
            "Cellfeed .h5ad, Python": loader("h5ad", *shuffled),
            "Cellfeed .h5ad, by reads": rust("h5ad", *shuffled, "--access", "read"),
            "Cellfeed .h5ad, by reads, Python": loader("h5ad", *shuffled, "--access", "read"),
            "Cellfeed .h5ad gzip": rust("gzip", *shuffled),
            "Cellfeed annbatch's Zarr": rust("zarr", *shuffled),
            "Cellfeed .parquet": rust("parquet", *shuffled),
            "Cellfeed SCDL's folder": rust("scdl", *shuffled),
            "Cellfeed SCDL's folder, single rows": rust("scdl", *common, "--strategy", "true-random"),
            "Cellfeed Tahoe's shards": rust("tahoe", *shuffled),
            "scDataset .h5ad": script("scdataset_stream.py", "h5ad", *plan),
            "scDataset .h5ad gzip": script("scdataset_stream.py", "gzip", *plan),
            "annbatch 16 x 1024": script("annbatch_stream.py", "zarr", *common, "--slice-rows", 16,
                                         "--slices", 1024),
            "SCDL": scdl,
            "datasets, Arrow": datasets("arrow"),
            "SOMA-ML 16, 16384": script("soma_stream.py", "soma", *common, "--shuffle-chunk", 16,
                                        "--io-batch", 16384),
        },
        BEST: {
            "Cellfeed .csr": rust("csr", *common),
            "Cellfeed .csr, Python": loader("csr", *common, "--strategy", "stratified"),
            "Cellfeed .h5ad": rust("h5ad", *common),
            "Cellfeed .h5ad, Python": loader("h5ad", *common, "--strategy", "stratified"),
            "scDataset .h5ad, 2 workers": script("scdataset_stream.py", "h5ad", *plan, "--workers", 2),
            "annbatch 512 x 32": script("annbatch_stream.py", "zarr64", *common),
            "SCDL": scdl,
            "datasets, NumPy": datasets("numpy"),
            "SOMA-ML 64, 65536": script("soma_stream.py", "soma", *common),
        },
        DENSE: {
            "Cellfeed .csr": rust("csr", *shuffled, *dense),
            "Cellfeed .csr, Python": loader("csr", *shuffled, *dense),
            "Cellfeed .h5ad": rust("h5ad", *shuffled, *dense),
            "scDataset .h5ad": script("scdataset_stream.py", "h5ad", *plan, *dense),
            "AnnLoader .h5ad": script("annloader_stream.py", "h5ad", *common),
        },
    }


def size_of(stores):
    return sum(path.stat().st_size for store in stores for path in harness.files_of(store))


def tell(cases, summaries, facts, absent):
    """The table, and what is to be said beside it."""
    rows = []
    for case, found in zip(cases, summaries):
        rows.append([f"{case['name']}: {found['agreement']}", *[""] * 9])
        best = found[next(iter(case["contestants"]))]["cells_per_second"]
        for who in case["contestants"]:
            mine, fact = found[who], facts[case["name"]][who]
            rate = mine["cells_per_second"]
            rows.append([
                f"  {who}", number(rate), f"{number(mine['slowest'])}..{number(mine['fastest'])}",
                number(mine["cells_per_cpu_second"]), number(best and rate and best / rate, 1),
                number(mine["peak_rss_bytes"] and mine["peak_rss_bytes"] / 1e6),
                number(mine["first_minibatch_seconds"], 2),
                number(mine["wait_p99_seconds"] and mine["wait_p99_seconds"] * 1e3, 1),
                number(fact["bytes_on_disk"] / 1e9, 2), number(fact["entropy_bits"], 3),
            ])
    header = ["", "cells/s", "min..max", "cells/CPU s", "times", "peak MB", "first s", "p99 ms", "GB", "bits"]
    print("\n" + harness.table(rows, header))
    print("\ntimes: how many times faster the first of the case is; p99 of the wait for a minibatch; GB on "
          "disk; bits of the label in a minibatch")
    for peer, why in absent.items():
        print(f"{peer} is not here: {why}")


def facts_of(cases, entries, show):
    """Bytes on disk and entropy of each contestant; neither is timed."""
    out = {}
    for case in cases:
        mine = out.setdefault(case["name"], {})
        for who in case["contestants"]:
            _, stores, label = entries[case["name"]][who]
            found = harness.run_json(label, show)
            if "error" in found:
                print(f"entropy of {who}: {found['error']}", file=sys.stderr)
            mine[who] = {"bytes_on_disk": size_of(stores), "entropy_bits": found.get("entropy_bits")}
    return out


def main():
    args = arguments()
    cellfeed = args.cellfeed or harness.build("cellfeed-cli", "cellfeed")
    python, absent = environment(args)
    at = stores_of(args, cellfeed, python, absent)
    names = {"equal": EQUAL, "best": BEST, "dense": DENSE}
    entries = contestants(args, cellfeed, python, at)
    cases = [
        {
            "name": names[key],
            "stores": [],
            "contestants": {
                who: (command, stores) for who, (command, stores, _) in entries[names[key]].items()
                if not any(who.startswith(peer) for peer in absent) and all(path.exists() for path in stores)
            },
        }
        for key in args.cases
    ]
    show = {python: "python3", str(cellfeed): "cellfeed", **{str(path): path.name for path in at.values()}}
    for path in (*HERE.glob("*_stream.py"), *(HERE.parent / "python").glob("*_stream.py")):
        show[str(path)] = str(path.relative_to(harness.ROOT))
    facts = facts_of(cases, entries, show)
    good = True
    for cache in args.caches:
        args.cold = cache == "cold"
        runs, versions = contest.turns(args, cases, show)
        summaries = [contest.summary(case, runs) for case in cases]
        for found in summaries:
            for who, fact in facts[found["case"]].items():
                found[who].update(fact)
        print(f"\npage cache {cache}")
        tell(cases, summaries, facts, absent)
        good = good and all(found["agree"] for found in summaries)
        if args.out:
            path = pathlib.Path(args.out)
            if args.cold and len(args.caches) > 1:
                path = path.with_stem(f"{path.stem}-cold")
            what = f"Cellfeed and its peers, page cache {cache}"
            contest.record(args, what, summaries, runs, versions | {"not there": absent}, path)
        if args.svg and cache == args.caches[0]:
            title = f"Cells per second, page cache {cache}"
            pathlib.Path(args.svg).write_text(plot_all.draw(title, summaries, harness.facts(), args))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
