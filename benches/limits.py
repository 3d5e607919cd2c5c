"""How near every format comes to what the machine can do, and what block sampling costs.

    python3 benches/limits.py atlas.h5ad atlas.csr atlas.packed.csr atlas.parquet atlas.zarr \\
        --rounds 5 --out benches/runs/DATE-limits.json

Of each store, in shuffled turns, each in a process of its own:

- blocks of 16 cells, fetches of 256 minibatches, for several epochs;
- streaming: the same fetches in file order, which is the fastest that there is;
- the settings that hold when nothing is said;
- `roofline`: read, decode and gather as bare loops over exactly the bytes that the first needs.

The table tells the rate as a share of the slowest bare loop (a loader that overlaps all three cannot pass it
from a cold disk), of all three in turn (nor that, from the page cache, where they share the cores), and of
these with rows brought into the order and types of minibatches for the gather ("widen"), which is the least
that a loader of such minibatches does; CPU seconds for each cell over those of bare decoding and gathering,
which run on all threads; and the rate over that of streaming.
"""

import argparse
import dataclasses
import pathlib
import random
import sys

import harness
from harness import median, number

BLOCKS, STREAMING, DEFAULT, LIMITS = "blocks", "streaming", "default", "roofline"
LOOPS = ("read", "decode", "gather", "widen")


@dataclasses.dataclass(frozen=True)
class Contestant:
    """A store, and how it is read."""

    store: str
    by_reads: bool = False

    @property
    def name(self):
        return pathlib.Path(self.store).name + (" by reads" if self.by_reads else "")

    def bare_reading(self, limits):
        """The bare loops that bring bytes: a map spares them, of an .h5ad in which nothing is decoded."""
        mapped = not self.by_reads and self.store.endswith(".h5ad")
        return () if mapped and all(run["decode_seconds"] == 0 for run in limits) else ("read",)


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stores", nargs="+", metavar="STORE")
    parser.add_argument("--by-reads", action="append", default=[], metavar="STORE",
                        help="a store that is mapped, by `--access read`: a row of its own (may be repeated)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6, help="of each run of Cellfeed")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--block-size", type=int, default=16)
    parser.add_argument("--fetch-factor", type=int, default=256)
    parser.add_argument("--memory", help="of Cellfeed, e.g. 2GiB")
    parser.add_argument("--order-seed", type=int, default=0, help="of the order of the runs")
    parser.add_argument("--cellfeed", help="a built `cellfeed`, instead of building it")
    parser.add_argument("--roofline", help="a built `roofline`, instead of building it")
    parser.add_argument("--note", default="", help="kept in the record")
    parser.add_argument("--out", help="write the record to this .json, and the runs to .csv")
    args = parser.parse_args()
    args.contestants = [Contestant(store) for store in args.stores]
    args.contestants += [Contestant(store, by_reads=True) for store in args.by_reads]
    missing = [at.store for at in args.contestants if not pathlib.Path(at.store).exists()]
    if missing:
        parser.error(f"{', '.join(missing)} is not there; `cellfeed generate` and `convert` make stores")
    return args


def commands(args, cellfeed, roofline, at):
    store = at.store
    plan = ["--batch-size", args.batch_size, "--fetch-factor", args.fetch_factor]
    blocks = ["--block-size", args.block_size]
    stream = [cellfeed, "stream", store, "--seconds", args.seconds, "--json"]
    if at.by_reads:
        stream += ["--access", "read"]
    if args.memory:
        stream += ["--memory", args.memory]
    return {
        BLOCKS: [*stream, "--strategy", "block-shuffling", *plan, *blocks],
        STREAMING: [*stream, "--strategy", "streaming", *plan],
        DEFAULT: stream,
        LIMITS: [roofline, store, *plan, *blocks, "--json"],
    }


