"""What grows with the number of cells: opening, memory, the first minibatch, the time of a fetch.

    python3 benches/size.py FOLDER --cells 1000000 10000000 100000000 --out benches/runs/DATE-size.json

Makes plain .csr stores of so many cells in the folder (kept, as long as nobody removes them): a gene a
cell, the arrays of genes and values as files with nothing but a hole in them, so that 10^9 cells take 8 GB
of disk, for the row offsets. Rows so short tell nothing of throughput; they tell what the loader does
beside moving bytes. Each run is a process of its own, in shuffled turns, the page cache warm.
"""

import argparse
import array
import json
import pathlib
import random
import sys

import harness
from harness import median, number

STRATEGIES = ("streaming", "block-shuffling", "stratified", "true-random")
PART = 1 << 20


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", help="where the stores are made")
    parser.add_argument("--cells", type=int, nargs="+", default=[10**6, 10**7, 10**8])
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=STRATEGIES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3, help="of each run")
    parser.add_argument("--order-seed", type=int, default=0, help="of the order of the runs")
    parser.add_argument("--cellfeed", help="a built `cellfeed`, instead of building it")
    parser.add_argument("--note", default="", help="kept in the record")
    parser.add_argument("--out", help="write the record to this .json, and the runs to .csv")
    return parser.parse_args()


def hole(path, size):
    with open(path, "wb") as file:
        file.truncate(size)


def make(folder, cells):
    """A store of so many cells, which has its header last, as the format wants it."""
    store = folder / f"{cells}.csr"
    if (store / "header.json").exists():
        return store
    print("making", store.name, "...", file=sys.stderr)
    store.mkdir(parents=True, exist_ok=True)
    with open(store / "indptr", "wb") as file:
        for start in range(0, cells + 1, PART):
            part = array.array("Q", range(start, min(start + PART, cells + 1)))
            if sys.byteorder == "big":
                part.byteswap()
            part.tofile(file)
    hole(store / "indices", cells * 2)
    hole(store / "data", cells)

    def file(name):
        # Arrays may go without being held against their checksums.
        return {"path": name, "bytes": (store / name).stat().st_size, "xxh3": "0" * 16}

    header = {
        "format": "cellfeed-csr", "version": 1, "n_obs": cells,
        "obs": {"n_rows": cells, "columns": []},
        "var": {"n_rows": 20_000, "columns": []},
        "matrices": [{
            "key": "X", "layout": "plain", "n_vars": 20_000, "nnz": cells, "value_type": "u8",
            "index_type": "u16", "indptr": file("indptr"), "indices": file("indices"),
            "data": file("data"),
        }],
    }
    (store / "header.json").write_text(json.dumps(header))
    return store


def main():
    args = arguments()
    cellfeed = args.cellfeed or harness.build("cellfeed-cli", "cellfeed")
    stores = {cells: make(pathlib.Path(args.folder), cells) for cells in args.cells}
    show = {str(cellfeed): "cellfeed", **{str(store): store.name for store in stores.values()}}
    order = random.Random(args.order_seed)
    runs = []
    for turn in range(1, args.rounds + 1):
        queue = [(cells, strategy) for cells in args.cells for strategy in args.strategies]
        order.shuffle(queue)
        for cells, strategy in queue:
            command = [cellfeed, "stream", stores[cells], "--strategy", strategy, "--fetch-factor", 256,
                       "--seconds", args.seconds, "--json"]
            run = harness.run_json(command, show)
            if "error" not in run:
                run["seconds_per_fetch"] = run["seconds"] / run["n_cells"] * 64 * 256
            runs.append({"cells": cells, "strategy_name": strategy, "round": turn, **run})
            outcome = run.get("error") or f"open {run['open_seconds']:.3f} s"
            print(f"round {turn}  {cells:,}  {strategy}: {outcome}  (load {run['load_before']})",
                  file=sys.stderr)
    rows, summaries = [], []
    for cells in args.cells:
        for strategy in args.strategies:
            mine = [r for r in runs if (r["cells"], r["strategy_name"]) == (cells, strategy)]
            keys = ("open_seconds", "first_minibatch_seconds", "seconds_per_fetch", "peak_rss_bytes", "peak_own_bytes")
            found = {key: median([run.get(key) for run in mine]) for key in keys}
            summaries.append({"cells": cells, "strategy": strategy, **found})
            rows.append([
                f"{cells:,} {strategy}", number(found["open_seconds"], 3),
                number(found["first_minibatch_seconds"] and found["first_minibatch_seconds"] * 1e3, 1),
                number(found["seconds_per_fetch"] and found["seconds_per_fetch"] * 1e3, 1),
                number(found["peak_rss_bytes"] and found["peak_rss_bytes"] / 1e6),
                number(found["peak_own_bytes"] and found["peak_own_bytes"] / 1e6),
            ])
    print("\n" + harness.table(rows, ["cells", "open s", "first ms", "ms a fetch", "peak MB", "own MB"]))
    print("\na fetch is 16,384 cells; own MB: of the peak, without pages of mapped files")
    harness.keep(args, "opening, memory and fetches by the number of cells", summaries, runs)
    return 1 if any("error" in run for run in runs) else 0


if __name__ == "__main__":
    sys.exit(main())
