"""Transforms, and suggestions of parameters."""

import pathlib
import types

import numpy as np
import pytest
import torch

from cellfeed.scdataset import (
    MultiIndexable,
    adata_to_mindex,
    bionemo_to_tensor,
    estimate_sample_size,
    hf_tahoe_to_tensor,
    suggest_parameters,
)

TESTDATA = pathlib.Path(__file__).parents[4] / "testdata"


@pytest.fixture
def adata():
    anndata = pytest.importorskip("anndata")
    import pandas
    import scipy.sparse

    obs = pandas.DataFrame(
        {"kind": pandas.Categorical(list("aabba")), "n": np.arange(5)},
        index=[f"cell{i}" for i in range(5)],
    )
    matrix = scipy.sparse.csr_matrix(np.arange(15, dtype=np.float32).reshape(5, 3))
    return anndata.AnnData(matrix, obs=obs)


def check_mindex(found, rows):
    assert found.names == ["X", "kind", "n"]
    assert isinstance(found["X"], np.ndarray) and found["X"].dtype == np.float32
    np.testing.assert_array_equal(found["X"], np.arange(15.0).reshape(5, 3)[rows])
    assert list(found["kind"]) == [list("aabba")[row] for row in rows]
    assert found["n"].tolist() == rows


def test_adata_to_mindex(adata, tmp_path):
    check_mindex(adata_to_mindex(adata, ["kind", "n"]), [0, 1, 2, 3, 4])
    check_mindex(adata_to_mindex(adata[[1, 3]], ["kind", "n"]), [1, 3])
    assert adata_to_mindex(adata).names == ["X"]
    assert adata_to_mindex(adata, "kind").names == ["X", "kind"]
    with pytest.raises(KeyError):
        adata_to_mindex(adata, ["none"])
    adata.write_h5ad(tmp_path / "a.h5ad")
    import anndata
    from anndata.experimental import AnnCollection

    backed = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    check_mindex(adata_to_mindex(backed[[0, 4]], ["kind", "n"]), [0, 4])
    check_mindex(adata_to_mindex(AnnCollection([backed])[[1, 2]], ["kind", "n"]), [1, 2])
    adata.obs["X"] = 1
    with pytest.raises(ValueError, match="obs column X"):
        adata_to_mindex(adata, ["X"])


def test_hf_tahoe_to_tensor():
    as_dict = {"genes": [[0, 2], [], [3]], "expressions": [[1.0, 2.0], [], [-2.0]]}
    as_list = [
        {"genes": genes, "expressions": values}
        for genes, values in zip(*as_dict.values(), strict=True)
    ]
    expected = [[1, 0, 2, 0], [0, 0, 0, 0], [0, 0, 0, -2]]
    for batch in (as_dict, as_list):
        tensor = hf_tahoe_to_tensor(batch, 4)
        assert tensor.dtype == torch.float32 and tensor.tolist() == expected
    assert hf_tahoe_to_tensor([], 4).shape == (0, 4)
    assert hf_tahoe_to_tensor(as_dict).shape == (3, 62713)
    with pytest.raises(ValueError, match="as many genes"):
        hf_tahoe_to_tensor({"genes": [[0, 1], [2]], "expressions": [[1.0], [2.0, 3.0]]}, 4)
    for gene in (4, -1):
        with pytest.raises(IndexError, match="0 to 3"):
            hf_tahoe_to_tensor({"genes": [[gene]], "expressions": [[1.0]]}, 4)
    with pytest.raises(ValueError, match="must be a dictionary or a list"):
        hf_tahoe_to_tensor("no", 4)
    with pytest.raises(KeyError):
        hf_tahoe_to_tensor({"genes": [[1]]}, 4)


class Ragged:
    """As BioNeMo's collection: each row is values over genes."""

    cells = [([1.0, 2.0], [0, 3]), ([], []), ([5.0], [1])]

    def __len__(self):
        return 3

    def __getitem__(self, row):
        return torch.tensor(self.cells[row])

    def number_of_variables(self):
        return [5]


