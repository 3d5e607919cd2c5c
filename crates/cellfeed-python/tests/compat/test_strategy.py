"""Strategies: what they accept, and what scDataset gets wrong."""

import warnings

import numpy as np
import pytest

from cellfeed.scdataset import (
    BlockShuffling,
    BlockWeightedSampling,
    ClassBalancedSampling,
    SamplingStrategy,
    Streaming,
    scDataset,
)


def test_masks():
    """With scDataset a mask is a list of the rows 0 and 1."""
    mask = np.array([True, False, True, True, False])
    assert Streaming(mask).get_indices(range(5)).tolist() == [0, 2, 3]
    assert BlockShuffling(2, indices=mask.tolist()).get_len(range(5)) == 3
    with pytest.raises(ValueError, match="mask of indices has 5 values, but the collection 6"):
        Streaming(mask).get_len(range(6))
    weighted = BlockWeightedSampling(1, indices=mask, weights=[0, 0, 1], total_size=4)
    assert weighted.get_indices(range(5), seed=0).tolist() == [3] * 4


@pytest.mark.parametrize(
    ("error", "indices"),
    [
        (ValueError, [-1, 2]),
        (TypeError, [0.5, 2.5]),
        (TypeError, ["a"]),
        (ValueError, [[1, 2], [3, 4]]),
        (ValueError, 5),
    ],
)
def test_indices_that_are_none(error, indices):
    with pytest.raises(error):
        Streaming(indices)


def test_rows_that_do_not_exist():
    with pytest.raises(IndexError, match="go up to 20, but the collection has 10 rows"):
        list(scDataset(np.arange(10), Streaming([5, 20]), 2))


def test_sorting_is_told():
    with pytest.warns(UserWarning, match="sorted"):
        assert Streaming([3, 1]).get_indices(range(5)).tolist() == [1, 3]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Streaming([]).get_indices(range(5)).dtype == np.int64
        assert Streaming([1, 1, 2]).get_indices(range(5)).tolist() == [1, 1, 2]


@pytest.mark.filterwarnings("ignore:the indices were not sorted")
def test_weights_stay_with_their_indices():
    """scDataset sorts the indices and leaves their weights and labels where they were."""
    weighted = BlockWeightedSampling(1, indices=[8, 3, 5], weights=[1, 0, 0], total_size=20)
    assert set(weighted.get_indices(range(10), seed=0).tolist()) == {8}
    labels = ["rare", "common", "common", "common"]
    balanced = ClassBalancedSampling(labels, 1, indices=[9, 0, 1, 2], total_size=3000)
    drawn = balanced.get_indices(range(10), seed=0)
    assert 0.45 < np.mean(drawn == 9) < 0.55
    # Weights of all rows are by row, however the rows are listed.
    weighted = BlockWeightedSampling(1, indices=[2, 0, 1], weights=[1, 0, 0], total_size=5)
    assert set(weighted.get_indices(range(3), seed=0).tolist()) == {0}


def test_rounds_without_a_total():
    """A TypeError in scDataset."""
    strategy = BlockWeightedSampling(4, replace=False, sampling_size=10)
    assert strategy.get_len(range(23)) == 23
    drawn = strategy.get_indices(range(23), seed=0)
    assert len(drawn) == 23
    whole = BlockWeightedSampling(4, replace=False, sampling_size=23).get_indices(range(23), seed=0)
    assert sorted(whole.tolist()) == list(range(23))


@pytest.mark.parametrize(
    ("error", "options"),
    [
        (ValueError, {"block_size": 0}),
        (TypeError, {"block_size": 1.5}),
        (ValueError, {"weights": [-1, 2]}),
        (ValueError, {"weights": [0, 0]}),
        (ValueError, {"weights": []}),
        (ValueError, {"weights": [np.nan, 1]}),
        (ValueError, {"weights": [np.inf, 1]}),
        (ValueError, {"weights": [[1, 2], [3, 4]]}),
        (TypeError, {"weights": ["a"]}),
        (ValueError, {"total_size": -1}),
        (ValueError, {"replace": False}),
        (ValueError, {"replace": False, "sampling_size": 0}),
    ],
)
def test_weighted_errors(error, options):
    with pytest.raises(error):
        BlockWeightedSampling(**options)


def test_weights_that_do_not_fit():
    with pytest.raises(ValueError, match="weights length"):
        BlockWeightedSampling(weights=[1, 2]).get_indices(range(3), seed=0)
    with pytest.raises(ValueError, match="weights length"):
        BlockWeightedSampling(weights=[1, 2], indices=[0, 1, 2]).get_indices(range(9), seed=0)
    with pytest.raises(ValueError, match="positive"):
        BlockWeightedSampling(weights=[1, 0, 0], indices=[1, 2]).get_indices(range(3), seed=0)
    with pytest.raises(ValueError, match="larger sample"):
        strategy = BlockWeightedSampling(replace=False, sampling_size=30, total_size=50)
        strategy.get_indices(range(20), seed=0)


def test_labels():
    pandas = pytest.importorskip("pandas")
    labels = ["b", "a", "b", "b"]
    plain = ClassBalancedSampling(labels)
    np.testing.assert_array_equal(plain._compute_class_weights(), [1 / 3, 1, 1 / 3, 1 / 3])
    categorical = ClassBalancedSampling(pandas.Series(labels, dtype="category"))
    np.testing.assert_array_equal(categorical.weights, plain.weights)
    assert categorical.labels.tolist() == labels
    with pytest.warns(UserWarning, match="1 labels are missing"):
        holes = ClassBalancedSampling(pandas.Categorical(["a", None, "a"]))
    assert holes.weights.tolist() == [0.5, 0, 0.5]
    with pytest.raises(ValueError, match="empty"):
        ClassBalancedSampling([])
    with pytest.raises(ValueError, match="either equal"):
        ClassBalancedSampling([1, 2], indices=[1, 2, 3])
    with pytest.raises(ValueError, match="dimensions"):
        ClassBalancedSampling([[1, 2], [3, 4]])
    with pytest.raises(TypeError):
        ClassBalancedSampling(None)


def test_the_base_class():
    with pytest.raises(NotImplementedError):
        SamplingStrategy().get_indices(range(3))
    with pytest.raises(NotImplementedError):
        SamplingStrategy().get_len(range(3))


def test_drop_last_lengths():
    strategy = BlockShuffling(4, drop_last=True)
    assert strategy.get_len(range(23)) == 20 == len(strategy.get_indices(range(23), seed=1))
    assert len(BlockShuffling(10, drop_last=True).get_indices(range(3), seed=1)) == 0
    assert BlockShuffling(10).get_indices(range(3), seed=1).tolist() == [0, 1, 2]
    assert BlockShuffling(10).get_indices([], seed=1).tolist() == []
