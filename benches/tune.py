"""Whether `cellfeed tune` is right: its predictions against runs, its choice against others.

    python3 benches/tune.py --cells 200000 --folder stores --out benches/runs/2026-01-31-tune.json

Makes one atlas (kept in --folder), the same in other formats, shuffled, and with one giant class;
tunes each case; then runs the recommended setting and the best others that meet the target, in shuffled
turns, with `cellfeed stream`. `regret` is by how much the fastest of these beats the recommended one.
Give the machine nothing else to do meanwhile. Standard library only.
"""

import argparse
import pathlib
import random
import subprocess
import sys

import harness
from harness import median, number

# Structure, store, label.
CASES = [
    ("long runs", "atlas.h5ad", "plate"),
    ("short runs in plates", "atlas.h5ad", "drug"),
    ("mixed in plates", "atlas.h5ad", "cell_line"),
    ("long runs", "gzip.h5ad", "plate"),
    ("long runs", "atlas.csr", "plate"),
    ("short runs in plates", "atlas.csr", "drug"),
    ("long runs", "atlas.zarr", "plate"),
    ("long runs", "atlas.parquet", "plate"),
    ("shuffled", "shuffled.csr", "plate"),
    ("one giant class", "giant.csr", "plate"),
    ("one value", "atlas.csr", "sublibrary"),
]


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", required=True, help="where stores are made, and kept")
    parser.add_argument("--cells", type=int, default=200_000)
    parser.add_argument("--cases", nargs="*", default=[], metavar="STORE/LABEL", help="only these")
    parser.add_argument("--time-limit", type=float, default=60, help="of each tuning, in seconds")
    parser.add_argument("--target-deff", type=float, default=1.5)
    parser.add_argument("--memory", default="1GiB")
    parser.add_argument("--others", type=int, default=5, help="settings to run beside the best")
    parser.add_argument("--seconds", type=float, default=3, help="of each run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--order-seed", type=int, default=0, help="of the order of the runs")
    parser.add_argument("--cellfeed", help="a built `cellfeed`, instead of building it")
    parser.add_argument("--note", default="", help="kept in the record")
    parser.add_argument("--out", help="write the record to this .json, and the runs to .csv")
    return parser.parse_args()


