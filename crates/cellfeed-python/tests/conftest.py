"""Small stores, written by anndata and converted by the package itself."""

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import cellfeed

N_OBS, N_VARS = 1003, 120


def make(n_obs=N_OBS, n_vars=N_VARS, seed=0):
    """An AnnData with everything that a store may have."""
    rng = np.random.default_rng(seed)
    counts = sp.random(n_obs, n_vars, density=0.1, format="csr", random_state=rng)
    counts.data = rng.integers(1, 200, counts.nnz).astype(np.float32)
    counts.sort_indices()
    plate = np.sort(rng.integers(0, 5, n_obs))
    kinds = np.array(["B cell", "T cell", "NK cell"])[rng.choice(3, n_obs, p=[0.7, 0.25, 0.05])]
    kinds = pd.Categorical(kinds)
    kinds[rng.integers(0, n_obs, 9)] = np.nan
    age = pd.array(rng.integers(20, 80, n_obs), dtype="Int64")
    age[rng.integers(0, n_obs, 20)] = pd.NA
    obs = pd.DataFrame(
        {
            "plate": pd.Categorical([f"plate{p}" for p in plate], ordered=True),
            "cell_type": kinds,
            "n_counts": np.asarray(counts.sum(1)).ravel().astype(np.int64),
            "score": rng.normal(size=n_obs),
            "is_control": rng.random(n_obs) < 0.3,
            "age": age,
            "note": [f"note {i} ☃" for i in range(n_obs)],
        },
        index=[f"cell{i}" for i in range(n_obs)],
    )
    var = pd.DataFrame(
        {"chromosome": pd.Categorical(rng.choice(["1", "X"], n_vars)), "length": rng.integers(1, 9, n_vars)},
        index=[f"gene{i}" for i in range(n_vars)],
    )
    data = ad.AnnData(counts, obs=obs, var=var)
    data.layers["log"] = counts.log1p()
    data.raw = data.copy()
    return data


@pytest.fixture(scope="session")
def adata():
    return make()


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("stores")


@pytest.fixture(scope="session")
def h5ad(adata, folder):
    path = folder / "atlas.h5ad"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata.write_h5ad(path)
    return path


FORMATS = ("h5ad", "gzip", "zarr", "parquet", "csr", "packed")


@pytest.fixture(scope="session")
def stores(h5ad, folder):
    """The same store in every format."""
    codecs = {"gzip": ("gzip.h5ad", "gzip"), "packed": ("packed.csr", "packed")}
    paths = {"h5ad": h5ad}
    for name in FORMATS[1:]:
        ending, codec = codecs.get(name, (f"plain.{name}", None))
        paths[name] = folder / ending
        cellfeed.convert(h5ad, paths[name], codec=codec, progress=False)
    return paths


@pytest.fixture
def store(h5ad):
    return cellfeed.open(h5ad)


# A shell that runs its jobs in the background has them ignore Ctrl-C.
LISTEN = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"


def dense(x):
    """A matrix in any of the forms of minibatches, as a NumPy array."""
    if isinstance(x, cellfeed.CsrArrays):
        return x.to_dense()
    if sp.issparse(x):
        return x.toarray()
    if type(x).__module__ == "torch":
        return x.to_dense().numpy()
    return x


def rows_of(batches):
    """All row numbers, in order."""
    return np.concatenate([np.asarray(b.rows) for b in batches])
