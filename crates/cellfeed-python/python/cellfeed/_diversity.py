"""How diverse minibatches are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from . import _native, _ranks, _strategies, _work

from ._options import whole
from ._plans import Planned
from ._store import Join, Store, open
from ._subsets import native_subset


@dataclass(frozen=True)
class ExpectedDiversity:
    """What theory expects of a label as it lies on disk. Entropies are in bits.

    Attributes
    ----------
    entropy
        Of a minibatch.
    entropy_lower_bound, entropy_upper_bound
        What a fetch factor of 1 gives if every block has one label (nothing for strategies without
        blocks), and what independent draws give.
    rho
        The correlation of labels within what stays together.
    deff_1, deff_w
        The design effects of a minibatch and of a window; nothing where a label has one value or there
        is no closed form.
    """

    entropy: float
    entropy_lower_bound: float | None
    entropy_upper_bound: float
    rho: float
    deff_1: float | None
    deff_w: float | None


@dataclass(frozen=True)
class Diversity:
    """How diverse minibatches are in a label. Entropies are in bits.

    Attributes
    ----------
    label
        The obs column; ``"labels"`` if an array was given.
    n_cells, n_labels, n_missing
        Cells to choose from, labels, and cells without one, which count as one more label.
    strategy
        How cells were chosen, in words.
    window
        Minibatches of the window of `deff_w`.
    n_minibatches, n_partial
        Minibatches that were measured, and those that were not full and do not count.
    entropy, entropy_spread
        The mean over minibatches, and the standard deviation.
    deff_1, deff_w
        Design effects: by how many times the variance of a mean over the cells of a minibatch, or of a
        window of them, is larger than with independent cells. 1 is as good as true random. Nothing for
        a label with one value.
    entropy_store
        The entropy of the label in all cells.
    n_runs, mean_run, longest_run
        Runs of neighbours on disk with one label, and how long they are.
    expected
        What theory expects; nothing for weighted sampling.
    note
        What theory leaves out, and why.
    """

    label: str
    n_cells: int
    n_labels: int
    n_missing: int
    strategy: str
    window: int
    n_minibatches: int
    n_partial: int
    entropy: float | None
    entropy_spread: float | None
    deff_1: float | None
    deff_w: float | None
    entropy_store: float
    n_runs: int
    mean_run: float
    longest_run: int
    expected: ExpectedDiversity | None
    note: str | None

    def to_dict(self) -> dict[str, Any]:
        """All of it as a dict of numbers, text and dicts."""
        return asdict(self)

    def __repr__(self) -> str:
        expected = self.expected
        lines = [
            f"Diversity of {self.label}: {self.n_labels:,} labels in {self.n_cells:,} cells, "
            f"{self.entropy_store:.3f} bits",
            f"    {self.strategy}: {self.n_minibatches:,} minibatches",
            f"    {'':16}{'measured':>10}{'expected':>10}",
        ]
        for name, measured, theory in (
            ("entropy, bits", self.entropy, None if expected is None else expected.entropy),
            ("DEFF_1", self.deff_1, None if expected is None else expected.deff_1),
            (f"DEFF_{self.window}", self.deff_w, None if expected is None else expected.deff_w),
        ):
            lines.append(f"    {name:16}{_show(measured):>10}{_show(theory):>10}")
        if self.note is not None:
            lines.append(f"    {self.note}")
        return "\n".join(lines)


def _show(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def diversity(
    source: Planned | Store | str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    label: Any,
    *,
    batch_size: int = 64,
    block_size: int | None = None,
    fetch_factor: int = 256,
    strategy: str | _strategies.Strategy = "stratified",
    by: Any = None,
    weights: Any = None,
    subset: Any = None,
    seed: int = 0,
    drop_last: bool = False,
    rank: int | None = None,
    world_size: int | None = None,
    epoch: int = 0,
    minibatches: int | None = None,
    window: int = 10,
    join: Join = "outer",
    progress: bool = True,
) -> Diversity:
    """Measure how diverse minibatches are in a label, beside what theory expects.

    Runs the plan of an epoch over the labels alone: no matrix is read.

    Parameters
    ----------
    source
        A loader, whose own plan is measured, or a store, or what `cellfeed.open` takes.
    label
        An obs column of categories, text, whole numbers or truth values; or an array of a label for
        each cell.
    batch_size, block_size, fetch_factor, strategy, by, weights, subset, seed, drop_last, rank, world_size
        As in `cellfeed.Loader`. A loader that is given has them.
    epoch
        The first epoch.
    minibatches
        How many to measure, of several epochs if one has fewer; by default those of one epoch.
    window
        Consecutive minibatches of the design effect ``deff_w``.
    join
        As in `cellfeed.open`.
    progress
        Whether to show a progress bar, if tqdm is installed.

    Returns
    -------
    Diversity
        Entropy and design effects, measured and expected.

    Examples
    --------
    >>> cellfeed.diversity("atlas.h5ad", "plate", strategy="block_shuffling")  # doctest: +SKIP
    """
    options = dict(locals())
    given = {name for name in _OF_A_LOADER if options[name] is not _OF_A_LOADER[name]}
    if isinstance(source, Planned):
        if given:
            raise TypeError(f"the loader has its own {', '.join(sorted(given))}")
        planned, store = source, getattr(source, "store", None)
    else:
        store = source if isinstance(source, Store) else open(source, join=join)
        found = _ranks.find(rank, world_size)
        planned = Planned()
        planned._begin(
            store,
            native_subset(subset, store.n_obs, store),
            _strategies.find(strategy, block_size, by, weights),
            batch_size=batch_size,
            fetch_factor=fetch_factor,
            drop_last=drop_last,
            seed=seed,
            rank=found[0],
            world_size=found[1],
            fetch_transform=None,
            batch_transform=None,
        )
    if isinstance(label, str):
        if store is None:
            raise TypeError("a collection has no obs columns; give the labels themselves as an array")
        labels = _native.Labels.of_column(store._native, label)
    else:
        labels = _native.Labels.of_codes(_strategies.codes_of(label))
    work = _native.diversity(
        planned._plan,
        labels,
        window=whole("window", window, 1),
        epoch=whole("epoch", epoch, 0),
        minibatches=None if minibatches is None else whole("minibatches", minibatches, 1),
    )
    answer = _work.run(work, progress, " minibatches")
    if answer["expected"] is not None:
        answer["expected"] = ExpectedDiversity(**answer["expected"])
    return Diversity(label=label if isinstance(label, str) else "labels", **answer)


# What a loader that is given has already, and the defaults.
_OF_A_LOADER: dict[str, Any] = {
    "batch_size": 64,
    "block_size": None,
    "fetch_factor": 256,
    "strategy": "stratified",
    "by": None,
    "weights": None,
    "subset": None,
    "seed": 0,
    "drop_last": False,
    "rank": None,
    "world_size": None,
}
