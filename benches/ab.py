"""Two builds, or two settings, side by side: `cellfeed stream` of each in shuffled turns.

    python3 benches/ab.py atlas.csr atlas.h5ad --rounds 5 \\
        --run before=old/cellfeed --run after=target/release/cellfeed

    python3 benches/ab.py atlas.h5ad --run reads="target/release/cellfeed --access read" \\
        --run map="target/release/cellfeed --access auto"

Each `--run NAME=COMMAND` is a name, a built `cellfeed`, and options of `cellfeed stream` if there are any;
`ENV=VALUE` before the build sets a variable. Every run is a process of its own, the page cache warm; what
is told are medians, with the least and the most, and the ratio to the first of them. Standard library only.
"""

import argparse
import os
import pathlib
import random
import shlex
import sys

import harness
from harness import median, number


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stores", nargs="+", metavar="STORE")
    parser.add_argument("--run", action="append", required=True, metavar="NAME=COMMAND", dest="commands")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6, help="of each run")
    parser.add_argument("--strategy", default="block-shuffling")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--block-size", type=int, default=16)
    parser.add_argument("--fetch-factor", type=int, default=256)
    parser.add_argument("--order-seed", type=int, default=0, help="of the order of the runs")
    parser.add_argument("--note", default="", help="kept in the record")
    parser.add_argument("--out", help="write the record to this .json, and the runs to .csv")
    args = parser.parse_args()
    args.contestants = {}
    for text in args.commands:
        name, _, command = text.partition("=")
        words = shlex.split(command)
        variables = {}
        while words and "=" in words[0]:
            key, _, value = words.pop(0).partition("=")
            variables[key] = value
        if not words or not os.access(words[0], os.X_OK):
            parser.error(f"--run {text}: NAME=COMMAND was expected, whose first word is a built cellfeed")
        args.contestants[name] = (variables, words[0], words[1:])
    missing = [store for store in args.stores if not pathlib.Path(store).exists()]
    if missing:
        parser.error(f"{', '.join(missing)} is not there; `cellfeed generate` and `convert` make stores")
    return args


def run(args, name, store):
    variables, cellfeed, options = args.contestants[name]
    command = [cellfeed, "stream", store, "--seconds", args.seconds, "--json",
               "--strategy", args.strategy, "--batch-size", args.batch_size,
               "--fetch-factor", args.fetch_factor]
    if args.strategy != "streaming":
        command += ["--block-size", args.block_size]
    show = {cellfeed: "cellfeed", store: pathlib.Path(store).name}
    kept = {key: os.environ.get(key) for key in variables}
    os.environ.update(variables)
    try:
        return harness.run_json([*command, *options], show)
    finally:
        for key, value in kept.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value


def main():
    args = arguments()
    order = random.Random(args.order_seed)
    runs = []
    for turn in range(1, args.rounds + 1):
        queue = [(store, name) for store in args.stores for name in args.contestants]
        order.shuffle(queue)
        for store, name in queue:
            cached = min(harness.warm_cache(path) for path in harness.files_of(store)
                         if path.stat().st_size)
            found = run(args, name, store)
            runs.append({"store": pathlib.Path(store).name, "name": name, "round": turn,
                         "cached": round(cached, 3), **found})
            outcome = found.get("error") or f"{number(found['cells_per_second'])} cells/s"
            print(f"round {turn}  {pathlib.Path(store).name}  {name}: {outcome}  "
                  f"(load {found['load_before']})", file=sys.stderr)

    rows, summaries = [], []
    for store in args.stores:
        first = None
        for name in args.contestants:
            these = [r for r in runs
                     if (r["store"], r["name"]) == (pathlib.Path(store).name, name) and "error" not in r]
            rates = [r["cells_per_second"] for r in these]
            rate = median(rates)
            first = first or rate
            per_cpu = median([r["n_cells"] / r["cpu_seconds"] for r in these if r["cpu_seconds"]])
            summaries.append({
                "store": pathlib.Path(store).name, "name": name, "cells_per_second": rate,
                "least": min(rates, default=None), "most": max(rates, default=None),
                "cells_per_cpu_second": per_cpu, "over_first": rate and first and rate / first,
                "peak_rss_bytes": median([r["peak_rss_bytes"] for r in these]),
            })
            found = summaries[-1]
            rows.append([f"{found['store']}  {name}",
                         *(number(found[key]) for key in
                           ("cells_per_second", "least", "most", "cells_per_cpu_second")),
                         number(found["over_first"], 2)])
    print("\n" + harness.table(rows, ["", "cells/s", "least", "most", "cells/CPU s", "over the first"]))
    # Where the builds lie says nothing of them.
    args.commands = {
        name: " ".join([*(f"{k}={v}" for k, v in variables.items()), "cellfeed", *options])
        for name, (variables, _, options) in args.contestants.items()
    }
    harness.keep(args, "builds or settings of cellfeed side by side", summaries, runs)
    return 0 if all("error" not in r for r in runs) else 1


if __name__ == "__main__":
    sys.exit(main())
