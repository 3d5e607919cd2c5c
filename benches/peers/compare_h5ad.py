"""Compares `cellfeed stream` with scDataset on .h5ad files, and both with the machine's limits.

    python3 benches/peers/compare_h5ad.py atlas.h5ad --rounds 3

Every run is a process of its own; contestants take turns in an order shuffled by --order-seed. What
they yield is compared: over whole epochs the number of cells, of values and the sum must be the
same; over limited time the mean sum of a cell must agree within 2 %. Standard library only; the
packages to compare with are installed into an environment of their own.
"""

import argparse
import json
import pathlib
import random
import subprocess
import sys
import venv

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import harness  # noqa: E402
from harness import median, number  # noqa: E402

CELLFEED, PEER, LIMITS = "cellfeed", "scdataset", "roofline"
TOLERANCE = 0.02


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stores", nargs="+", metavar="STORE", help=".h5ad files with CSR X")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--block-size", type=int, default=16)
    parser.add_argument("--fetch-factor", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0, help="of the sampling")
    parser.add_argument("--order-seed", type=int, default=0, help="of the order of the runs")
    parser.add_argument("--layout", choices=["csr", "dense"], default="csr")
    parser.add_argument(
        "--seconds", type=float, default=0, help="stop after so long; 0: one whole epoch (default)"
    )
    parser.add_argument("--workers", type=int, default=0, help="of scDataset's DataLoader")
    parser.add_argument("--threads", type=int, help="of Cellfeed and the limits; one per core")
    parser.add_argument("--memory", help="of Cellfeed, e.g. 512MiB")
    parser.add_argument("--cold", action="store_true", help="empty the page cache before each run")
    parser.add_argument("--cellfeed", help="a built `cellfeed`, instead of building it")
    parser.add_argument("--roofline", help="a built `roofline`, instead of building it")
    parser.add_argument("--python", help="a Python that has requirements.txt installed")
    parser.add_argument(
        "--venv", default=HERE / ".venv", help="the environment to make or to reuse"
    )
    parser.add_argument("--note", default="", help="kept in the record, e.g. how stores were made")
    parser.add_argument("--out", help="write the record to this .json, and the runs to .csv")
    parser.add_argument("--svg", help="draw the medians as a bar chart")
    args = parser.parse_args()
    for store in args.stores:
        if not pathlib.Path(store).is_file():
            parser.error(f"{store} is not a file")
    return args


def python(args):
    """The Python with the packages to compare with."""
    if args.python:
        return args.python
    folder = pathlib.Path(args.venv)
    executable = folder / "bin" / "python"
    wanted = (HERE / "requirements.txt").read_text()
    mark = folder / "installed.txt"
    if not mark.exists() or mark.read_text() != wanted:
        print("installing scDataset and anndata (some 5 GB, mostly torch) ...", file=sys.stderr)
        venv.create(folder, with_pip=True)
        command = [executable, "-m", "pip", "install", "--quiet", "-r", HERE / "requirements.txt"]
        subprocess.run(command, check=True)
        mark.write_text(wanted)
    return str(executable)


def commands(args, programs, store):
    """What each contestant runs."""
    plan = ["--batch-size", args.batch_size, "--block-size", args.block_size]
    plan += ["--fetch-factor", args.fetch_factor, "--seed", args.seed]
    threads = ["--threads", args.threads] if args.threads else []
    seconds = ["--seconds", args.seconds] if args.seconds else []
    memory = ["--memory", args.memory] if args.memory else []
    layout = ["--layout", args.layout]
    script = HERE / "scdataset_stream.py"
    peer = [programs["python"], script, store, *plan, *layout, "--workers", args.workers]
    cold = ["--cold"] if args.cold else []
    return {
        CELLFEED: [programs[CELLFEED], "stream", store, "--strategy", "block-shuffling", *plan, *layout,
                   *threads, *memory, *seconds, "--json"],
        PEER: [*peer, *seconds],
        LIMITS: [programs[LIMITS], store, *plan, *threads, *cold, "--json"],
    }


def check(args, runs):
    """Whether both loaders yielded the same; a sentence, and whether it is so."""
    mine, peer = ([r for r in runs if r["who"] == w and "error" not in r] for w in (CELLFEED, PEER))
    if not mine or not peer:
        return "not compared: a contestant failed", False
    if not args.seconds:
        def facts(run):
            # The order of addition differs, so sums of fractions may differ in the last digits.
            return run["n_cells"], None if args.layout == "dense" else run["nnz"]

        seen = {facts(run) for run in mine + peer}
        sums = [run["sum"] for run in mine + peer]
        near = max(sums) - min(sums) <= 1e-9 * max(abs(s) for s in sums)
        if len(seen) == 1 and near:
            cells, _ = seen.pop()
            return f"same {cells:,} cells and same sum, {sums[0]:,.6g}", True
        return f"DIFFERENT: cells and values {sorted(seen, key=str)}, sums {sums}", False
    means = [median([run["sum"] / run["n_cells"] for run in group]) for group in (mine, peer)]
    gap = abs(means[0] / means[1] - 1)
    words = f"mean sum of a cell {means[0]:,.2f} and {means[1]:,.2f}, {gap:.2%} apart"
    return (words, True) if gap <= TOLERANCE else (f"DIFFERENT: {words}", False)


