"""MultiIndexable, and where it does more than scDataset's."""

import pickle

import numpy as np
import pytest

from cellfeed.scdataset import MultiIndexable

A, B = np.arange(6.0).reshape(3, 2), np.arange(3)


def test_what_an_index_means():
    both = MultiIndexable(A, B, names=["a", "b"], unstructured={"genes": ["x", "y"]})
    assert both[0] is A and both[-1] is B and both["b"] is B and both[np.int64(1)] is B
    for key, wanted in [
        ([2, 0], [2, 0]),
        (np.array([2, 0]), [2, 0]),
        (slice(1, 3), [1, 2]),
        (np.array([True, False, True]), [0, 2]),
        (range(2), [0, 1]),
        ([], np.arange(0)),
    ]:
        part = both[key]
        np.testing.assert_array_equal(part["a"], A[wanted])
        np.testing.assert_array_equal(part[1], B[wanted])
        assert part.unstructured == {"genes": ["x", "y"]} and part.names == ["a", "b"]
        assert len(part) == len(B[wanted])
    with pytest.raises(IndexError):
        both[2]
    with pytest.raises(IndexError):
        both[[5]]
    with pytest.raises(KeyError, match="Available keys"):
        both["c"]
    with pytest.raises(KeyError):
        MultiIndexable(A)["a"]


def test_like_a_dict():
    named, plain = MultiIndexable({"a": A, "b": B}), MultiIndexable(A, B)
    assert named.keys() == ["a", "b"] and plain.keys() == [0, 1]
    assert [name for name, _ in named.items()] == ["a", "b"]
    assert named.values()[1] is B and list(named)[0] is A
    assert repr(named) == "MultiIndexable(names=['a', 'b'], samples=3)"
    assert repr(plain) == "MultiIndexable(count=2, samples=3)"
    assert pickle.loads(pickle.dumps(named)).names == ["a", "b"]


def test_a_modality_called_names():
    """With scDataset it is lost without a word."""
    by_keyword = MultiIndexable(a=A, names=B)
    assert sorted(by_keyword.names) == ["a", "names"] and by_keyword["names"] is B
    assert by_keyword[[0, 2]]["names"].tolist() == [0, 2]
    assert MultiIndexable(names=B).names == ["names"]
    by_dict = MultiIndexable({"names": B, "unstructured": A})
    assert by_dict[[1]].names == ["names", "unstructured"]


def test_modalities_that_have_no_len_or_other_indexing():
    sparse = pytest.importorskip("scipy.sparse")
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"q": [7, 8, 9]}, index=[2, 1, 0])
    mixed = MultiIndexable(x=sparse.csr_matrix(A), y=frame, z=["p", "q", "r"])
    part = mixed[[0, 2]]
    assert part["x"].toarray().tolist() == [[0, 1], [4, 5]]
    assert part["y"]["q"].tolist() == [7, 9] and part["z"] == ["p", "r"]
    assert mixed[np.array([False, True, False])]["z"] == ["q"]
    assert mixed[1:]["z"] == ["q", "r"]


@pytest.mark.parametrize(
    ("error", "given", "options"),
    [
        (TypeError, (), {}),
        (ValueError, ({},), {}),
        (TypeError, (A,), {"b": B}),
        (TypeError, (5,), {}),
        (ValueError, (A, np.arange(4)), {}),
        (ValueError, (A, B), {"names": ["a"]}),
        (ValueError, (A, B), {"names": ["a", "a"]}),
        (TypeError, (A,), {"unstructured": [1]}),
    ],
)
def test_errors(error, given, options):
    with pytest.raises(error):
        MultiIndexable(*given, **options)
