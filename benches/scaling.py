"""How `cellfeed stream` scales: speed over threads, and peak memory over --memory and file size.

    python3 benches/scaling.py atlas.h5ad --threads 1 2 --memory 256MiB 512MiB 1GiB

Every run is a process of its own over one whole epoch, and the settings take turns in an order
shuffled by --order-seed. The open time of each file is reported too. Standard library only.
"""

import argparse
import pathlib
import random
import sys

import harness
from harness import median, number


def arguments():
    cores = harness.facts()["cores"]
    powers = [n for n in (1, 2, 4, 8, 16, 32, 64, 128) if n < cores] + [cores]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stores", nargs="+", metavar="STORE")
    parser.add_argument("--threads", type=int, nargs="*", default=powers, metavar="N")
    parser.add_argument("--memory", nargs="*", default=[], metavar="SIZE")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--block-size", type=int, default=16)
    parser.add_argument("--fetch-factor", type=int, default=256)
    parser.add_argument("--layout", choices=["csr", "dense"], default="csr")
    parser.add_argument("--seed", type=int, default=0, help="of the sampling")
    parser.add_argument("--order-seed", type=int, default=0, help="of the order of the runs")
    parser.add_argument("--cellfeed", help="a built `cellfeed`, instead of building it")
    parser.add_argument("--note", default="", help="kept in the record")
    parser.add_argument("--out", help="write the record to this .json, and the runs to .csv")
    return parser.parse_args()


def main():
    args = arguments()
    cellfeed = args.cellfeed or harness.build("cellfeed-cli", "cellfeed")
    settings = [("threads", str(n)) for n in args.threads]
    settings += [("memory", size) for size in args.memory]
    plan = ["--batch-size", args.batch_size, "--block-size", args.block_size]
    plan += ["--fetch-factor", args.fetch_factor, "--seed", args.seed, "--layout", args.layout]
    show = {cellfeed: "cellfeed", **{store: pathlib.Path(store).name for store in args.stores}}
    order = random.Random(args.order_seed)
    runs = []
    for turn in range(1, args.rounds + 1):
        turns = [(store, *setting) for store in args.stores for setting in settings]
        order.shuffle(turns)
        for store, option, value in turns:
            harness.warm_cache(store)
            command = [cellfeed, "stream", store, *plan, f"--{option}", value, "--json"]
            run = harness.run_json(command, show)
            name = pathlib.Path(store).name
            runs.append({"store": name, "option": option, "value": value, "round": turn, **run})
            outcome = run.get("error") or f"{number(run['cells_per_second'])} cells/s"
            print(f"round {turn}  {name}  --{option} {value}: {outcome}  "
                  f"(load {run['load_before']})", file=sys.stderr)

    rows, summaries = [], []
    for store in args.stores:
        name = pathlib.Path(store).name
        base = None
        for option, value in settings:
            these = [
                r for r in runs
                if (r["store"], r["option"], r["value"]) == (name, option, value)
            ]
            error = next((r["error"] for r in these if "error" in r), None)

            def of(key):
                return median([r.get(key) for r in these])

            rate, peak = of("cells_per_second"), of("peak_rss_bytes")
            cost = median([
                r["cpu_seconds"] / r["n_cells"] * 1e5 for r in these if r.get("n_cells")
            ])
            base = base or (rate if option == "threads" else None)
            gain = rate / base if option == "threads" and rate and base else None
            summaries.append({
                "store": name, "bytes": pathlib.Path(store).stat().st_size, "option": option,
                "value": value, "cells_per_second": rate, "speed_up": gain,
                "cpu_seconds_per_100k_cells": cost, "peak_rss_bytes": peak,
                "open_seconds": of("open_seconds"), "error": error,
            })
            if error:
                print(f"{name} --{option} {value}: {error}", file=sys.stderr)
            rows.append([
                f"{name} --{option} {value}", number(rate), number(gain, 2), number(cost, 2),
                number(peak and peak / 1e6), number(of("open_seconds"), 3),
            ])
    print()
    print(harness.table(
        rows, ["run", "cells/s", "speed-up", "CPU s/100k", "peak MB", "open s"]
    ))
    harness.keep(args, "cellfeed stream over threads and memory", summaries, runs,
                 cellfeed=harness.first_line(cellfeed, "--version"))
    return 0 if all("error" not in run for run in runs) else 1


if __name__ == "__main__":
    sys.exit(main())
