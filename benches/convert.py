"""How near `cellfeed convert` comes to its limits: the decoder of the source, the encoder of the
destination.

    python3 benches/convert.py atlas.h5ad --rounds 3 --out benches/runs/DATE-convert.json

Makes a store of each `--to` of the source, each again of each, and times all pairs. Beside each pair
stand two runs: streaming the source in file order (what reading and decoding take), and converting a
plain .csr store of the same cells, which costs next to nothing to read, into the destination (what
encoding and writing take). The share is the slower of the two over the conversion's time. Shuffled
conversions of each source into a plain .csr store come last. Everything is read from the page cache;
what is written is brought to the disk, as always. Standard library only.
"""

import argparse
import pathlib
import random
import shutil
import sys
import tempfile

import harness
from harness import median, number

FORMATS = {
    "h5ad": ("h5ad", "none"), "h5ad-gzip": ("h5ad", "gzip"), "zarr": ("zarr", "blosc-lz4"),
    "parquet": ("parquet", "blob-lz4"), "csr": ("csr", "plain"), "csr-packed": ("csr", "packed"),
}


def warm(path):
    """Fills the page cache with a store."""
    for file in harness.files_of(path):
        if file.stat().st_size:
            harness.warm_cache(file)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--to", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--memory", default="2GiB")
    parser.add_argument("--order-seed", type=int, default=0)
    parser.add_argument("--folder", help="where stores are made; default: beside the source")
    parser.add_argument("--cellfeed", help="a built `cellfeed`, instead of building it")
    parser.add_argument("--note", default="", help="kept in the record")
    parser.add_argument("--out", help="write the record to this .json, and the runs to .csv")
    args = parser.parse_args()
    cellfeed = args.cellfeed or harness.build("cellfeed-cli", "cellfeed")
    source = pathlib.Path(args.store).resolve()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="convert-", dir=args.folder or source.parent))
    show = {cellfeed: "cellfeed", str(source): source.name}
    try:
        runs = measure(args, cellfeed, source, folder, show)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report(args, runs)


def measure(args, cellfeed, source, folder, show):
    def convert(start, name, target, *more):
        warm(start)
        ending, codec = FORMATS[name]
        show.update({str(start): start.name, str(target): target.name})
        return harness.run_json(
            [cellfeed, "convert", start, target, "--format", ending, "--codec", codec, "--force",
             "--memory", args.memory, "--json", *more], show)

    stores = {}
    for name in dict.fromkeys([*args.to, "csr"]):
        stores[name] = folder / f"{name}.{FORMATS[name][0]}"
        made = convert(source, name, stores[name])
        if "error" in made:
            sys.exit(made["error"])
    order = random.Random(args.order_seed)
    runs = []
    for turn in range(1, args.rounds + 1):
        turns = [("decode", a, None) for a in args.to] + [("encode", None, b) for b in args.to]
        turns += [("convert", a, b) for a in args.to for b in args.to]
        turns += [("shuffle", a, "csr") for a in args.to]
        order.shuffle(turns)
        for kind, a, b in turns:
            out = folder / f"out.{FORMATS[b][0]}" if b else None
            if kind == "decode":
                warm(stores[a])
                show[str(stores[a])] = stores[a].name
                run = harness.run_json(
                    [cellfeed, "stream", stores[a], "--strategy", "streaming", "--memory",
                     args.memory, "--json"], show)
            elif kind == "encode":
                run = convert(stores["csr"], b, out)
            else:
                run = convert(stores[a], b, out, *(["--shuffle"] if kind == "shuffle" else []))
            if "error" in run:
                sys.exit(f"{kind} {a} {b}: {run['error']}")
            for key in ("dropped", "path"):
                run.pop(key, None)
            runs.append({"kind": kind, "from": a, "to": b, "round": turn, **run})
            print(f"round {turn}  {kind} {a or ''} {b or ''}: {run['seconds']:.2f} s  "
                  f"(load {run['load_before']})", file=sys.stderr)
    return runs


def report(args, runs):
    def seconds(kind, a, b):
        of = [r["seconds"] for r in runs if (r["kind"], r["from"], r["to"]) == (kind, a, b)]
        return median(of)

    rows, summaries = [], []
    for kind in ("convert", "shuffle"):
        pairs = dict.fromkeys((r["from"], r["to"]) for r in runs if r["kind"] == kind)
        for a, b in sorted(pairs):
            decode = seconds("decode", a, None)
            encode = seconds("encode", None, b) if b in args.to else None
            took = seconds(kind, a, b)
            share = max(decode, encode or 0) / took
            peak = max(r["peak_rss_bytes"] for r in runs
                       if (r["kind"], r["from"], r["to"]) == (kind, a, b))
            summaries.append({"kind": kind, "from": a, "to": b, "seconds": took,
                              "decode_seconds": decode, "encode_seconds": encode,
                              "share": share, "peak_rss_bytes": peak})
            rows.append([f"{a} to {b}{', shuffled' if kind == 'shuffle' else ''}",
                         number(took, 2), number(decode, 2), number(encode, 2), f"{share:.0%}",
                         number(peak / 1e6)])
    print()
    print(harness.table(rows, ["", "seconds", "decode", "encode", "share", "peak MB"]))
    if args.out:
        harness.save({
            "what": "conversions and their limits", "note": args.note, **harness.facts(),
            "memory": args.memory, "summaries": summaries, "runs": runs,
        }, args.out)


if __name__ == "__main__":
    main()
