"""The order of samples is scDataset's own, bit for bit."""

import json
import pathlib

import cases
import numpy as np
import pytest
from make_golden import summary

import cellfeed.scdataset as ours

GOLDEN = json.loads(pathlib.Path(__file__).with_name("golden.json").read_text())
NAMES = list(cases.strategies(ours))


def theirs():
    return pytest.importorskip("scdataset", reason="scDataset is not installed")


def test_the_documented_example():
    dataset = ours.scDataset(np.arange(20), ours.BlockShuffling(4), 4, 2, seed=0)
    first = [[10, 16, 11, 18], [17, 8, 9, 19], [14, 2, 15, 12], [13, 1, 0, 3], [6, 7, 5, 4]]
    assert cases.batches(dataset) == first
    assert ours.BlockShuffling(4).get_indices(range(20), seed=0).tolist() == [
        *range(8, 12), *range(16, 20), *range(12, 16), *range(4), *range(4, 8)
    ]  # fmt: skip


def test_every_case_is_golden():
    assert set(GOLDEN) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_golden(name):
    dataset = cases.whole(ours, name, seed=7)
    for epoch, expected in enumerate(GOLDEN[name]):
        assert summary(cases.batches(dataset)) == expected, f"epoch {epoch}"


@pytest.mark.parametrize("name", NAMES)
def test_against_the_installed(name):
    lib = theirs()
    for seed in (0, 1, 12345):
        a, b = cases.whole(lib, name, seed), cases.whole(ours, name, seed)
        assert len(a) == len(b)
        for _ in range(3):
            assert cases.batches(a) == cases.batches(b)
    for drop_last in (False, True):
        a = cases.whole(lib, name, 3, drop_last=drop_last)
        b = cases.whole(ours, name, 3, drop_last=drop_last)
        a.sort_before_fetch = b.sort_before_fetch = False
        assert len(a) == len(b)
        assert cases.batches(a) == cases.batches(b)


@pytest.mark.parametrize("name", NAMES)
def test_indices_against_the_installed(name):
    a, b = cases.strategies(theirs())[name], cases.strategies(ours)[name]
    everything = range(cases.N)
    assert a.get_len(everything) == b.get_len(everything)
    for seed in range(5):
        np.testing.assert_array_equal(
            a.get_indices(everything, seed=seed), b.get_indices(everything, seed=seed)
        )
        one, other = np.random.default_rng(seed), np.random.default_rng(seed)
        np.testing.assert_array_equal(
            a.get_indices(everything, seed=9, rng=one), b.get_indices(everything, seed=9, rng=other)
        )
        # As much has been drawn.
        assert one.random() == other.random()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ranks", [2, 3, 4, 7])
@pytest.mark.parametrize("drop_last", [False, True])
def test_ranks_against_the_installed(name, ranks, drop_last):
    lib = theirs()
    sizes, same = [], []
    for rank in range(ranks):
        options = {"rank": rank, "world_size": ranks, "drop_last": drop_last}
        a, b = cases.whole(lib, name, 2, **options), cases.whole(ours, name, 2, **options)
        expected = cases.batches(a)
        sizes.append(len(expected))
        if name != "weighted few" or drop_last:
            same.append(cases.batches(b) == expected)
        b.equal_ranks = False
        assert len(b) == len(expected)
        b._epoch = 0
        assert cases.batches(b) == expected
    if len(set(sizes)) == 1:
        assert all(same), "where theirs are equal, ours are theirs"


def test_pieces_are_the_whole():
    """Orders that are computed piece by piece, at any borders."""
    for name, strategy in cases.strategies(ours).items():
        order = strategy._order(range(cases.N), 5, None)
        everything = strategy.get_indices(range(cases.N), seed=5)
        assert len(order) == len(everything)
        for begin in range(0, len(order), 11):
            end = min(begin + 11, len(order))
            np.testing.assert_array_equal(order.span(begin, end), everything[begin:end], name)


def test_an_order_of_many_rows_is_small():
    import tracemalloc

    class Many:
        def __len__(self):
            return 10**8

    tracemalloc.start()
    order = ours.BlockShuffling(1000)._order(Many(), 0, None)
    assert len(order.span(10**7, 10**7 + 10**4)) == 10**4
    streamed = ours.Streaming()._order(Many(), 0, None)
    assert streamed.span(10**8 - 3, 10**8).tolist() == [10**8 - 3, 10**8 - 2, 10**8 - 1]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # All rows would be 800 MB.
    assert peak < 4_000_000
