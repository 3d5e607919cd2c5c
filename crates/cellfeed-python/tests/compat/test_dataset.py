"""scDataset: hooks, errors, epochs and workers."""

import copy
import pickle

import cases
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import cellfeed.scdataset as ours
from cellfeed.scdataset import (
    BlockShuffling,
    ClassBalancedSampling,
    MultiIndexable,
    SamplingStrategy,
    Streaming,
    scDataset,
)

# More workers than cores, and forks of a process with threads: both on purpose.
pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
]


def make(n=200, strategy=None, **options):
    return scDataset(np.arange(n), strategy or BlockShuffling(4), 4, 3, seed=1, **options)


def rows(epoch):
    return sorted(row for batch in epoch for row in batch)


def epochs_in_process(dataset, count):
    return [cases.batches(dataset) for _ in range(count)]


def test_hooks_in_their_order():
    calls = []

    def fetch(collection, wanted):
        calls.append(("fetch", type(wanted), wanted.tolist()))
        return collection[wanted]

    def cut(data, positions):
        calls.append(("cut", type(positions), positions.tolist()))
        return data[positions]

    dataset = scDataset(
        np.arange(6),
        Streaming(),
        2,
        2,
        fetch_callback=fetch,
        fetch_transform=lambda data: data + 10,
        batch_callback=cut,
        batch_transform=lambda batch: (batch * 2).tolist(),
    )
    assert list(dataset) == [[20, 22], [24, 26], [28, 30]]
    assert calls == [
        ("fetch", np.ndarray, [0, 1, 2, 3]),
        ("cut", np.ndarray, [0, 1]),
        ("cut", np.ndarray, [2, 3]),
        ("fetch", np.ndarray, [4, 5]),
        ("cut", np.ndarray, [0, 1]),
    ]


def test_attributes():
    data, strategy = np.arange(9), Streaming()
    dataset = scDataset(data, strategy, 2, seed=5)
    assert dataset.collection is data and dataset.strategy is strategy
    assert (dataset.batch_size, dataset.fetch_factor, dataset.fetch_size) == (2, 16, 32)
    assert (dataset.rank, dataset.world_size) == (0, 1)
    assert dataset.drop_last is False and dataset.sort_before_fetch is True
    assert (dataset._epoch, dataset._base_seed) == (0, 5)
    torch.manual_seed(3)
    drawn = torch.randint(0, 2**31, (1,)).item()
    torch.manual_seed(3)
    assert scDataset(data, strategy, 2)._base_seed == drawn


@pytest.mark.parametrize(
    ("error", "options"),
    [
        (ValueError, {"batch_size": 0}),
        (ValueError, {"batch_size": -1}),
        (TypeError, {"batch_size": 2.5}),
        (TypeError, {"batch_size": None}),
        (ValueError, {"batch_size": 2, "fetch_factor": 0}),
        (ValueError, {"batch_size": 2, "seed": -1}),
        (TypeError, {"batch_size": 2, "seed": 1.5}),
        (ValueError, {"batch_size": 2, "rank": 2, "world_size": 2}),
        (ValueError, {"batch_size": 2, "rank": -1, "world_size": 2}),
        (ValueError, {"batch_size": 2, "rank": 0, "world_size": 0}),
        (RuntimeError, {"batch_size": 2, "rank": 0, "world_size": 2}),
        (TypeError, {"batch_size": 2, "strategy": Streaming}),
        (TypeError, {"batch_size": 2, "strategy": "streaming"}),
    ],
)
def test_errors(error, options):
    with pytest.raises(error):
        scDataset(np.arange(10), **{"strategy": Streaming(), **options})


def test_a_rank_that_nobody_told():
    with pytest.warns(UserWarning, match="rank 0"):
        assert scDataset(np.arange(10), Streaming(), 2, world_size=2, seed=0).rank == 0