def test_bionemo_to_tensor():
    whole = [[1, 0, 0, 2, 0], [0, 0, 0, 0, 0], [0, 5, 0, 0, 0]]
    for key, rows in [
        (1, [1]),
        (-1, [2]),
        (slice(None), [0, 1, 2]),
        ([2, 0], [2, 0]),
        (np.array([True, False, True]), [0, 2]),
        (torch.tensor([1, 1]), [1, 1]),
        ([], []),
    ]:
        found = bionemo_to_tensor(Ragged(), key)
        # As wide as there are genes; in scDataset as wide as the largest gene of these rows.
        assert found.dtype == torch.float32 and found.shape == (len(rows), 5)
        assert found.tolist() == [whole[row] for row in rows]
    with pytest.raises(IndexError):
        bionemo_to_tensor(Ragged(), 3)
    with pytest.raises(TypeError, match="Unsupported index type"):
        bionemo_to_tensor(Ragged(), "a")


def test_bionemo_itself():
    scdl = pytest.importorskip(
        "bionemo.scdl.io.single_cell_memmap_dataset", reason="bionemo-scdl is not installed"
    )
    collection = scdl.SingleCellMemMapDataset(str(TESTDATA / "scdl" / "floats-f32"))
    found = bionemo_to_tensor(collection, slice(None))
    assert found.shape == (len(collection), collection.number_of_variables()[0])
    for row in range(len(collection)):
        values, genes = np.asarray(collection[row])
        np.testing.assert_array_equal(found[row].numpy()[genes.astype(int)], values)
        assert int((found[row] != 0).sum()) == int((values != 0).sum())


def test_estimate_sample_size():
    sparse = pytest.importorskip("scipy.sparse")
    data = np.zeros((100, 50), dtype=np.float32)
    assert estimate_sample_size(data) == 200
    assert estimate_sample_size(data, fetch_transform=lambda x: x.astype(np.float64)) == 400
    assert estimate_sample_size(MultiIndexable(a=data, b=np.arange(100))) == 208
    assert estimate_sample_size(data[:0]) == 0
    # A refusal and a third of the size in scDataset.
    assert estimate_sample_size(sparse.csr_matrix(np.ones((9, 10), dtype=np.float32))) == 88
    assert estimate_sample_size(data, batch_callback=lambda x, i: x[i]) == 200


def test_suggest_parameters(monkeypatch, capsys):
    memory = types.SimpleNamespace(available=16 * 2**30, total=32 * 2**30)
    psutil = types.SimpleNamespace(virtual_memory=lambda: memory)
    monkeypatch.setitem(__import__("sys").modules, "psutil", psutil)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    data = np.zeros((100, 200_000), dtype=np.float32)
    found = suggest_parameters(data, 64, verbose=False)
    assert capsys.readouterr().out == ""
    # A fifth of 16 GiB, for four workers with two fetches each, of minibatches of 51.2 MB.
    assert found["num_workers"] == 4 and found["fetch_factor"] == 8
    assert found["prefetch_factor"] == 9
    sizes = [found[f"block_size_{kind}"] for kind in ("conservative", "balanced", "aggressive")]
    assert sizes == [4, 8, 16]
    assert found["estimated_memory_per_fetch_mb"] == 8 * 64 * 800_000 / 2**20
    assert found["estimated_total_memory_mb"] == 8 * found["estimated_memory_per_fetch_mb"]
    assert found["system_info"]["available_ram_gb"] == 16
    assert suggest_parameters(data[:, :50], 64)["fetch_factor"] == 256
    assert "fetch_factor: 256" in capsys.readouterr().out
    assert suggest_parameters(data[:0], 64, verbose=False)["fetch_factor"] == 8
    assert suggest_parameters(data[:, :9], 64, max_workers=2, verbose=False)["num_workers"] == 2


@pytest.mark.parametrize("cores", [1, 2, 3, 8, 64, None])
def test_suggestions_against_the_installed(monkeypatch, cores):
    lib = pytest.importorskip("scdataset", reason="scDataset is not installed")
    pytest.importorskip("psutil", reason="psutil is not installed")
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    for shape in ((100, 50), (0, 50)):
        data = np.zeros(shape, dtype=np.float32)
        a = lib.suggest_parameters(data, 64, verbose=False)
        b = suggest_parameters(data, 64, verbose=False)
        a.pop("system_info"), b.pop("system_info")
        assert a == b
