"""Collections of any kind, sampled with the plans of stores."""

import pickle

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import cellfeed
from cellfeed._strategies import codes_of
from conftest import N_OBS

N = 1003
SIZES = {"batch_size": 16, "block_size": 4, "fetch_factor": 5}


@pytest.fixture(scope="module")
def x():
    return np.arange(N * 3, dtype=np.float32).reshape(N, 3)


class Log:
    """A collection that remembers what it was asked for."""

    def __init__(self, x):
        self.x, self.asked = x, []

    def __len__(self):
        return len(self.x)

    def __getitem__(self, rows):
        self.asked.append(rows)
        return self.x[rows]


def numbers(batch):
    return np.asarray(batch)[:, 0] / 3


@pytest.mark.parametrize(
    "labels",
    [
        pd.array(["b", None, "a", "b"] * 4, dtype="string"),
        pd.Series(pd.array(["b", pd.NA, "a", "b"] * 4, dtype="string")),
        pd.array([True, pd.NA, False, True] * 4, dtype="boolean"),
        pd.array([5, None, 2, 5] * 4, dtype="Int64"),
        pd.Categorical(["b", None, "a", "b"] * 4),
        np.array(["b", None, "a", "b"] * 4, dtype=object),
        np.array([2.5, np.nan, 1.5, 2.5] * 4),
        np.array(["2020-02-01", "NaT", "2020-01-01", "2020-02-01"] * 4, dtype="datetime64[D]"),
        ["b", pd.NA, "a", "b"] * 4,
    ],
    ids=lambda labels: str(getattr(labels, "dtype", "list")),
)
def test_labels_may_be_missing(labels):
    assert codes_of(labels).tolist() == [1, -1, 0, 1] * 4
    # Cells without a class are refused, and can be left out.
    known = {"strategy": "class_balanced", "by": labels, "batch_size": 4}
    with pytest.raises(ValueError, match="4 cells have no class, the first is cell 1"):
        cellfeed.CollectionLoader(np.arange(16), **known)
    loader = cellfeed.CollectionLoader(np.arange(16), **known, subset=codes_of(labels) >= 0)
    assert set(np.concatenate(list(loader)) % 4) <= {0, 2, 3}


def test_weights_of_pandas():
    weights = pd.array([0, 1, 0, 2] * 4, dtype="Int64")
    loader = cellfeed.CollectionLoader(np.arange(16), strategy="weighted", weights=weights, batch_size=4)
    assert not np.any(np.concatenate(list(loader)) % 2 == 0)
    weights[3] = pd.NA
    with pytest.raises(ValueError, match="row 3|cell 3"):
        cellfeed.CollectionLoader(np.arange(16), strategy="weighted", weights=weights)


def test_an_epoch_of_nothing_is_said(x):
    with pytest.warns(UserWarning, match="no minibatches: an epoch has fewer than 64 cells.*drop_last"):
        loader = cellfeed.CollectionLoader(x[:50], drop_last=True)
    assert list(loader) == []


def test_the_order_is_that_of_a_store(h5ad, adata, x):
    labels = adata.obs["plate"]
    for strategy, of_store, of_array in (
        ("stratified", {}, {}),
        ("block_shuffling", {}, {}),
        ("true-random", {}, {}),
        ("streaming_shuffled", {}, {}),
        ("stratified", {"by": "plate"}, {"by": labels}),
        ("stratified", {"by": ["plate", "is_control"]}, {"by": adata.obs[["plate", "is_control"]]}),
        ("class_balanced", {"by": "plate"}, {"by": labels.to_numpy()}),
        ("weighted", {"weights": "n_counts"}, {"weights": adata.obs["n_counts"]}),
    ):
        # Also where the subset begins with another label than the store.
        for subset in (None, slice(None, None, 2), np.arange(500, N)):
            more = {**SIZES, "strategy": strategy, "subset": subset, "seed": 3}
            loader = cellfeed.Loader(h5ad, **more, **of_store)
            collection = cellfeed.CollectionLoader(x, **more, **of_array)
            assert len(loader) == len(collection) and loader.n_cells == collection.n_cells
            for epoch, batches in ((0, iter(collection)), (1, iter(collection))):
                for want in loader.plan_rows(epoch):
                    batch = next(batches)
                    assert np.array_equal(batches.rows, want) and np.array_equal(numbers(batch), want)
                assert next(batches, None) is None