def make(cellfeed, folder, cells):
    """Makes the stores that are not there."""
    folder.mkdir(parents=True, exist_ok=True)
    atlas, few = folder / "atlas.h5ad", folder / "few.h5ad"
    generate = [cellfeed, "generate"]
    convert = [cellfeed, "convert"]
    one = folder / "one.h5ad"
    steps = [
        (atlas, [*generate, atlas, "--cells", cells]),
        (folder / "gzip.h5ad", [*convert, atlas, folder / "gzip.h5ad", "--codec", "gzip"]),
        (folder / "atlas.csr", [*convert, atlas, folder / "atlas.csr"]),
        (folder / "atlas.zarr", [*convert, atlas, folder / "atlas.zarr"]),
        (folder / "atlas.parquet", [*convert, atlas, folder / "atlas.parquet"]),
        (folder / "shuffled.csr", [*convert, atlas, folder / "shuffled.csr", "--shuffle"]),
        (one, [*generate, one, "--cells", cells * 9 // 20, "--plates", 1]),
        (few, [*generate, few, "--cells", cells // 20, "--plates", 6, "--seed", 9]),
        (folder / "giant.csr", [*convert, one, few, folder / "giant.csr"]),
    ]
    for path, command in steps:
        if not path.exists():
            print("making", path.name, "...", file=sys.stderr)
            subprocess.run([*map(str, command), "--quiet"], check=True)


def setting_of(candidate):
    return candidate["strategy"], candidate["block_size"], candidate["fetch_factor"]


def words(setting, label):
    """How `cellfeed stream` is told a setting."""
    strategy, block, factor = setting
    by = ["--by", label] if strategy == "stratified-by-label" else []
    strategy = "stratified" if by else strategy
    return ["--strategy", strategy, *by, "--block-size", block, "--fetch-factor", factor]


def speed_of(candidate, state):
    speed = candidate[state] or {}
    return speed.get("measured_cells_per_second") or speed.get("predicted_cells_per_second") or 0


def tune(args, cellfeed, store, label, show):
    command = [cellfeed, "tune", store, "--label", label, "--time-limit", args.time_limit, "--json"]
    command += ["--target-deff", args.target_deff, "--memory", args.memory]
    report = harness.run_json(command, show)
    if "error" in report:
        sys.exit(f"{pathlib.Path(store).name}, {label}: {report['error']}")
    return report


def main():
    args = arguments()
    cellfeed = args.cellfeed or harness.build("cellfeed-cli", "cellfeed")
    folder = pathlib.Path(args.folder)
    make(cellfeed, folder, args.cells)
    order = random.Random(args.order_seed)
    cases, runs = [], []
    for structure, name, label in CASES:
        if args.cases and f"{name}/{label}" not in args.cases:
            continue
        store = folder / name
        show = {cellfeed: "cellfeed", str(store): name}
        print(f"tuning {name} for {label} ...", file=sys.stderr)
        report = tune(args, cellfeed, store, label, show)
        best, state = report["recommended"], report["page_cache"]["decides"]
        chosen = setting_of(best["setting"])
        able = [c for c in report["candidates"] if c["fits"] and c["meets_target"]]
        able.sort(key=lambda c: -speed_of(c, state))
        others = [setting_of(c) for c in able if setting_of(c) != chosen][: args.others]
        turns = [(turn, s) for turn in range(args.rounds) for s in [chosen, *others]]
        order.shuffle(turns)
        speeds = {}
        for turn, setting in turns:
            if state == "warm":
                for file in harness.files_of(store):
                    harness.warm_cache(file)
            command = [cellfeed, "stream", store, *words(setting, label), "--json", "--quiet"]
            command += ["--seconds", args.seconds, "--memory", args.memory]
            command += ["--read-ahead", best["read_ahead"], "--threads", best["threads"]]
            run = harness.run_json(command, show)
            if "error" in run:
                sys.exit(f"{name}: {run['error']}")
            # What a run of seconds spends on opening and the first fetch is no part of the speed.
            pause = run["open_seconds"] + run["first_minibatch_seconds"]
            rate = run["n_cells"] / max(run["seconds"] - pause, 1e-9)
            speeds.setdefault(setting, []).append(rate)
            runs.append({"case": f"{structure}: {name}, {label}", "setting": setting, "round": turn,
                         "steady_cells_per_second": rate, **run})
        medians = {setting: median(rates) for setting, rates in speeds.items()}
        fastest = max(medians, key=medians.get)
        check = report["check"]
        cases.append({
            "structure": structure, "store": name, "label": label, "setting": chosen,
            "read_ahead": best["read_ahead"], "threads": best["threads"],
            "memory_bytes": best["setting"]["memory_bytes"],
            "predicted": check["predicted_cells_per_second"],
            "measured_by_tune": check["measured_cells_per_second"],
            "measured_by_stream": medians[chosen],
            "deff_predicted": check["predicted_diversity"]["deff_w"],
            "deff_measured": check["measured_diversity"]["deff_w"],
            "model_error": report["model"]["error"], "spread": report["effort"]["spread"],
            "tuning_seconds": report["effort"]["seconds"],
            "fastest_run": fastest, "regret": medians[fastest] / medians[chosen] - 1,
            "others": {" ".join(map(str, s)): m for s, m in medians.items()},
        })
    result = {"note": args.note, "facts": harness.facts(), "cases": cases, "runs": runs,
              "arguments": {k: v for k, v in vars(args).items() if k not in ("cellfeed", "folder", "out")}}
    print(report_of(cases))
    if args.out:
        harness.save(result, args.out)


def report_of(cases):
    rows = [
        [
            f"{c['structure']}: {c['store']}, {c['label']}",
            f"{c['setting'][0]} {c['setting'][1]} x {c['setting'][2]}",
            number(c["predicted"] / 1e3), number(c["measured_by_tune"] / 1e3),
            number(c["measured_by_stream"] / 1e3),
            number(c["deff_predicted"], 2), number(c["deff_measured"], 2),
            number((c["model_error"] or 0) * 100), number(c["regret"] * 100),
        ]
        for c in cases
    ]
    header = ["case", "recommended", "predicted", "run", "stream", "DEFF", "run", "model %", "regret %"]
    return harness.table(rows, header) + "\n\nSpeeds in thousand cells a second."


if __name__ == "__main__":
    main()
