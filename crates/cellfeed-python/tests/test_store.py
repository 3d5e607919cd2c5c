"""Stores: what is in them, against what anndata reads of the same file."""

import copy
import os
import pickle

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import cellfeed
from conftest import FORMATS, N_OBS, N_VARS, make


@pytest.mark.parametrize("format", FORMATS)
def test_a_store_holds_what_anndata_reads(stores, adata, format):
    store = cellfeed.open(stores[format])
    assert store.shape == (N_OBS, N_VARS) == (store.n_obs, store.n_vars)
    assert len(store) == N_OBS
    assert list(store.obs_names) == list(adata.obs_names)
    assert list(store.var_names) == list(adata.var_names)
    assert store.obs_columns == list(adata.obs.columns)
    got, want = store.obs(), adata.obs
    assert list(got.index) == list(want.index)
    for name in want:
        assert list(got[name].isna()) == list(want[name].isna()), name
        known = want[name].notna()
        assert list(got[name][known]) == list(want[name][known]), name
    assert list(got["plate"].cat.categories) == list(want["plate"].cat.categories)
    assert got["plate"].cat.ordered or format == "parquet"
    assert list(store.obs_categories("cell_type")) == list(want["cell_type"].cat.categories)
    assert list(store.var["length"]) == list(adata.var["length"])
    assert list(store.layers) == ["log"] and "log" in store.layers
    for got, want in ((store.X, adata.X), (store.layers["log"], adata.layers["log"])):
        assert got.shape == (N_OBS, N_VARS) and got.nnz in (None, want.nnz)
        assert np.array_equal(got[3:40].toarray(), want[3:40].toarray())


def test_rows_are_had_as_numpy_has_them(store, adata):
    want = adata.X.toarray()
    mask = adata.obs["is_control"].to_numpy()
    for rows in (slice(None, None, -7), [5, 3, 3, -1], np.array([], int), mask, 7, pd.Series([1, 2])):
        picked = np.atleast_2d(want[np.asarray(rows) if not isinstance(rows, slice) else rows])
        assert np.array_equal(store.X[rows].toarray(), picked.reshape(-1, N_VARS)), rows
    found = store.X.read([9, 9, 2])
    assert found.data.dtype == np.float32 and np.array_equal(found.to_dense(), want[[9, 9, 2]])
    for rows in ([0, N_OBS], [-N_OBS - 1], mask[:-1]):
        with pytest.raises(IndexError, match=str(N_OBS)):
            store.X[rows]
    with pytest.raises(TypeError, match="float64"):
        store.X[[0.5]]
    with pytest.raises(IndexError, match="only rows"):
        store.X[:, 3]


def test_obs_columns_alone(store, adata):
    part = store.obs(["score", "age"], start=10, stop=-10)
    assert part.shape == (N_OBS - 20, 2) and list(part.index) == list(range(10, N_OBS - 10))
    assert part["age"].dtype == "Int64"
    assert list(store.obs("note")["note"]) == list(adata.obs["note"])
    assert store.obs(start=5, stop=3).shape == (0, 7)
    codes = store.obs_codes("cell_type")
    assert codes.dtype == np.int64 and list(codes) == list(adata.obs["cell_type"].cat.codes)
    ages = store.obs_codes("age")
    assert ages.dtype == np.float64 and np.isnan(ages).sum() == adata.obs["age"].isna().sum()


def test_obs_is_indexed_as_in_anndata(store, adata):
    assert list(store.obs["note"]) == list(adata.obs["note"])
    assert store.obs["plate"].cat.ordered and store.obs["plate"].name == "plate"
    assert store.obs[["score", "age"]].equals(store.obs(["score", "age"]))
    assert "plate" in store.obs and "cell1" not in store.obs
    assert list(store.obs) == store.obs.columns == store.obs_columns
    assert store.obs.shape == (N_OBS, 7) and len(store.obs) == N_OBS and "plate" in repr(store.obs)
    with pytest.raises(cellfeed.NotFoundError, match="no obs column.*plate"):
        store.obs["nothing"]
    with pytest.raises(TypeError, match="name of a column"):
        store.obs[3:5]
    with pytest.raises(AttributeError, match=r"the column is obs\['plate'\]"):
        store.obs.plate  # noqa: B018
    with pytest.raises(AttributeError, match=r"obs\(\) is a data frame"):
        store.obs.head()


def test_masks_of_pandas(store, adata):
    mask = (adata.obs["age"] > 50).fillna(False)
    assert str(mask.dtype) == "boolean" and 0 < mask.sum() < N_OBS
    want = adata.X.toarray()[mask.to_numpy(bool)]
    assert np.array_equal(store.X[mask].toarray(), want)
    assert cellfeed.Loader(store, subset=mask).n_cells == mask.sum()
    for use in (lambda m: store.X[m], lambda m: cellfeed.Loader(store, subset=m)):
        with pytest.raises(TypeError, match="missing values; mask.fillna"):
            use(adata.obs["age"] > 50)


