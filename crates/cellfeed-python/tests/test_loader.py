"""Loaders: minibatches against anndata, epochs, plans, states, hooks."""

import collections
import itertools
import pickle

import numpy as np
import pytest
import scipy.sparse as sp
import torch

import cellfeed
from conftest import FORMATS, N_OBS, N_VARS, dense, rows_of

SIZES = {"batch_size": 16, "block_size": 4, "fetch_factor": 5}


@pytest.mark.parametrize("layout", ["csr", "dense"])
@pytest.mark.parametrize("output", ["numpy", "torch", "scipy"])
@pytest.mark.parametrize("format", FORMATS)
def test_minibatches_are_the_rows_that_they_name(stores, adata, format, output, layout):
    columns = ["plate", "cell_type", "n_counts", "score", "is_control", "age", "note"]
    loader = cellfeed.Loader(stores[format], **SIZES, output=output, layout=layout, obs=columns)
    want, obs = adata.X.toarray(), adata.obs
    batches = list(loader)
    assert len(batches) == len(loader) == -(-N_OBS // 16)
    assert sorted(rows_of(batches)) == list(range(N_OBS))
    planned = list(loader.plan_rows(0))
    for number, batch in enumerate(batches):
        rows = np.asarray(batch.rows)
        assert (batch.epoch, batch.number, len(batch)) == (0, number, len(rows))
        assert np.array_equal(rows, planned[number])
        assert tuple(batch.X.shape) == (len(rows), N_VARS)
        assert np.array_equal(dense(batch.X), want[rows])
        assert list(batch.obs) == columns
        for name in ("plate", "cell_type"):
            assert np.array_equal(batch.obs[name], obs[name].cat.codes.to_numpy()[rows])
        for name in ("n_counts", "score", "is_control"):
            assert np.array_equal(batch.obs[name], obs[name].to_numpy()[rows])
        ages = obs["age"].to_numpy(dtype=float, na_value=np.nan)[rows]
        assert np.array_equal(batch.obs["age"], ages, equal_nan=True)
        assert list(batch.obs["note"]) == list(obs["note"].iloc[rows])
    kinds = {
        ("numpy", "csr"): cellfeed.CsrArrays,
        ("scipy", "csr"): sp.csr_matrix,
        ("torch", "csr"): torch.Tensor,
        ("torch", "dense"): torch.Tensor,
    }
    assert isinstance(batches[0].X, kinds.get((output, layout), np.ndarray))
    if output == "torch":
        assert batches[0].obs["cell_type"].dtype == torch.int64


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int32", "int64", "uint8", "uint16"])
def test_every_type_of_values(h5ad, adata, dtype):
    for output, asked in (("numpy", np.dtype(dtype)), ("torch", getattr(torch, dtype))):
        for layout in ("csr", "dense"):
            loader = cellfeed.Loader(h5ad, **SIZES, dtype=asked, output=output, layout=layout)
            batch = next(iter(loader))
            assert str(batch.X.dtype).removeprefix("torch.") == dtype
            # Some operations on tensors of these types PyTorch does not have.
            x = batch.X.values().numpy() if output == "torch" and layout == "csr" else None
            x = dense(batch.X) if x is None else x
            want = adata.X[np.asarray(batch.rows)]
            assert np.array_equal(x, (want.data if x.ndim == 1 else want.toarray()).astype(dtype))


def test_a_value_that_the_type_cannot_hold_is_an_error(h5ad):
    with pytest.raises(ValueError, match="layers/log"):
        list(cellfeed.Loader(h5ad, layer="log", dtype="int32"))


def test_layers_and_raw(h5ad, adata):
    for layer, want in (("log", adata.layers["log"]), ("raw", adata.raw.X), ("X", adata.X)):
        batch = next(iter(cellfeed.Loader(h5ad, **SIZES, layer=layer, output="scipy")))
        assert np.array_equal(batch.X.toarray(), want[batch.rows].toarray())


def test_buffers_are_lent_without_a_copy_and_outlive_the_loader(h5ad, adata):
    loader = cellfeed.Loader(h5ad, **SIZES)
    batches = list(loader)
    x = batches[0].X
    tensor, matrix = x.to_torch(), x.to_scipy()
    assert tensor.values().data_ptr() == matrix.data.ctypes.data == x.data.ctypes.data
    assert tensor.col_indices().data_ptr() == x.indices.ctypes.data
    loose = next(iter(cellfeed.Loader(h5ad, **SIZES, layout="dense", output="torch"))).X
    loose += 1
    rows = batches[3].rows.copy()
    kept = batches[3].X
    del loader, batches
    # Others' buffers are reused meanwhile.
    for _ in cellfeed.Loader(h5ad, **SIZES):
        pass
    assert np.array_equal(kept.to_dense(), adata.X[rows].toarray())


def test_each_iter_is_the_next_epoch(h5ad):
    loader = cellfeed.Loader(h5ad, **SIZES, seed=3)
    epochs = [rows_of(loader) for _ in range(3)]
    assert not np.array_equal(epochs[0], epochs[1])
    for epoch, rows in enumerate(epochs):
        assert np.array_equal(rows, np.concatenate(list(loader.plan_rows(epoch))))
    loader.set_epoch(1)
    assert loader.epoch == 1 and np.array_equal(rows_of(loader), epochs[1])
    assert not np.array_equal(rows_of(cellfeed.Loader(h5ad, **SIZES, seed=4)), epochs[0])


def test_how_long_was_waited_is_known_after_the_end(h5ad):
    batches = iter(cellfeed.Loader(h5ad, **SIZES))
    next(batches)
    first = batches.waited
    list(batches)
    assert batches.waited >= first > 0
    batches.close()
    assert batches.waited >= first


def test_two_iterators_at_once(h5ad, adata):
    loader = cellfeed.Loader(h5ad, **SIZES)
    first, second = iter(loader), iter(loader)
    pairs = list(zip(first, second))
    for k, epoch in enumerate((0, 1)):
        assert np.array_equal(rows_of([p[k] for p in pairs]), np.concatenate(list(loader.plan_rows(epoch))))


STRATEGIES = [
    "streaming",
    "streaming_shuffled",
    "block_shuffling",
    "stratified",
    "true_random",
    cellfeed.Streaming(shuffle=True),
    cellfeed.BlockShuffling(3),
    cellfeed.TrueRandom(),
    cellfeed.StratifiedBlockShuffling(4),
    cellfeed.StratifiedBlockShuffling(4, by="plate"),
    cellfeed.StratifiedBlockShuffling(4, by=("plate", "is_control")),
]


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
def test_strategies_visit_every_cell_once(h5ad, strategy):
    loader = cellfeed.Loader(h5ad, batch_size=16, fetch_factor=5, strategy=strategy)
    rows = rows_of(loader)
    assert sorted(rows) == list(range(N_OBS))
    if strategy == "streaming":
        assert list(rows) == list(range(N_OBS))
    assert "16" in repr(loader)


def test_weights_and_classes(h5ad, adata):
    def counts(strategy, subset=None):
        loader = cellfeed.Loader(h5ad, batch_size=64, strategy=strategy, subset=subset)
        rows = np.concatenate([r for epoch in range(20) for r in loader.plan_rows(epoch)])
        return np.bincount(rows, minlength=N_OBS)

    weights = np.arange(N_OBS) % 3
    drawn = counts(cellfeed.BlockWeighted(weights, draws=5000))
    assert drawn.sum() == 100_000 and drawn[weights == 0].sum() == 0
    assert drawn[weights == 2].sum() / drawn[weights == 1].sum() == pytest.approx(2, rel=0.05)
    column = counts(cellfeed.BlockWeighted("n_counts"))
    share = adata.obs["n_counts"].to_numpy() / adata.obs["n_counts"].sum()
    assert np.corrcoef(column, share)[0, 1] > 0.5
    labels = adata.obs["cell_type"]
    known = labels.notna().to_numpy()
    for given in ("cell_type", labels.to_numpy(), labels, list(labels)):
        drawn = counts(cellfeed.ClassBalanced(given), subset=known)
        shares = [drawn[labels == kind].sum() / drawn.sum() for kind in labels.cat.categories]
        assert shares == pytest.approx([1 / 3] * 3, abs=0.03)
    once = counts(cellfeed.ClassBalanced("cell_type", replacement=False), subset=known)
    assert once.max() <= 20
    smallest = labels.value_counts().min()
    assert once.sum() == pytest.approx(20 * 3 * smallest, abs=60)
    with pytest.raises(ValueError, match="no class"):
        cellfeed.Loader(h5ad, strategy=cellfeed.ClassBalanced("cell_type"))
    with pytest.raises(ValueError, match="cell 5 is -1"):
        cellfeed.Loader(h5ad, strategy=cellfeed.BlockWeighted(np.where(np.arange(N_OBS) == 5, -1, 1)))
    with pytest.raises(ValueError, match="1003 cells"):
        cellfeed.Loader(h5ad, strategy=cellfeed.BlockWeighted(weights[:-1]))
    with pytest.raises(KeyError, match="nothing"):
        cellfeed.Loader(h5ad, strategy=cellfeed.ClassBalanced("nothing"))


def test_subsets(h5ad, adata):
    obs = adata.obs
    control = obs["is_control"].to_numpy()
    late = np.flatnonzero((obs["plate"] != "plate0").to_numpy() & control)
    for subset, want in (
        (["plate != plate0", "is_control == true"], late),
        ("is_control == true", np.flatnonzero(control)),
        (control, np.flatnonzero(control)),
        (obs["is_control"], np.flatnonzero(control)),
        ([7, 3, -1], [3, 7, N_OBS - 1]),
        (np.array([7, 3]), [3, 7]),
        (slice(10, 40), np.arange(10, 40)),
    ):
        loader = cellfeed.Loader(h5ad, **SIZES, subset=subset)
        assert loader.n_cells == len(want)
        assert sorted(rows_of(loader)) == list(want)
    for subset, error, why in (
        ("plate == plate9", KeyError, "plate9"),
        ("nothing == 1", KeyError, "nothing"),
        ("plate", ValueError, "no comparison"),
        ([3, 3], ValueError, "twice"),
        ([N_OBS], IndexError, "subset: row"),
        (control[:-1], IndexError, "mask"),
        (np.zeros(N_OBS, bool), ValueError, "empty"),
        (0.5, TypeError, "subset"),
    ):
        with pytest.raises(error, match=why):
            cellfeed.Loader(h5ad, subset=subset)


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_ranks_share_an_epoch(h5ad, world, drop_last):
    loaders = [
        cellfeed.Loader(h5ad, **SIZES, rank=r, world_size=world, drop_last=drop_last) for r in range(world)
    ]
    rows = [rows_of(loader) for loader in loaders]
    assert len({len(loader) for loader in loaders}) == 1
    seen = np.concatenate(rows)
    assert len(np.unique(seen)) == len(seen)
    assert len(seen) == N_OBS if not drop_last else N_OBS - world * 16 < len(seen) <= N_OBS


def test_ranks_of_the_environment(h5ad, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    loader = cellfeed.Loader(h5ad)
    assert (loader.rank, loader.world_size) == (1, 3) and "rank 1 of 3" in repr(loader)
    assert cellfeed.Loader(h5ad, rank=0, world_size=1).world_size == 1
    monkeypatch.setenv("RANK", "3")
    with pytest.raises(ValueError, match="rank 3 does not exist"):
        cellfeed.Loader(h5ad)
    with pytest.raises(ValueError, match="both"):
        cellfeed.Loader(h5ad, rank=0)


@pytest.mark.parametrize("hooked", [False, True])
def test_a_state_goes_on_exactly(h5ad, hooked):
    more = {"fetch_transform": lambda batch: batch} if hooked else {}
    make = lambda **kw: cellfeed.Loader(h5ad, **SIZES, seed=5, **more, **kw)  # noqa: E731
    whole = [b.rows for b in make()], None
    loader = make()
    list(loader)
    second = [b.rows for b in loader]
    for done in (0, 1, 4, 5, 12, len(second) - 1, len(second)):
        loader = make()
        loader.set_epoch(1)
        batches = iter(loader)
        for _ in range(done):
            next(batches)
        state = loader.state_dict()
        assert state == batches.state_dict()
        again = make()
        again.load_state_dict(pickle.loads(pickle.dumps(state)))
        assert again.state_dict() == state
        again.set_epoch(state["epoch"])
        rest = [b.rows for b in again]
        want = second[done:] if done < len(second) else [b.rows for b in (again.set_epoch(2), again)[1]]
        assert all(np.array_equal(a, b) for a, b in zip(rest, want, strict=True))
        # The epoch after it is whole.
        assert len(list(again)) == len(whole[0])
    # Loaders are pickled where they are.
    loader = make() if not hooked else cellfeed.Loader(h5ad, **SIZES, seed=5)
    batches = iter(loader)
    first = [next(batches) for _ in range(3)]
    copy = pickle.loads(pickle.dumps(loader))
    assert np.array_equal(rows_of([*first, *copy]), np.concatenate(whole[0]))


def test_a_state_of_another_loader_is_refused(h5ad):
    state = cellfeed.Loader(h5ad, **SIZES, seed=1).state_dict()
    with pytest.raises(ValueError, match="the seed was 1 and is 2"):
        cellfeed.Loader(h5ad, **SIZES, seed=2).load_state_dict(state)
    loader = cellfeed.Loader(h5ad, **SIZES, seed=1)
    with pytest.raises(ValueError, match="no state"):
        loader.load_state_dict({"epoch": 3})
    with pytest.raises(TypeError, match="dict"):
        loader.load_state_dict("state")
    other = cellfeed.Loader(h5ad, **SIZES, seed=1, rank=1, world_size=2)
    batches = iter(loader)
    for _ in range(10):
        next(batches)
    other.load_state_dict(loader.state_dict())
    half = cellfeed.Loader(h5ad, **SIZES, seed=1, rank=0, world_size=2)
    half.load_state_dict(loader.state_dict())
    rest = np.concatenate([rows_of(half), rows_of(other)])
    assert sorted(rest) == sorted(np.concatenate(list(loader.plan_rows(0))[10:]))


def test_transforms_are_those_of_scanpy(h5ad, adata):
    x = adata.X.toarray().astype(np.float64)
    totals = x.sum(1, keepdims=True)
    # As scanpy does: a cell without counts is divided by 1.
    scaled = x / np.where(totals == 0, 1, totals / 1e4)
    order = ["gene7", "gene119", "gene0"]
    columns = [7, 119, 0]
    for options, want in (
        ({"normalize_total": 1e4}, scaled),
        ({"log1p": True}, np.log1p(x)),
        ({"normalize_total": 1e4, "log1p": True}, np.log1p(scaled)),
        ({"binarize": True}, (x > 0) * 1.0),
        ({"binarize": 50, "dtype": "uint8"}, (x > 50) * 1),
        ({"genes": order}, x[:, columns]),
        ({"genes": order, "normalize_total": 10_000, "log1p": True}, np.log1p(scaled)[:, columns]),
    ):
        for output in ("numpy", "torch", "scipy"):
            for layout in ("csr", "dense"):
                loader = cellfeed.Loader(h5ad, **SIZES, output=output, layout=layout, **options)
                for batch in itertools.islice(loader, 7):
                    assert tuple(batch.X.shape) == (16, want.shape[1]) == (16, loader.n_vars)
                    if output == "torch" and layout == "csr" and options.get("dtype"):
                        continue
                    np.testing.assert_allclose(dense(batch.X), want[np.asarray(batch.rows)], rtol=2e-6)
    assert list(cellfeed.Loader(h5ad, genes=order).var_names) == order
    for options, error, why in (
        ({"genes": ["gene1", "nothing"]}, KeyError, "nothing"),
        ({"genes": ["gene1", "gene1"]}, ValueError, "gene1"),
        ({"genes": []}, ValueError, "no genes"),
        ({"genes": [3]}, TypeError, "names"),
        ({"normalize_total": 0}, ValueError, "normalize_total"),
        ({"normalize_total": "many"}, TypeError, "normalize_total"),
        ({"normalize_total": 1, "dtype": "int32"}, ValueError, "fractions"),
        ({"binarize": -1}, ValueError, "threshold"),
    ):
        with pytest.raises(error, match=why):
            cellfeed.Loader(h5ad, **options)


def test_hooks(h5ad, adata):
    def centre(fetch):
        assert isinstance(fetch, cellfeed.Batch) and len(fetch) <= 80
        fetch.X = fetch.X - fetch.X.mean(0)
        fetch.obs["fetch_size"] = np.full(len(fetch), len(fetch))
        return fetch

    loader = cellfeed.Loader(
        h5ad, **SIZES, layout="dense", fetch_transform=centre, batch_transform=lambda b: (b.rows, b.X, b.obs)
    )
    x, plan = adata.X.toarray(), list(loader.plan_rows(0))
    for number, (rows, got, obs) in enumerate(loader):
        fetch = np.concatenate(plan[number // 5 * 5 : number // 5 * 5 + 5])
        assert np.array_equal(rows, plan[number]) and obs["fetch_size"][0] == len(fetch)
        assert np.allclose(got, x[rows] - x[fetch].mean(0), atol=1e-4)
    # Anything that slices.
    for output in ("numpy", "scipy", "torch"):
        for wanted in (lambda f: f.X, lambda f: f):
            loader = cellfeed.Loader(h5ad, **SIZES, output=output, fetch_transform=wanted, obs="note")
            for rows, got in zip(plan, loader, strict=True):
                assert np.array_equal(dense(getattr(got, "X", got)), x[rows])


def test_a_hook_that_raises_says_so_itself(h5ad):
    def broken(batch):
        raise ZeroDivisionError("in the user's own code")

    for hook in ("fetch_transform", "batch_transform"):
        batches = iter(cellfeed.Loader(h5ad, **SIZES, **{hook: broken}))
        with pytest.raises(ZeroDivisionError, match="user's own code") as found:
            next(batches)
        assert any(entry.name == "broken" for entry in found.traceback)
        assert next(batches, None) is None
    with pytest.raises(ValueError, match="16 cells|80 cells"):
        next(iter(cellfeed.Loader(h5ad, **SIZES, fetch_transform=lambda f: f.X[:3])))
    with pytest.raises(TypeError, match="fetch_transform returned None"):
        next(iter(cellfeed.Loader(h5ad, **SIZES, fetch_transform=lambda f: None)))


def test_what_cannot_be_is_refused_at_once(h5ad):
    for options, error, why in (
        ({"batch_size": 0}, ValueError, "batch_size is 0"),
        ({"batch_size": -3}, ValueError, "batch_size is -3"),
        ({"batch_size": 2.5}, TypeError, "batch_size must be a whole number"),
        ({"batch_size": True}, TypeError, "batch_size"),
        ({"fetch_factor": 0}, ValueError, "fetch_factor"),
        ({"batch_size": 1 << 20, "fetch_factor": 1 << 20}, ValueError, "too large"),
        ({"block_size": 0}, ValueError, "block_size"),
        ({"block_size": "16"}, TypeError, "block_size"),
        ({"block_size": 4, "strategy": cellfeed.BlockShuffling(4)}, ValueError, "block_size"),
        ({"strategy": "random"}, ValueError, "block_shuffling"),
        ({"strategy": 5}, TypeError, "strategy"),
        ({"strategy": "weighted"}, ValueError, "weighted needs weights"),
        ({"strategy": "weighted", "weights": "plate"}, ValueError, "not of numbers"),
        ({"strategy": "weighted", "weights": "age"}, ValueError, "has no weight"),
        ({"strategy": "class-balanced"}, ValueError, "class_balanced needs by"),
        ({"strategy": "class_balanced", "by": ["plate", "cell_type"]}, ValueError, "one obs column"),
        ({"by": "nothing"}, KeyError, "nothing"),
        ({"by": "score"}, ValueError, "measures rather than labels"),
        ({"by": np.zeros((5, 1))}, ValueError, "1003 cells|5"),
        ({"by": "plate", "strategy": "true_random"}, ValueError, "by is for"),
        ({"by": "plate", "strategy": cellfeed.TrueRandom()}, ValueError, "give by to the strategy"),
        ({"obs": ["nothing"]}, KeyError, "nothing"),
        ({"obs": [5]}, TypeError, "names of columns"),
        ({"layer": "nothing"}, KeyError, "layers/nothing"),
        ({"output": "jax"}, ValueError, "numpy, torch, scipy"),
        ({"layout": "coo"}, ValueError, "csr, dense"),
        ({"dtype": "complex64"}, ValueError, "complex64"),
        ({"dtype": "nonsense"}, ValueError, "float32"),
        ({"seed": -1}, ValueError, "seed"),
        ({"memory": "many"}, ValueError, "memory"),
        ({"memory": 0}, ValueError, "memory"),
        ({"threads": 0}, ValueError, "threads"),
        ({"read_ahead": 0}, ValueError, "read_ahead"),
        ({"batch_transform": 3}, TypeError, "batch_transform"),
        ({"pin_memory": True}, ValueError, "pin_memory"),
        ({"rank": 2, "world_size": 2}, ValueError, "rank 2"),
        ({"rank": 0, "world_size": 500}, ValueError, "500 ranks"),
        ({"nonsense": 1}, TypeError, "nonsense"),
    ):
        with pytest.raises(error, match=why):
            cellfeed.Loader(h5ad, **options)
    loader = cellfeed.Loader(h5ad, memory="64KiB", batch_size=512)
    with pytest.raises(MemoryError, match="raise the limit"):
        next(iter(loader))
    with pytest.raises(ValueError, match="epoch"):
        loader.set_epoch(-1)


def test_threads_and_memory_do_not_change_the_minibatches(h5ad):
    rows = [
        rows_of(cellfeed.Loader(h5ad, **SIZES, threads=t, memory=m, read_ahead=a))
        for t, m, a in ((1, "8MiB", 1), (2, "1GiB", 1), (3, 1 << 28, 4))
    ]
    assert all(np.array_equal(r, rows[0]) for r in rows)


def test_slices_of_minibatches(h5ad):
    for output in ("numpy", "torch", "scipy"):
        for layout in ("csr", "dense"):
            batch = next(iter(cellfeed.Loader(h5ad, **SIZES, output=output, layout=layout, obs="plate")))
            part = batch[3:9]
            assert len(part) == 6 and np.array_equal(dense(part.X), dense(batch.X)[3:9])
            assert np.array_equal(part.obs["plate"], batch.obs["plate"][3:9])
            counts = collections.Counter(type(v).__name__ for v in (part.X, batch.X))
            assert len(counts) == 1
            moved = batch.to("cpu")
            assert np.array_equal(dense(moved.X), dense(batch.X))
