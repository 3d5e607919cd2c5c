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
    sum of a cell must agree within 2 %, or, of few cells, within some standard errors.
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
    # The sum of a cell varies by about two thirds of its mean.
    allowed = max(TOLERANCE, 2 / min(run["n_cells"] for run in good) ** 0.5)
    return (words, True) if gap <= allowed else (f"DIFFERENT: {words}", False)


def entry(case, who):
    """The command of a contestant and the stores that it reads."""
    found = case["contestants"][who]
    return found if isinstance(found, tuple) else (found, case["stores"])


def turns(args, cases, show):
    """Runs all contestants of all cases, round by round in shuffled order; answers runs and versions.

    `cases` has dicts with `name`, `stores` (paths to warm or to empty) and `contestants`, a dict of
    name to command, or to a pair of command and stores; `show` maps words of commands to what is
    recorded instead of them.
    """
    order = random.Random(args.order_seed)
    runs, versions = [], {}
    for turn in range(1, args.rounds + 1):
        queue = [(case, who) for case in cases for who in case["contestants"]]
        order.shuffle(queue)
        for case, who in queue:
            command, stores = entry(case, who)
            ready = prepare(stores, args.cold)
            run = harness.run_json(command, show)
            versions.update(run.pop("versions", None) or {})
            runs.append({"case": case["name"], "who": who, "round": turn,
                         "cached_before": round(ready, 4), **run})
            outcome = run.get("error") or f"{number(run['cells_per_second'])} cells/s"
            print(f"round {turn}  {case['name']}  {who}: {outcome}  (load {run['load_before']}, "
                  f"cached {ready:.0%})", file=sys.stderr)
    return runs, versions


def summary(case, runs):
    """Medians of a case's contestants, and whether they agree."""
    these = [run for run in runs if run["case"] == case["name"]]
    words, same = agreement(these)
    out = {"case": case["name"], "agreement": words, "agree": same}
    first = None
    for who in case["contestants"]:
        mine = [run for run in these if run["who"] == who and "error" not in run]
        rates = [run["cells_per_second"] for run in mine]
        per_cpu = median([run["n_cells"] / run["cpu_seconds"] for run in mine])
        rate = median(rates)
        first = first or (rate, per_cpu)
        ratios = [a / b if a and b else None for a, b in zip(first, (rate, per_cpu))]
        out[who] = {
            "cells_per_second": rate, "slowest": min(rates, default=None),
            "fastest": max(rates, default=None), "cells_per_cpu_second": per_cpu,
            "peak_rss_bytes": median([run.get("peak_rss_bytes") for run in mine]),
            "first_minibatch_seconds": median([run.get("first_minibatch_seconds") for run in mine]),
            "wait_p99_seconds": median([run.get("wait_p99_seconds") for run in mine]),
            "times": ratios[0], "times_per_cpu_second": ratios[1],
        }
    return out


def record(args, what, summaries, runs, versions, path):
    """Saves what was found, with the facts of the machine."""
    options = {
        key: value for key, value in vars(args).items()
        if key not in ("cellfeed", "python", "venv", "note", "out", "store") and "/" not in str(value)
    }
    harness.save({
        "what": what, "note": args.note, **harness.facts(), "peer_versions": versions,
        "options": options, "summaries": summaries, "runs": runs,
    }, path)


def hold(args, what, cases, show):
    """Runs all cases, prints a table, saves the record. Answers whether all agreed."""
    runs, versions = turns(args, cases, show)
    summaries = [summary(case, runs) for case in cases]
    rows = []
    for case, found in zip(cases, summaries):
        rows.append([f"{case['name']}: {found['agreement']}", *[""] * 6])
        for who in case["contestants"]:
            mine = found[who]
            rows.append([
                f"  {who}", number(mine["cells_per_second"]),
                f"{number(mine['slowest'])}..{number(mine['fastest'])}",
                number(mine["cells_per_cpu_second"]),
                number(mine["peak_rss_bytes"] and mine["peak_rss_bytes"] / 1e6),
                number(mine["times"], 1), number(mine["times_per_cpu_second"], 1),
            ])
    print()
    print(harness.table(
        rows, ["", "cells/s", "min..max", "cells/CPU s", "peak MB", "times", "times/CPU"]
    ))
    first = next(iter(cases[0]["contestants"]))
    print(f"\ntimes: how many times faster {first} is, by wall time and by CPU time")
    if args.out:
        record(args, what, summaries, runs, versions, args.out)
    return all(found["agree"] for found in summaries)
