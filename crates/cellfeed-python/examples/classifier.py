"""A linear cell-type classifier: trained on all plates but the last, tested on the last.

    python classifier.py [atlas.h5ad --label cell_type --split plate]
"""

import argparse
import pathlib
import tempfile

import torch

import cellfeed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", nargs="?", help="a store of your own; small data are made without")
    parser.add_argument("--label", default="cell_type", help="the obs column to predict")
    parser.add_argument("--split", default="plate", help="the obs column whose last value is for the test")
    parser.add_argument("--epochs", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.store is None:
            import small

            args.store = small.write(pathlib.Path(folder, "small.h5ad"))
            accuracy = train(args)
            assert accuracy > 0.9, "the types of the small data are easy to tell apart"
        else:
            train(args)


def train(args):
    store = cellfeed.open(args.store)
    print(store)
    held_out = store.obs_categories(args.split)[-1]
    n_classes = len(store.obs_categories(args.label))
    options = {
        "batch_size": 64,
        "fetch_factor": 16,
        "obs": [args.label],
        "output": "torch",
        "layout": "dense",
    }
    training = cellfeed.Loader(store, subset=f"{args.split} != {held_out}", seed=0, **options)
    testing = cellfeed.Loader(store, subset=f"{args.split} == {held_out}", strategy="streaming", **options)

    torch.manual_seed(0)
    model = torch.nn.Linear(store.n_vars, n_classes)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for epoch in range(args.epochs):
        total = 0.0
        for batch in training:  # each loop is the next epoch, in another order
            loss = torch.nn.functional.cross_entropy(model(batch.X.log1p()), batch.obs[args.label])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
        print(f"epoch {epoch}: loss {total / training.n_cells:.3f}")

    right = 0
    with torch.no_grad():
        for batch in testing:
            right += (model(batch.X.log1p()).argmax(1) == batch.obs[args.label]).sum().item()
    accuracy = right / testing.n_cells
    print(f"accuracy on {held_out}: {accuracy:.3f}")
    return accuracy


if __name__ == "__main__":
    main()