def test_a_users_own_strategy():
    class Backwards(SamplingStrategy):
        def get_len(self, collection):
            return len(collection)

        def get_indices(self, collection, seed=None, rng=None):
            return list(range(len(collection)))[::-1]

    dataset = scDataset(np.arange(5), Backwards(), 2, 1)
    assert cases.batches(dataset) == [[3, 4], [1, 2], [0]]
    dataset.sort_before_fetch = False
    assert cases.batches(dataset) == [[4, 3], [2, 1], [0]]

    class Overridden(BlockShuffling):
        def get_indices(self, collection, seed=None, rng=None):
            return np.arange(3)

    assert rows(cases.batches(scDataset(np.arange(9), Overridden(), 3))) == [0, 1, 2]


def test_each_iteration_is_an_epoch():
    dataset = make()
    first, second, third = epochs_in_process(dataset, 3)
    assert first != second != third != first
    assert dataset._epoch == 3
    dataset._epoch = 1
    assert cases.batches(dataset) == second
    # An iterator that is not used is none.
    iter(dataset)
    assert dataset._epoch == 2


def test_copies_count_for_themselves():
    dataset = make()
    next(iter(dataset))
    for other in (copy.deepcopy(dataset), pickle.loads(pickle.dumps(dataset))):
        assert other._epoch == 1
        expected = cases.batches(make_at(1))
        assert cases.batches(other) == expected
    assert dataset._epoch == 1


def make_at(epoch, **options):
    dataset = make(**options)
    dataset._epoch = epoch
    return dataset