def test_a_fetch_is_asked_for_once_and_ascending(x):
    log = Log(x)
    loader = cellfeed.CollectionLoader(log, **SIZES)
    rows = np.concatenate([numbers(b) for b in loader])
    assert sorted(rows) == list(range(N)) and len(log.asked) == 13
    assert all(np.all(np.diff(asked) > 0) and asked.dtype == np.int64 for asked in log.asked)
    log.asked.clear()
    weighted = cellfeed.CollectionLoader(log, **SIZES, strategy="weighted", weights=np.arange(N) < 9)
    drawn = np.concatenate([numbers(b) for b in weighted])
    assert len(drawn) == N and set(drawn) == set(range(9))
    assert all(len(asked) <= 9 for asked in log.asked)


def test_every_kind_of_collection(x, adata):
    import torch

    frame = pd.DataFrame({"a": x[:, 0] / 3}, index=[f"r{i}" for i in range(N)])
    for collection, of in (
        (torch.from_numpy(x), lambda b: b[:, 0].numpy() / 3),
        (sp.csr_matrix(x + 1), lambda b: b.toarray()[:, 0] / 3 - 1 / 3),
        (list(range(N)), np.array),
        (frame, lambda b: b["a"].to_numpy()),
        ({"x": x, "y": list(range(N))}, lambda b: np.where(numbers(b["x"]) == b["y"], b["y"], -1)),
        (adata, lambda b: np.array([int(n.removeprefix("cell")) for n in b.obs_names])),
    ):
        check(collection, of)


def check(collection, of):
    """That minibatches have the rows that they are said to have, each once."""
    loader = cellfeed.CollectionLoader(collection, **SIZES)
    batches = iter(loader)
    seen = []
    for batch in batches:
        assert np.allclose(of(batch), batches.rows), type(collection)
        seen.extend(batches.rows)
    assert sorted(seen) == list(range(N)) and N == N_OBS
    assert type(collection).__name__ in repr(loader)


def test_a_dataset_of_hugging_face():
    datasets = pytest.importorskip("datasets", reason="Hugging Face datasets is not installed")
    collection = datasets.Dataset.from_dict({"a": list(range(N)), "b": [str(i) for i in range(N)]})
    check(collection, lambda b: np.where(np.array(b["b"], int) == b["a"], b["a"], -1))
    check(collection.with_format("numpy"), lambda b: b["a"])