def summary(at, runs):
    """What the runs of a contestant say together."""
    def of(who, what):
        return median([what(run) for run in runs if run["who"] == who and "error" not in run])

    def bare(run, *kinds):
        return sum(run[f"{kind}_seconds"] for kind in kinds) / run["n_cells"]

    reading = at.bare_reading([run for run in runs if run["who"] == LIMITS and "error" not in run])
    kinds = (*reading, "decode", "gather")
    rate = {who: of(who, lambda run: run["cells_per_second"]) for who in (BLOCKS, STREAMING, DEFAULT)}
    limit = of(LIMITS, lambda run: 1 / max(bare(run, kind) for kind in kinds))
    in_turn = of(LIMITS, lambda run: 1 / bare(run, *kinds))
    minibatches = of(LIMITS, lambda run: 1 / bare(run, *reading, "decode", "widen"))
    cpu = of(BLOCKS, lambda run: run["cpu_seconds"] / run["n_cells"])
    bare_cpu = of(LIMITS, lambda run: bare(run, "decode", "gather") * run["threads"])

    def over(a, b):
        return a / b if a and b else None

    return {
        "store": at.name,
        "blocks_cells_per_second": rate[BLOCKS],
        "streaming_cells_per_second": rate[STREAMING],
        "default_cells_per_second": rate[DEFAULT],
        "limit_cells_per_second": limit,
        "in_turn_cells_per_second": in_turn,
        "bare_minibatches_cells_per_second": minibatches,
        "share_of_bare_minibatches": over(rate[BLOCKS], minibatches),
        "share_of_limit": over(rate[BLOCKS], limit),
        "share_of_in_turn": over(rate[BLOCKS], in_turn),
        "share_of_streaming": over(rate[BLOCKS], rate[STREAMING]),
        "cells_per_cpu_second": over(1, cpu),
        "cpu_over_bare": over(cpu, bare_cpu),
        "peak_rss_bytes": of(DEFAULT, lambda run: run["peak_rss_bytes"]),
        "peak_own_bytes": of(DEFAULT, lambda run: run["peak_own_bytes"]),
        "seconds_per_100k_cells": {
            kind: of(LIMITS, lambda run, kind=kind: 1e5 * bare(run, kind))
            for kind in LOOPS
        },
    }


def tell(summaries):
    def percent(share):
        return number(share and 100 * share)

    rows = [
        [
            found["store"], number(found["blocks_cells_per_second"]),
            percent(found["share_of_limit"]), percent(found["share_of_in_turn"]),
            percent(found["share_of_bare_minibatches"]),
            percent(found["share_of_streaming"]), number(found["cells_per_cpu_second"]),
            number(found["cpu_over_bare"], 2), number(found["default_cells_per_second"]),
            number(found["peak_rss_bytes"] and found["peak_rss_bytes"] / 1e6),
            number(found["peak_own_bytes"] and found["peak_own_bytes"] / 1e6),
            *(number(found["seconds_per_100k_cells"][kind], 3) for kind in LOOPS),
        ]
        for found in summaries
    ]
    header = ["", "cells/s", "% limit", "% in turn", "% minib.", "% streaming", "cells/CPU s", "CPU/bare", "default",
              "peak MB", "own MB", "read", "decode", "gather", "widen"]
    print("\n" + harness.table(rows, header))
    print("\nread, decode, gather, widen: seconds of the bare loops for 100,000 cells; peak MB at the default settings,"
          "\nown MB of it without pages of mapped files")


def main():
    args = arguments()
    cellfeed = args.cellfeed or harness.build("cellfeed-cli", "cellfeed")
    roofline = args.roofline or harness.build("cellfeed-benches", "roofline")
    show = {str(cellfeed): "cellfeed", str(roofline): "roofline",
            **{at.store: pathlib.Path(at.store).name for at in args.contestants}}
    order = random.Random(args.order_seed)
    runs = []
    for turn in range(1, args.rounds + 1):
        queue = [(at, who) for at in args.contestants for who in (BLOCKS, STREAMING, DEFAULT, LIMITS)]
        order.shuffle(queue)
        for at, who in queue:
            files = [path for path in harness.files_of(at.store) if path.stat().st_size]
            cached = [harness.warm_cache(path) for path in files]
            run = harness.run_json(commands(args, cellfeed, roofline, at)[who], show)
            name = at.name
            runs.append({"store": name, "who": who, "round": turn,
                         "cached_before": round(min(cached, default=1.0), 4), **run})
            outcome = run.get("error") or f"{number(run['cells_per_second'])} cells/s"
            print(f"round {turn}  {name}  {who}: {outcome}  (load {run['load_before']})", file=sys.stderr)
    summaries = [
        summary(at, [run for run in runs if run["store"] == at.name])
        for at in args.contestants
    ]
    tell(summaries)
    harness.keep(args, "formats beside the bare limits of the machine, page cache warm", summaries, runs)
    return 1 if any("error" in run for run in runs) else 0


if __name__ == "__main__":
    sys.exit(main())