def loaders_order(epoch, workers):
    """The order in which a DataLoader asks its workers: in turn, those that are done left out."""
    per_fetch, fetches = 3, -(-len(epoch) // 3)
    each, more = divmod(fetches, workers)
    shares, begin = [], 0
    for worker in range(workers):
        end = begin + (each + (worker < more)) * per_fetch
        shares.append(epoch[begin:end])
        begin = end
    out = []
    while any(shares):
        for share in shares:
            if share:
                out.append(share.pop(0))
    return out


# A spawned worker imports torch, which takes seconds.
@pytest.mark.parametrize(("start", "workers"), [("fork", 1), ("fork", 3), ("spawn", 2)])
@pytest.mark.parametrize("persistent", [False, True])
def test_workers(start, workers, persistent):
    dataset = make()
    loader = DataLoader(
        dataset,
        batch_size=None,
        num_workers=workers,
        multiprocessing_context=start,
        persistent_workers=persistent,
    )
    seen = epochs_in_process(loader, 2)
    for epoch in seen:
        assert rows(epoch) == list(range(200))
        assert len(epoch) == len(loader) == len(dataset) == 50
    assert seen[0] != seen[1]
    # The main process knows of it, and can go back.
    assert dataset._epoch == 2
    if start == "fork":
        dataset._epoch = 1
        assert cases.batches(loader) == seen[1]
    if workers == 1:
        assert seen == epochs_in_process(make(), 2)


def test_workers_share_fetches_in_stretches():
    loader = DataLoader(make(strategy=Streaming()), batch_size=None, num_workers=3)
    alone = cases.batches(make(strategy=Streaming()))
    assert cases.batches(loader) == loaders_order(alone, 3)


def test_epoch_zero_of_workers_is_scdatasets():
    lib = pytest.importorskip("scdataset", reason="scDataset is not installed")
    for name in ("blocks", "weighted", "balanced some"):
        a = DataLoader(cases.whole(lib, name, 4), batch_size=None, num_workers=3)
        b = DataLoader(cases.whole(ours, name, 4), batch_size=None, num_workers=3)  # fmt: skip
        first = cases.batches(a)
        # The defect that is mended: theirs never changes.
        assert cases.batches(a) == first
        assert cases.batches(b) == first
        assert cases.batches(b) != first


def test_workers_when_torch_is_seeded_alike():
    loader = DataLoader(make(), batch_size=None, num_workers=2)
    seen = []
    for _ in range(3):
        torch.manual_seed(0)
        seen.append(cases.batches(loader))
    assert seen[0] != seen[1] != seen[2]


def test_two_loaders_at_once_and_one_left_early():
    dataset = make()
    a, b = (DataLoader(dataset, batch_size=None, num_workers=2) for _ in range(2))
    one, two = iter(a), iter(b)
    both = [[], []]
    for x, y in zip(one, two, strict=True):
        both[0].append(x.tolist())
        both[1].append(y.tolist())
    assert rows(both[0]) == rows(both[1]) == list(range(200))
    assert both[0] != both[1]
    next(iter(a))
    assert rows(cases.batches(b)) == list(range(200))
    assert dataset._epoch == 4


def test_collections_of_every_kind():
    pandas = pytest.importorskip("pandas")
    sparse = pytest.importorskip("scipy.sparse")
    values = np.arange(40.0).reshape(20, 2)
    expected = [
        batch[:, 1].tolist() for batch in scDataset(values, BlockShuffling(4), 6, 2, seed=3)
    ]

    def batches(collection):
        return list(scDataset(collection, BlockShuffling(4), 6, 2, seed=3))

    frame = pandas.DataFrame(values, columns=["a", "b"], index=np.arange(20)[::-1])
    assert [batch["b"].tolist() for batch in batches(frame)] == expected
    assert [
        batch.toarray()[:, 1].tolist() for batch in batches(sparse.csr_matrix(values))
    ] == expected
    assert [[row[1] for row in batch] for batch in batches(values.tolist())] == expected
    assert [batch[:, 1].tolist() for batch in batches(torch.from_numpy(values))] == expected
    both = MultiIndexable(x=sparse.csr_matrix(values), y=frame, z=list(range(20)))
    for batch, wanted in zip(batches(both), expected, strict=True):
        assert batch["x"].toarray()[:, 1].tolist() == wanted
        assert batch["y"]["b"].tolist() == wanted
        assert [2.0 * z + 1 for z in batch["z"]] == wanted


def test_huggingface_datasets():
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    collection = datasets.Dataset.from_dict(
        {"a": list(range(20)), "b": [str(i) for i in range(20)]}
    )
    seen = list(scDataset(collection, BlockShuffling(4), 6, 2, seed=3))
    assert rows(batch["a"] for batch in seen) == list(range(20))
    assert all([str(a) for a in batch["a"]] == batch["b"] for batch in seen)


def test_h5py_rows_that_are_drawn_again(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.arange(60).reshape(30, 2)
    labels = ["rare"] * 3 + ["common"] * 27
    with h5py.File(tmp_path / "a.h5", "r") as file:
        dataset = scDataset(file["x"], ClassBalancedSampling(labels, total_size=200), 20, 2, seed=0)
        seen = [batch[:, 0].tolist() for batch in dataset]
        same = scDataset(file["x"][:], ClassBalancedSampling(labels, total_size=200), 20, 2, seed=0)
        assert seen == [batch[:, 0].tolist() for batch in same]
    assert sum(value < 6 for batch in seen for value in batch) > 60


def column(view):
    return view.X.toarray()[:, 0]


def test_backed_anndata_in_spawned_workers(tmp_path):
    anndata = pytest.importorskip("anndata")
    sparse = pytest.importorskip("scipy.sparse")
    values = np.arange(1.0, 121.0).reshape(60, 2)
    anndata.AnnData(sparse.csr_matrix(values)).write_h5ad(tmp_path / "a.h5ad")
    backed = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    dataset = scDataset(backed, BlockShuffling(4), 8, 2, fetch_transform=column, seed=2)
    loader = DataLoader(dataset, batch_size=None, num_workers=2, multiprocessing_context="spawn")
    assert rows(loader) == values[:, 0].tolist()
    # Elsewhere it is refused as ever.
    with pytest.raises(TypeError, match="h5py"):
        pickle.dumps(dataset)


def test_h5py_that_cannot_be_opened_again(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.arange(30)
        loader = DataLoader(
            scDataset(file["x"], Streaming(), 4),
            batch_size=None,
            num_workers=1,
            multiprocessing_context="spawn",
        )
        with pytest.raises(TypeError, match="mode 'r'"):
            list(loader)


def test_nothing_is_left_open():
    import gc
    import os

    def files():
        return len(os.listdir("/proc/self/fd"))

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("no /proc to look into")
    gc.collect()
    before = files()
    for _ in range(50):
        list(make())
    gc.collect()
    assert files() <= before + 1