def test_what_is_no_path_is_named(h5ad, adata, monkeypatch):
    for what in (adata, adata.obs["age"], np.zeros(3), 7, [h5ad, adata]):
        with pytest.raises(TypeError, match="path must be a path or a list of them, not .*CollectionLoader"):
            cellfeed.Loader(what)
    backed = ad.read_h5ad(h5ad, backed="r")
    with pytest.raises(TypeError, match="open its file.*atlas.h5ad"):
        cellfeed.open(backed)
    backed.file.close()
    monkeypatch.setenv("HOME", str(h5ad.parent))
    assert cellfeed.open("~/atlas.h5ad").shape == adata.shape


def test_what_is_not_there_is_named(store, folder):
    with pytest.raises(cellfeed.NotFoundError, match='no obs column "nothing".*plate') as found:
        store.obs_categories("nothing")
    assert isinstance(found.value, KeyError) and str(found.value)[0] not in "'\""
    with pytest.raises(KeyError, match="no matrix layers/x; the store has X"):
        store.layers["x"]
    with pytest.raises(ValueError, match="'score' is not categorical"):
        store.obs_categories("score")
    with pytest.raises(FileNotFoundError, match="nowhere.h5ad") as found:
        cellfeed.open(folder / "nowhere.h5ad")
    assert found.value.errno == 2
    (folder / "text.h5ad").write_text("this is no store, but it is long enough to look at")
    with pytest.raises((ValueError, NotImplementedError), match="text.h5ad"):
        cellfeed.open(folder / "text.h5ad")
    with pytest.raises(NotImplementedError, match="ftp://.*s3://"):
        cellfeed.open("ftp://host/atlas.h5ad")
    for bad, error in ((5, TypeError), ([], ValueError), (None, TypeError), (b"x", TypeError), ([5], TypeError)):
        with pytest.raises(error):
            cellfeed.open(bad)
    with pytest.raises(ValueError, match="join"):
        cellfeed.open(folder / "atlas.h5ad", join="left")
    with pytest.raises(ValueError, match="threads"):
        cellfeed.open(folder / "atlas.h5ad", threads=0)
    with pytest.raises(TypeError, match="cellfeed.open"):
        cellfeed.Store()


def test_a_repr_tells_what_it_is(store):
    text = repr(store)
    assert "1,003 cells x 120 genes" in text and "plate" in text and "layers/log" in text
    assert "1003 x 120" in repr(store.X) and "log" in repr(store.layers)


@pytest.mark.parametrize("format", ["h5ad", "csr"])
@pytest.mark.parametrize("access", ["auto", "map", "read"])
def test_rows_are_the_same_however_they_come_out_of_the_file(stores, adata, format, access):
    store = cellfeed.open(stores[format], access=access)
    for other in (store, pickle.loads(pickle.dumps(store))):
        assert np.array_equal(other.X[3:40].toarray(), adata.X[3:40].toarray())


def test_an_access_that_there_is_not_is_refused(h5ad):
    with pytest.raises(ValueError, match="auto, map, read"):
        cellfeed.open(h5ad, access="mmap")


def test_stores_are_pickled_by_their_path(h5ad, adata, monkeypatch, folder):
    monkeypatch.chdir(folder)
    store = cellfeed.open(os.path.relpath(h5ad))
    monkeypatch.chdir("/")
    for other in (pickle.loads(pickle.dumps(store)), copy.deepcopy(store)):
        assert other.shape == store.shape
        assert np.array_equal(other.X[:5].toarray(), adata.X[:5].toarray())


def test_several_stores_are_one(tmp_path, adata):
    first, second = make(50, 30, seed=1), make(40, 30, seed=2)
    second = second[:, ::-1][:, 5:].copy()
    del second.obs["score"]
    second.raw = first.raw = None
    paths = [tmp_path / "first.h5ad", tmp_path / "second.h5ad"]
    first.write_h5ad(paths[0])
    second.write_h5ad(paths[1])
    for join in ("inner", "outer"):
        store = cellfeed.open(paths, join=join, label="file")
        want = ad.concat([first, second], join=join)
        assert store.shape == want.shape
        want = want[:, list(store.var_names)]
        assert np.array_equal(store.X[:].toarray(), want.X.toarray())
        assert list(store.obs("plate")["plate"]) == list(first.obs["plate"]) + list(second.obs["plate"])
        assert "score" not in store.obs_columns
        # The error says which columns only some have.
        with pytest.raises(NotImplementedError, match="score"):
            cellfeed.Loader(store, obs="score")
        files = store.obs("file")["file"]
        assert [str(f).endswith("first.h5ad") for f in files] == [True] * 50 + [False] * 40
        loader = cellfeed.Loader(store, batch_size=7, fetch_factor=3, block_size=2, layout="dense", obs="file")
        for batch in loader:
            assert np.array_equal(batch.X, want.X.toarray()[batch.rows])
    with pytest.raises(FileNotFoundError, match="third"):
        cellfeed.open([*paths, tmp_path / "third.h5ad"])
