"""Cases whose order is compared with scDataset's: made by name, so that they can be stored."""

import numpy as np

N = 203
_GENERATOR = np.random.default_rng(20)
WEIGHTS = _GENERATOR.random(N) * 10
LABELS = _GENERATOR.choice(["a", "b", "c"], N, p=[0.8, 0.15, 0.05])
SOME = np.flatnonzero(_GENERATOR.random(N) < 0.6)


def strategies(lib):
    """Strategies of a library, theirs or ours, by name."""
    weighted, balanced = lib.BlockWeightedSampling, lib.ClassBalancedSampling
    return {
        "streaming": lib.Streaming(),
        "streaming shuffled": lib.Streaming(shuffle=True),
        "streaming some": lib.Streaming(indices=SOME, shuffle=True),
        "blocks": lib.BlockShuffling(8),
        "blocks that divide": lib.BlockShuffling(7),
        "blocks of one": lib.BlockShuffling(1),
        "blocks larger than all": lib.BlockShuffling(500),
        "blocks drop": lib.BlockShuffling(8, drop_last=True),
        "blocks some": lib.BlockShuffling(8, indices=SOME),
        "blocks some drop": lib.BlockShuffling(8, indices=SOME, drop_last=True),
        "drawn": weighted(4),
        "drawn some": weighted(4, indices=SOME, total_size=150),
        "weighted": weighted(4, weights=WEIGHTS),
        "weighted more": weighted(8, weights=WEIGHTS, total_size=450),
        "weighted few": weighted(8, weights=WEIGHTS, total_size=3),
        "weighted float32": weighted(8, weights=WEIGHTS.astype(np.float32), total_size=90),
        "weighted integers": weighted(8, weights=WEIGHTS.astype(np.int64) + 1, total_size=90),
        "weighted some": weighted(4, indices=SOME, weights=WEIGHTS),
        "weighted some, own": weighted(4, indices=SOME, weights=WEIGHTS[SOME]),
        "rounds": weighted(4, weights=WEIGHTS, total_size=130, replace=False, sampling_size=50),
        "rounds equal": weighted(4, total_size=130, replace=False, sampling_size=50),
        "rounds some": weighted(
            4, indices=SOME, weights=WEIGHTS, total_size=200, replace=False, sampling_size=70
        ),
        "balanced": balanced(LABELS, 8),
        "balanced more": balanced(LABELS, 8, total_size=400),
        "balanced some": balanced(LABELS, 8, indices=SOME),
        "balanced some, own": balanced(LABELS[SOME], 8, indices=SOME),
        "balanced rounds": balanced(LABELS, 8, total_size=100, replace=False, sampling_size=30),
    }


def batches(dataset):
    """An epoch, as lists."""
    return [[int(row) for row in batch] for batch in dataset]


def whole(lib, name, seed, **options):
    """A dataset of one of the strategies."""
    return lib.scDataset(np.arange(N), strategies(lib)[name], 5, 3, seed=seed, **options)
