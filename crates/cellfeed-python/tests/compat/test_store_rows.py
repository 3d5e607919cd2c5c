"""A store of Cellfeed as the collection."""

import numpy as np
import pytest
from torch.utils.data import DataLoader

import cellfeed
from cellfeed.scdataset import BlockShuffling, adata_to_mindex, estimate_sample_size, scDataset


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    anndata = pytest.importorskip("anndata")
    import pandas
    import scipy.sparse

    matrix = scipy.sparse.random(210, 30, 0.2, format="csr", dtype=np.float32, random_state=1)
    obs = pandas.DataFrame(
        {"kind": pandas.Categorical(["a", "b", "c"] * 70), "n": np.arange(210)},
        index=[f"cell{i}" for i in range(210)],
    )
    path = tmp_path_factory.mktemp("store") / "a.h5ad"
    anndata.AnnData(matrix, obs=obs).write_h5ad(path)
    return path


def transform(fetch):
    return adata_to_mindex(fetch, columns=["kind", "n"])


def test_as_with_anndata(path):
    import anndata

    store, adata = cellfeed.open(str(path)), anndata.read_h5ad(path)
    options = {"strategy": BlockShuffling(4), "batch_size": 8, "fetch_factor": 3, "seed": 1}
    pairs = zip(scDataset(store, **options), scDataset(adata, **options), strict=True)
    for mine, theirs in pairs:
        assert mine.rows.tolist() == theirs.obs["n"].tolist()
        np.testing.assert_array_equal(mine.X.toarray(), theirs.X.toarray())
        assert mine.obs["kind"].tolist() == theirs.obs["kind"].tolist()
        assert list(mine.obs["kind"].cat.categories) == ["a", "b", "c"]
        assert mine.shape == theirs.shape and len(mine) == len(theirs)
    assert estimate_sample_size(store, fetch_transform=transform, n_samples=2) > 30 * 4


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 2])
def test_mindex_with_workers(path, workers):
    store = cellfeed.open(str(path))
    # The parent's threads are at work before it is forked.
    expected = store.X[:].toarray()
    dataset = scDataset(store, BlockShuffling(4), 8, 3, fetch_transform=transform, seed=1)
    seen = []
    for batch in DataLoader(dataset, batch_size=None, num_workers=workers):
        rows = np.asarray(batch["n"])
        np.testing.assert_array_equal(np.asarray(batch["X"]), expected[rows])
        assert list(batch["kind"]) == ["abc"[row % 3] for row in rows]
        seen += rows.tolist()
    assert sorted(seen) == list(range(210))


def test_the_matrix_alone(path):
    store = cellfeed.open(str(path))
    batches = list(scDataset(store.X, BlockShuffling(4), 8, 3, seed=1))
    assert sum(batch.shape[0] for batch in batches) == 210
