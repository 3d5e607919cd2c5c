"""Whether a training step waits: `cellfeed stream --step-ms` over stores, whose pages are cached.

    python3 benches/stalls.py atlas.h5ad atlas.csr --step-ms 1 4 16

The consumer sleeps so long after each minibatch, as a step on a GPU would take; 0 is a consumer that
takes what it gets. Every run is a process of its own over one whole epoch, and stores and steps take
turns in an order shuffled by --order-seed. Reported are the medians over rounds; the longest wait is
that of all rounds. The first minibatch is apart: a run has to start. Standard library only.
"""

import argparse
import pathlib
import random
import sys

import harness
from harness import median, number


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stores", nargs="+", metavar="STORE")
    parser.add_argument("--step-ms", type=float, nargs="+", default=[0, 1, 4, 16], metavar="MS")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--block-size", type=int, default=16)
    parser.add_argument("--fetch-factor", type=int, default=256)
    parser.add_argument("--read-ahead", type=int, default=1)
    parser.add_argument("--layout", choices=["csr", "dense"], default="csr")
    parser.add_argument("--seed", type=int, default=0, help="of the sampling")
    parser.add_argument("--order-seed", type=int, default=0, help="of the order of the runs")
    parser.add_argument("--cellfeed", help="a built `cellfeed`, instead of building it")
    parser.add_argument("--note", default="", help="kept in the record")
    parser.add_argument("--out", help="write the record to this .json, and the runs to .csv")
    return parser.parse_args()


def waited_share(run):
    """The share of a run after its first minibatch that the consumer waited."""
    rest = run["seconds"] - run["first_minibatch_seconds"]
    return run["wait_after_first_seconds"] / rest if rest > 0 else None


def main():
    args = arguments()
    cellfeed = args.cellfeed or harness.build("cellfeed-cli", "cellfeed")
    plan = ["--batch-size", args.batch_size, "--block-size", args.block_size]
    plan += ["--fetch-factor", args.fetch_factor, "--read-ahead", args.read_ahead]
    plan += ["--seed", args.seed, "--layout", args.layout]
    show = {cellfeed: "cellfeed", **{store: pathlib.Path(store).name for store in args.stores}}
    order = random.Random(args.order_seed)
    runs = []
    for turn in range(1, args.rounds + 1):
        turns = [(store, step) for store in args.stores for step in args.step_ms]
        order.shuffle(turns)
        for store, step in turns:
            cached = min((harness.warm_cache(file) for file in harness.files_of(store)), default=1)
            command = [cellfeed, "stream", store, *plan, "--step-ms", step, "--json"]
            run = harness.run_json(command, show)
            run["cached"] = round(cached, 3)
            if "error" not in run:
                run["waited_share"] = waited_share(run)
            name = pathlib.Path(store).name
            runs.append({"store": name, "step_ms": step, "round": turn, **run})
            outcome = run.get("error") or f"{number(run['cells_per_second'])} cells/s"
            print(f"round {turn}  {name}  --step-ms {step:g}: {outcome}  "
                  f"(load {run['load_before']})", file=sys.stderr)

    rows, summaries = [], []
    for store in args.stores:
        name = pathlib.Path(store).name
        for step in args.step_ms:
            these = [r for r in runs if (r["store"], r["step_ms"]) == (name, step)]

            def of(key):
                return median([r.get(key) for r in these])

            longest = max((r.get("wait_max_seconds") or 0 for r in these), default=None)
            summary = {
                "store": name, "step_ms": step, "cells_per_second": of("cells_per_second"),
                "first_minibatch_seconds": of("first_minibatch_seconds"),
                "waited_share": of("waited_share"),
                "wait_p50_seconds": of("wait_p50_seconds"),
                "wait_p99_seconds": of("wait_p99_seconds"), "wait_max_seconds": longest,
                "error": next((r["error"] for r in these if "error" in r), None),
            }
            summaries.append(summary)
            if summary["error"]:
                print(f"{name} --step-ms {step:g}: {summary['error']}", file=sys.stderr)

            def ms(key):
                return number(summary[key] and summary[key] * 1e3, 2)

            share = summary["waited_share"]
            rows.append([
                f"{name} --step-ms {step:g}", number(summary["cells_per_second"]),
                ms("first_minibatch_seconds"),
                number(None if share is None else 100 * share, 2),
                ms("wait_p50_seconds"), ms("wait_p99_seconds"), ms("wait_max_seconds"),
            ])
    print()
    print(harness.table(
        rows, ["run", "cells/s", "first ms", "waited %", "p50 ms", "p99 ms", "longest ms"]
    ))
    harness.keep(args, "cellfeed stream with a consumer that sleeps", summaries, runs,
                 cellfeed=harness.first_line(cellfeed, "--version"))
    return 0 if all("error" not in run for run in runs) else 1


if __name__ == "__main__":
    sys.exit(main())