def test_an_h5py_dataset_and_a_dataset_that_takes_one_row_at_a_time(x, tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        check(file.create_dataset("x", data=x), numbers)
    one = type("One", (), {"__len__": lambda self: N, "__getitem__": lambda self, i: x[int(i)]})()
    with pytest.raises(TypeError):
        next(iter(cellfeed.CollectionLoader(one)))
    rows = cellfeed.CollectionLoader(one, **SIZES, fetch=lambda c, rows: np.stack([c[i] for i in rows]))
    assert sorted(np.concatenate([numbers(b) for b in rows])) == list(range(N))


def test_hooks(x):
    calls = []

    def fetched(data):
        calls.append(len(data))
        return data * 2

    loader = cellfeed.CollectionLoader(
        x,
        **SIZES,
        fetch=lambda collection, rows: collection[rows] + 1,
        fetch_transform=fetched,
        batch_transform=lambda b: (b[:, 0] / 2 - 1) / 3,
    )
    assert np.array_equal(np.concatenate(list(loader)), np.concatenate(list(loader.plan_rows(0))))
    assert calls[:2] == [80, 80] and sum(calls) == N

    def broken(data):
        raise ZeroDivisionError("in the user's own code")

    for hook in ("fetch_transform", "batch_transform"):
        batches = iter(cellfeed.CollectionLoader(x, **SIZES, **{hook: broken}))
        with pytest.raises(ZeroDivisionError, match="user's own code") as found:
            next(batches)
        assert any(entry.name == "broken" for entry in found.traceback)
        assert next(batches, None) is None
    with pytest.raises(ValueError, match="given 80 cells and returned 3"):
        next(iter(cellfeed.CollectionLoader(x, **SIZES, fetch_transform=lambda d: d[:3])))
    with pytest.raises(TypeError, match="fetch_transform returned None"):
        next(iter(cellfeed.CollectionLoader(x, **SIZES, fetch_transform=lambda d: None)))
    with pytest.raises(ValueError, match="asked for 80 rows and gave 2"):
        next(iter(cellfeed.CollectionLoader(x, **SIZES, fetch=lambda c, r: c[:2])))


def test_states_and_ranks(x):
    make = lambda **kw: cellfeed.CollectionLoader(x, **SIZES, seed=5, **kw)  # noqa: E731
    want = [rows.tolist() for rows in make().plan_rows(1)]
    for done in (0, 1, 5, 12, len(want) - 1):
        loader = make()
        loader.set_epoch(1)
        batches = iter(loader)
        for _ in range(done):
            next(batches)
        assert loader.state_dict() == batches.state_dict()
        again = make()
        again.load_state_dict(pickle.loads(pickle.dumps(loader.state_dict())))
        assert [numbers(b).tolist() for b in again] == want[done:]
        # The epoch after it is whole, and copies go on where they are.
        copy = pickle.loads(pickle.dumps(again))
        assert len(list(copy)) == len(want) and copy.epoch == again.epoch + 1
    ranks = [list(make(rank=r, world_size=3)) for r in range(3)]
    assert len({len(batches) for batches in ranks}) == 1
    assert sorted(np.concatenate([numbers(b) for bs in ranks for b in bs])) == list(range(N))
    with pytest.raises(ValueError, match="seed"):
        cellfeed.CollectionLoader(x, **SIZES, seed=6).load_state_dict(make().state_dict())


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork", "ignore:This DataLoader will create")
@pytest.mark.parametrize("n_workers", [0, 2])
def test_in_a_data_loader(x, n_workers):
    from torch.utils.data import DataLoader

    from cellfeed.torch import CellDataset

    loader = cellfeed.CollectionLoader(x, **SIZES)
    dataset = CellDataset(loader)
    for epoch in range(2):
        got = sorted(numbers(b).tolist() for b in DataLoader(dataset, batch_size=None, num_workers=n_workers))
        assert got == sorted(rows.tolist() for rows in loader.plan_rows(epoch))
    stateful = pytest.importorskip("torchdata.stateful_dataloader")

    def make():
        dataset = CellDataset(cellfeed.CollectionLoader(x, **SIZES))
        return stateful.StatefulDataLoader(dataset, batch_size=None, num_workers=n_workers)

    whole = [numbers(b).tolist() for b in make()]
    for done in (1, 11, 40):
        first = make()
        batches = iter(first)
        seen = [numbers(next(batches)).tolist() for _ in range(done)]
        again = make()
        again.load_state_dict(first.state_dict())
        assert seen + [numbers(b).tolist() for b in again] == whole


def test_what_cannot_be_is_refused_at_once(x):
    for collection, options, error, why in (
        (5, {}, TypeError, "no length: int"),
        ("atlas.h5ad", {}, TypeError, "cellfeed.Loader reads files"),
        ({}, {}, ValueError, "none"),
        ({"x": x, "y": x[:5]}, {}, ValueError, "x: 1003, y: 5"),
        (x, {"fetch": 3}, TypeError, "fetch must be a function"),
        (x, {"subset": "plate == p1"}, TypeError, "mask"),
        (x, {"by": "plate"}, ValueError, "no obs columns"),
        (x, {"strategy": cellfeed.ClassBalanced("plate")}, ValueError, "no obs columns"),
        (x, {"by": np.arange(5)}, ValueError, "5"),
        (x, {"strategy": "weighted"}, ValueError, "needs weights"),
        (x, {"strategy": "class-balanced"}, ValueError, "needs by"),
        (x, {"strategy": "weighted", "weights": np.ones(4)}, ValueError, "1003 cells"),
        (x, {"strategy": "weighted", "weights": ["a"] * N}, TypeError, "must be numbers"),
        (x, {"strategy": "true_random", "by": np.arange(N)}, ValueError, "by is for"),
        (x, {"weights": np.ones(N)}, ValueError, "weights are for weighted"),
        (x, {"strategy": cellfeed.TrueRandom(), "by": "a"}, ValueError, "give by to the strategy"),
        (x, {"subset": [N]}, IndexError, str(N)),
        (x, {"batch_size": 0}, ValueError, "batch_size is 0"),
        (x, {"batch_transform": 3}, TypeError, "batch_transform"),
        (x, {"rank": 3, "world_size": 2}, ValueError, "rank 3"),
    ):
        with pytest.raises(error, match=why):
            cellfeed.CollectionLoader(collection, **options)