def summary(args, store, runs):
    """Medians of a store's runs."""
    def of(who, key):
        return median([run.get(key) for run in runs if run["who"] == who])

    def cost(who):
        return median([
            run["cpu_seconds"] / run["n_cells"] * 1e5
            for run in runs if run["who"] == who and run.get("n_cells")
        ])

    rates = {who: of(who, "cells_per_second") for who in (CELLFEED, PEER)}
    def limit(combine):
        kinds = ("read_seconds", "decode_seconds", "gather_seconds")
        return median([
            run["n_cells"] / combine(run[kind] for kind in kinds)
            for run in runs if run["who"] == LIMITS and "error" not in run
        ])

    def share(of_limit):
        return rates[CELLFEED] / of_limit if rates[CELLFEED] and of_limit else None

    slowest, in_turn = limit(max), limit(sum)
    agreement, same = check(args, runs)
    out = {
        "store": pathlib.Path(store).name,
        "bytes": pathlib.Path(store).stat().st_size,
        "agreement": agreement,
        "agree": same,
        "limit_cells_per_second": slowest,
        "in_turn_cells_per_second": in_turn,
        "limit_read_seconds": of(LIMITS, "read_seconds"),
        "limit_decode_seconds": of(LIMITS, "decode_seconds"),
        "limit_gather_seconds": of(LIMITS, "gather_seconds"),
        "ratio": rates[CELLFEED] / rates[PEER] if all(rates.values()) else None,
        "share_of_limit": share(slowest),
        "share_of_in_turn": share(in_turn),
    }
    for who in (CELLFEED, PEER):
        speeds = [r["cells_per_second"] for r in runs if r["who"] == who and "error" not in r]
        out[who] = {
            "cells_per_second": rates[who],
            "slowest": min(speeds, default=None),
            "fastest": max(speeds, default=None),
            "cpu_seconds_per_100k_cells": cost(who),
            "peak_rss_bytes": of(who, "peak_rss_bytes"),
            "open_seconds": of(who, "open_seconds"),
            "first_minibatch_seconds": of(who, "first_minibatch_seconds"),
        }
    return out


def report(summaries):
    header = ["store, loader", "cells/s", "min..max", "CPU s/100k", "peak MB", "open s", "first s"]
    rows = []
    for s in summaries:
        rows.append([s["store"], *[""] * (len(header) - 1)])
        for who in (CELLFEED, PEER):
            m = s[who]
            spread = f"{number(m['slowest'])}..{number(m['fastest'])}"
            peak = m["peak_rss_bytes"] and m["peak_rss_bytes"] / 1e6
            rows.append([
                f"  {who}", number(m["cells_per_second"]), spread,
                number(m["cpu_seconds_per_100k_cells"], 2), number(peak),
                number(m["open_seconds"], 3), number(m["first_minibatch_seconds"], 3),
            ])
        for what in ("limit", "in_turn"):
            name = "  " + what.replace("_", " ")
            rows.append([name, number(s[f"{what}_cells_per_second"]), *[""] * (len(header) - 2)])
    print(harness.table(rows, header))
    print()
    for s in summaries:
        limits = ", ".join(
            f"{what} {number(s[f'limit_{what}_seconds'], 2)} s"
            for what in ("read", "decode", "gather")
        )
        shares = [s[key] and 100 * s[key] for key in ("share_of_limit", "share_of_in_turn")]
        print(f"{s['store']}: {number(s['ratio'], 1)} times scDataset; {number(shares[0])} % of "
              f"the limit, {number(shares[1])} % of the three in turn ({limits}); {s['agreement']}")


def main():
    args = arguments()
    programs = {
        CELLFEED: args.cellfeed or harness.build("cellfeed-cli", "cellfeed"),
        LIMITS: args.roofline or harness.build("cellfeed-benches", "roofline"),
        "python": python(args),
    }
    result = {
        "what": "cellfeed and scDataset streaming .h5ad, and the machine's limits",
        "note": args.note,
        **harness.facts(),
        "cellfeed": harness.first_line(programs[CELLFEED], "--version"),
        "options": {
            key: value for key, value in vars(args).items()
            if key not in ("stores", "cellfeed", "roofline", "python", "venv", "note", "out", "svg")
        },
    }
    show = {
        str(programs[CELLFEED]): CELLFEED,
        str(programs[LIMITS]): LIMITS,
        str(programs["python"]): "python3",
        str(HERE / "scdataset_stream.py"): "benches/peers/scdataset_stream.py",
        **{store: pathlib.Path(store).name for store in args.stores},
    }
    order = random.Random(args.order_seed)
    runs = []
    for number_of_round in range(1, args.rounds + 1):
        turns = [(store, who) for store in args.stores for who in (CELLFEED, PEER, LIMITS)]
        order.shuffle(turns)
        for store, who in turns:
            ready = harness.drop_from_cache(store) if args.cold else harness.warm_cache(store)
            run = harness.run_json(commands(args, programs, store)[who], show)
            versions = run.pop("versions", None)
            if versions:
                result["peer_versions"] = versions
            name = pathlib.Path(store).name
            run = {"store": name, "who": who, "round": number_of_round,
                   "cached_before": round(ready, 4), **run}
            runs.append(run)
            outcome = run.get("error") or f"{number(run['cells_per_second'])} cells/s"
            print(f"round {number_of_round}  {name}  {who}: {outcome}  "
                  f"(load {run['load_before']}, cached {ready:.0%})", file=sys.stderr)
    summaries = [
        summary(args, store, [r for r in runs if r["store"] == pathlib.Path(store).name])
        for store in args.stores
    ]
    result |= {"summaries": summaries, "runs": runs}
    print()
    report(summaries)
    if args.out:
        harness.save(result, args.out)
    if args.svg:
        import plot_h5ad

        pathlib.Path(args.svg).write_text(plot_h5ad.draw(json.loads(json.dumps(result))))
    return 0 if all(s["agree"] for s in summaries) else 1


if __name__ == "__main__":
    sys.exit(main())
