"""How near `cellfeed stream` comes to the disk: epochs from stores that the page cache does not hold.

    python3 benches/cold.py plain.csr packed.csr atlas.h5ad --rounds 3 --out benches/runs/DATE-cold.json

In each round, for every store in turn: its pages are dropped from the page cache, one epoch of block
shuffling is streamed, the pages are dropped again, and fio reads as many bytes from the store's
largest file, at random places, each read as long as Cellfeed's mean read, with O_DIRECT, at each queue
depth of `--depths`. The best depth is the disk's limit. Needs fio, Linux, and a file system that knows
O_DIRECT; otherwise the standard library only.
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import sys

import harness
from harness import median, number


def drop(store):
    """Empties the page cache of a store; answers the largest share of a file that stayed."""
    return max(harness.drop_from_cache(file) for file in harness.files_of(store) if file.stat().st_size)


def fio(file, block, depth, total):
    """Random reads of a file; bytes a second."""
    block = max(4096, (block + 4095) // 4096 * 4096)
    command = [
        "fio", "--name=limit", f"--filename={file}", "--rw=randread", f"--bs={block}",
        "--ioengine=libaio", "--direct=1", f"--iodepth={depth}", "--readonly", "--randrepeat=0",
        f"--io_size={max(total, block * depth)}", "--runtime=20", "--output-format=json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"fio failed: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
    text = done.stdout[done.stdout.index("{"):]
    return json.loads(text)["jobs"][0]["read"]["bw_bytes"]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stores", nargs="+", metavar="STORE")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--depths", type=int, nargs="+", default=[1, 8, 32, 64])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--block-size", type=int, default=16)
    parser.add_argument("--fetch-factor", type=int, default=256)
    parser.add_argument("--seconds", type=float, help="of each stream; default: a whole epoch")
    parser.add_argument("--memory", default="2GiB")
    parser.add_argument("--cellfeed", help="a built `cellfeed`, instead of building it")
    parser.add_argument("--note", default="", help="kept in the record")
    parser.add_argument("--out", help="write the record to this .json, and the runs to .csv")
    args = parser.parse_args()
    if not shutil.which("fio"):
        sys.exit("fio is not installed: `apt install fio`, or what your system calls it")
    cellfeed = args.cellfeed or harness.build("cellfeed-cli", "cellfeed")
    show = {cellfeed: "cellfeed", **{store: pathlib.Path(store).name for store in args.stores}}
    plan = ["--batch-size", args.batch_size, "--block-size", args.block_size,
            "--fetch-factor", args.fetch_factor, "--memory", args.memory, "--json"]
    if args.seconds:
        plan += ["--seconds", args.seconds]
    runs = []
    for turn in range(1, args.rounds + 1):
        for store in args.stores:
            name = pathlib.Path(store).name
            stayed = drop(store)
            run = harness.run_json([cellfeed, "stream", store, *plan], show)
            if "error" in run:
                sys.exit(f"{name}: {run['error']}")
            speed = run["bytes_read"] / run["seconds"]
            block = run["bytes_read"] // max(run["reads"], 1)
            largest = max(harness.files_of(store), key=lambda file: file.stat().st_size)
            limits = {}
            for depth in args.depths:
                drop(store)
                limits[depth] = fio(largest, block, depth, min(run["bytes_read"], 1 << 30))
            best = max(limits, key=limits.get)
            runs.append({
                "store": name, "round": turn, "cached_before": round(stayed, 4), **run,
                "bytes_per_second": speed, "bytes_a_read": block, "fio_bytes_per_second": limits,
                "best_depth": best, "share_of_disk": speed / limits[best],
            })
            print(f"round {turn}  {name}: {number(run['cells_per_second'])} cells/s, "
                  f"{speed / 1e6:.0f} MB/s in reads of {block / 1e3:.0f} kB; fio at depth {best} "
                  f"{limits[best] / 1e6:.0f} MB/s: {speed / limits[best]:.0%}  "
                  f"(load {run['load_before']})", file=sys.stderr)
    rows, summaries = [], []
    for store in dict.fromkeys(run["store"] for run in runs):
        mine = [run for run in runs if run["store"] == store]
        of = lambda key: median([run[key] for run in mine])  # noqa: E731
        limit = median([max(run["fio_bytes_per_second"].values()) for run in mine])
        summaries.append({
            "store": store, "cells_per_second": of("cells_per_second"),
            "bytes_per_second": of("bytes_per_second"), "bytes_a_read": of("bytes_a_read"),
            "fio_bytes_per_second": limit, "share_of_disk": of("share_of_disk"),
        })
        rows.append([
            store, number(of("cells_per_second")), number(of("bytes_per_second") / 1e6),
            number(of("bytes_a_read") / 1e3), number(limit / 1e6),
            f"{of('share_of_disk'):.0%}",
        ])
    print()
    print(harness.table(rows, ["store", "cells/s", "MB/s", "kB a read", "fio MB/s", "share"]))
    if args.out:
        harness.save({
            "what": "cold epochs and the disk", "note": args.note, **harness.facts(),
            "fio": harness.first_line("fio", "--version"), "summaries": summaries, "runs": runs,
        }, args.out)


if __name__ == "__main__":
    main()
