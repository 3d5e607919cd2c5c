"""What the comparisons with peers share: turns in shuffled order, agreement, medians, the record.

A case is one thing to do (a store and a setting); its contestants are commands that print one JSON
object with at least n_cells, seconds, cells_per_second, cpu_seconds, sum and nnz. The first
contestant of a case is the one that the others are compared with.
"""

import argparse
import pathlib
import random
import subprocess
import sys
import venv

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import harness  # noqa: E402
from harness import median, number  # noqa: E402

TOLERANCE = 0.02


def parser(doc):
    """A parser with the options that every comparison has."""
    out = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    out.add_argument("--rounds", type=int, default=3)
    out.add_argument("--order-seed", type=int, default=0, help="of the order of the runs")
    out.add_argument("--cold", action="store_true", help="empty the page cache before each run")
    out.add_argument("--cellfeed", help="a built `cellfeed`, instead of building it")
    out.add_argument("--python", help="a Python that has the peer installed")
    out.add_argument("--venv", help="the environment to make or to reuse")
    out.add_argument("--note", default="", help="kept in the record, e.g. how stores were made")
    out.add_argument("--out", help="write the record to this .json, and the runs to .csv")
    return out


def python(args, requirements):
    """The Python with the packages of a requirements file beside this one."""
    if args.python:
        return args.python
    folder = pathlib.Path(args.venv or HERE / f".venv-{pathlib.Path(requirements).stem}")
    executable = folder / "bin" / "python"
    wanted = (HERE / requirements).read_text()
    mark = folder / "installed.txt"
    if not mark.exists() or mark.read_text() != wanted:
        print("installing", requirements, "...", file=sys.stderr)
        venv.create(folder, with_pip=True)
        command = [executable, "-m", "pip", "install", "--quiet", "-r", HERE / requirements]
        subprocess.run(command, check=True)
        mark.write_text(wanted)
    return str(executable)


def prepare(paths, cold):
    """Fills the page cache with stores, or empties it; answers the share of bytes in it."""
    sizes = shares = 0
    for path in (file for store in paths for file in harness.files_of(store)):
        size = path.stat().st_size
        if size:
            shares += size * (harness.drop_from_cache if cold else harness.warm_cache)(path)
            sizes += size
    return shares / sizes if sizes else 1.0


def agreement(runs):
    """Whether the contestants of a case yielded the same; a sentence, and whether it is so.

    Over equal numbers of cells the numbers of values and the sums must be the same; else the mean
    sum of a cell must agree within 2 %.
    """
    good = [run for run in runs if "error" not in run]
    if len({run["who"] for run in good}) < len({run["who"] for run in runs}):
        return "not compared: a contestant failed", False
    if len({run["n_cells"] for run in good}) == 1:
        values = {run["nnz"] for run in good}
        sums = [run["sum"] for run in good]
        near = max(sums) - min(sums) <= 1e-9 * max(abs(s) for s in sums)
        same = len(values) == 1 and near
        words = f"{good[0]['n_cells']:,} cells, {sorted(values)} values, sum {sums[0]:,.6g}"
        return (f"same {words}", True) if same else (f"DIFFERENT: {words}, sums {sums}", False)
    means = [run["sum"] / run["n_cells"] for run in good]
    gap = max(means) / min(means) - 1
    words = f"mean sum of a cell {min(means):,.2f} to {max(means):,.2f}"
    return (words, True) if gap <= TOLERANCE else (f"DIFFERENT: {words}", False)


def hold(args, what, cases, show):
    """Runs all cases, prints a table, saves the record. Answers whether all agreed.

    `cases` has dicts with `name`, `stores` (paths to warm or to empty) and `contestants`, a dict of
    name to command; `show` maps words of commands to what is recorded instead of them.
    """
    order = random.Random(args.order_seed)
    runs, versions = [], {}
    for turn in range(1, args.rounds + 1):
        turns = [(case, who) for case in cases for who in case["contestants"]]
        order.shuffle(turns)
        for case, who in turns:
            ready = prepare(case["stores"], args.cold)
            run = harness.run_json(case["contestants"][who], show)
            versions.update(run.pop("versions", None) or {})
            runs.append({"case": case["name"], "who": who, "round": turn,
                         "cached_before": round(ready, 4), **run})
            outcome = run.get("error") or f"{number(run['cells_per_second'])} cells/s"
            print(f"round {turn}  {case['name']}  {who}: {outcome}  (load {run['load_before']}, "
                  f"cached {ready:.0%})", file=sys.stderr)
    summaries, rows, good = [], [], True
    for case in cases:
        these = [run for run in runs if run["case"] == case["name"]]
        words, same = agreement(these)
        good = good and same
        summary = {"case": case["name"], "agreement": words, "agree": same}
        rows.append([f"{case['name']}: {words}", *[""] * 6])
        first = None
        for who in case["contestants"]:
            mine = [run for run in these if run["who"] == who and "error" not in run]
            rates = [run["cells_per_second"] for run in mine]
            per_cpu = median([run["n_cells"] / run["cpu_seconds"] for run in mine])
            rate = median(rates)
            peak = median([run.get("peak_rss_bytes") for run in mine])
            first = first or (rate, per_cpu)
            ratios = [a / b if a and b else None for a, b in zip(first, (rate, per_cpu))]
            summary[who] = {
                "cells_per_second": rate, "slowest": min(rates, default=None),
                "fastest": max(rates, default=None), "cells_per_cpu_second": per_cpu,
                "peak_rss_bytes": peak, "times": ratios[0], "times_per_cpu_second": ratios[1],
            }
            rows.append([
                f"  {who}", number(rate),
                f"{number(min(rates, default=None))}..{number(max(rates, default=None))}",
                number(per_cpu), number(peak and peak / 1e6), number(ratios[0], 1),
                number(ratios[1], 1),
            ])
        summaries.append(summary)
    print()
    print(harness.table(
        rows, ["", "cells/s", "min..max", "cells/CPU s", "peak MB", "times", "times/CPU"]
    ))
    first = next(iter(cases[0]["contestants"]))
    print(f"\ntimes: how many times faster {first} is, by wall time and by CPU time")
    if args.out:
        options = {
            key: value for key, value in vars(args).items()
            if key not in ("cellfeed", "python", "venv", "note", "out") and "/" not in str(value)
        }
        harness.save({
            "what": what, "note": args.note, **harness.facts(), "peer_versions": versions,
            "options": options, "summaries": summaries, "runs": runs,
        }, args.out)
    return good
