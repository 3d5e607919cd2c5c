"""What the loader makes of values and genes, against NumPy and, where it is there, scanpy."""

import pickle

import numpy as np
import pytest

import cellfeed
from conftest import N_VARS, dense

SIZES = {"batch_size": 16, "block_size": 4, "fetch_factor": 5}
GENES = ["gene77", "gene3", "gene119", "gene0"]


def loaded(loader):
    """All cells, in file order."""
    batches = list(loader)
    x = np.concatenate([dense(b.X) for b in batches])
    return x[np.argsort(np.concatenate([np.asarray(b.rows) for b in batches]))]


def normalised(adata, total):
    x = adata.X.toarray().astype(np.float64)
    sums = x.sum(1, keepdims=True)
    return x * (total / np.where(sums == 0, 1, sums))


@pytest.mark.parametrize("layout", ["csr", "dense"])
@pytest.mark.parametrize("format", ["h5ad", "packed", "zarr"])
def test_genes_totals_and_logarithms(stores, adata, format, layout):
    options = {**SIZES, "layout": layout}
    loader = cellfeed.Loader(stores[format], **options, normalize_total=1e4)
    np.testing.assert_allclose(loaded(loader), normalised(adata, 1e4), rtol=1e-6)
    loader = cellfeed.Loader(stores[format], **options, normalize_total=1e4, log1p=True)
    np.testing.assert_allclose(loaded(loader), np.log1p(normalised(adata, 1e4)), rtol=1e-6)
    loader = cellfeed.Loader(stores[format], **options, log1p=True, genes=GENES)
    columns = [int(g.removeprefix("gene")) for g in GENES]
    want = np.log1p(adata.X.toarray()[:, columns])
    np.testing.assert_allclose(loaded(loader), want, rtol=1e-6)
    assert list(loader.var_names) == GENES and "4 genes" in repr(loader)
    batch = next(iter(loader))
    assert batch.X.shape == (16, 4)
    # The total is that of all genes.
    loader = cellfeed.Loader(stores[format], **options, normalize_total=100, genes=GENES)
    np.testing.assert_allclose(loaded(loader), normalised(adata, 100)[:, columns], rtol=1e-6)


def test_zeros_and_ones(h5ad, adata):
    loader = cellfeed.Loader(h5ad, **SIZES, binarize=50, dtype="uint8", layout="dense")
    assert np.array_equal(loaded(loader), (adata.X.toarray() > 50).astype(np.uint8))


def test_as_scanpy_does_it(h5ad, adata):
    scanpy = pytest.importorskip("scanpy")
    want = adata.copy()
    scanpy.pp.normalize_total(want, target_sum=1e4)
    scanpy.pp.log1p(want)
    loader = cellfeed.Loader(h5ad, **SIZES, normalize_total=1e4, log1p=True)
    np.testing.assert_allclose(loaded(loader), want.X.toarray(), rtol=2e-6)


def test_a_copy_does_the_same(h5ad):
    loader = cellfeed.Loader(h5ad, **SIZES, genes=GENES, log1p=True, output="torch", layout="dense")
    other = pickle.loads(pickle.dumps(loader))
    assert np.array_equal(loaded(loader), loaded(other))
    assert next(iter(other)).X.shape[1] == 4 < N_VARS


@pytest.mark.parametrize(
    ("options", "error", "why"),
    [
        ({"genes": ["gene1", "nobody"]}, KeyError, "1 of 2 genes are not in the matrix: nobody"),
        ({"genes": ["gene1", "gene1"]}, ValueError, "named twice"),
        ({"genes": []}, ValueError, "at least one"),
        ({"genes": [1]}, TypeError, "names"),
        ({"normalize_total": 0}, ValueError, "above 0"),
        ({"normalize_total": "1e4"}, TypeError, "must be a number"),
        ({"log1p": True, "dtype": "int32"}, ValueError, "float32|f32"),
        ({"binarize": -1}, ValueError, "at least 0"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(h5ad, options, error, why):
    with pytest.raises(error, match=why):
        cellfeed.Loader(h5ad, **options)
