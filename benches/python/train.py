"""Trains a small model from a store and tells how long the processor that trains waited for data.

    python3 benches/python/train.py atlas.csr --label cell_line --device cuda --out benches/runs/DATE-train.json

Run it with a Python that has cellfeed and torch. For each layout, dense and CSR, the same steps (forward,
backward, Adam) are run twice, in turns: on minibatches of the store, and again and again on one minibatch
that is on the device already, which is as fast as training can be. The wait is what the loop spends asking
the loader for the next minibatch; on a GPU the queue of kernels is emptied every `--sync` steps, so that
the host does not run ahead further than training loops do that look at their loss.
"""

import argparse
import pathlib
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import harness  # noqa: E402
from harness import median, number  # noqa: E402


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store")
    parser.add_argument("--label", default="cell_line", help="the obs column that is learnt")
    parser.add_argument("--device", help="cpu or cuda [default: cuda if there is one]")
    parser.add_argument("--layouts", nargs="+", choices=["dense", "csr"], default=["dense", "csr"])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--hidden", type=int, default=128, help="units of the hidden layer")
    parser.add_argument("--seconds", type=float, default=10, help="of each run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sync", type=int, default=10, help="steps between looks at the loss")
    parser.add_argument("--out", help="write the record to this .json, and the runs to .csv")
    return parser.parse_args()


def main():
    args = arguments()
    import torch

    import cellfeed

    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    gpu = device.startswith("cuda")
    store = cellfeed.open(args.store)
    n_classes = len(store.obs_categories(args.label))

    def loader(layout):
        return cellfeed.Loader(
            store, batch_size=args.batch_size, obs=[args.label], output="torch", layout=layout,
            normalize_total=1e4, log1p=True, pin_memory=gpu, drop_last=True,
        )

    def forever(layout):
        while True:
            yield from loader(layout)

    def same(layout):
        batch = next(iter(loader(layout))).to(device)
        while True:
            yield batch

    def train(layout, source):
        torch.manual_seed(0)
        first = torch.nn.Parameter(torch.randn(store.n_vars, args.hidden, device=device) * 0.01)
        last = torch.nn.Linear(args.hidden, n_classes, device=device)
        optimizer = torch.optim.Adam([first, *last.parameters()], lr=1e-3)
        batches = iter(source)
        steps, waited, lead, loss = 0, 0.0, 0.0, None
        begun = start = time.perf_counter()
        while True:
            before = time.perf_counter()
            batch = next(batches)
            now = time.perf_counter()
            if steps == 0:
                # The first fetch, and the making of kernels, are not what is asked for.
                lead = now - before
            else:
                waited += now - before
            batch = batch.to(device, non_blocking=gpu)
            hidden = torch.relu(batch.X @ first)
            loss = torch.nn.functional.cross_entropy(last(hidden), batch.obs[args.label].long())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if steps == 0:
                loss.item()
                start = time.perf_counter()
            steps += 1
            if steps % args.sync == 0:
                loss.item()
                if time.perf_counter() - begun >= args.seconds:
                    break
        elapsed = time.perf_counter() - start
        return {
            "steps": steps, "seconds": elapsed, "steps_per_second": (steps - 1) / elapsed,
            "cells_per_second": (steps - 1) * args.batch_size / elapsed, "waited_seconds": waited,
            "waited_share": waited / elapsed, "first_minibatch_seconds": lead, "loss": loss.item(),
        }

    runs = []
    for turn in range(1, args.rounds + 1):
        for layout in args.layouts:
            for who, source in (("store", forever), ("one minibatch", same)):
                run = train(layout, source(layout))
                runs.append({"layout": layout, "who": who, "round": turn, **run})
                print(f"round {turn}  {layout}  {who}: {number(run['cells_per_second'])} cells/s, "
                      f"waited {run['waited_share']:.1%}", file=sys.stderr)
    rows, summaries = [], []
    for layout in args.layouts:
        of = {
            who: [run for run in runs if (run["layout"], run["who"]) == (layout, who)]
            for who in ("store", "one minibatch")
        }
        rate = {who: median([run["cells_per_second"] for run in mine]) for who, mine in of.items()}
        waited = median([run["waited_share"] for run in of["store"]])
        summaries.append({"layout": layout, "cells_per_second": rate["store"], "waited_share": waited,
                          "without_loading_cells_per_second": rate["one minibatch"]})
        rows.append([layout, number(rate["store"]), number(rate["one minibatch"]),
                     number(100 * rate["store"] / rate["one minibatch"], 1), number(100 * waited, 2)])
    name = torch.cuda.get_device_name() if gpu else "the processor"
    print(f"\n{name}, {store.n_vars:,} genes, {args.hidden} units, minibatches of {args.batch_size}")
    print(harness.table(rows, ["", "cells/s", "without loading", "%", "waited %"]))
    if args.out:
        harness.save({
            "what": "training a small model, and its wait for data", "device": name, **harness.facts(),
            "torch": torch.__version__, "cellfeed": cellfeed.__version__,
            "options": {key: value for key, value in vars(args).items() if key not in ("store", "out")},
            "store": pathlib.Path(args.store).name, "summaries": summaries, "runs": runs,
        }, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
