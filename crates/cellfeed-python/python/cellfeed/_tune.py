"""Which sampling is the fastest that is diverse enough."""

from __future__ import annotations

import os
from typing import Any, Literal

from . import _native, _work
from ._options import matrix_key, number, one_of, value_type, whole
from ._sizes import parse_bytes, show_bytes
from ._store import Store, open
from ._strategies import BlockShuffling, StratifiedBlockShuffling, Strategy


class Tuned:
    """What tuning found.

    Attributes
    ----------
    strategy
        The recommended strategy, with its block size.
    block_size, fetch_factor, batch_size, read_ahead, threads, memory
        What goes with it.
    meets_target
        Whether it is as diverse as was asked for; else nothing within the memory is, and it is the most
        diverse of what fits.
    cells_per_second
        How fast it was when it was checked.
    entropy, deff
        The entropy of a minibatch in bits, and the design effect of the window, of what was read then.
    command
        The command line that does the same.
    candidates
        Every setting that was looked at, as dicts.
    svg
        A drawing of speed against diversity.
    """

    def __init__(self, label: str, report: dict[str, Any], svg: str) -> None:
        best, check = report["recommended"], report["check"]
        self._report, self._label = report, label
        self.block_size: int = best["block_size"]
        self.strategy: Strategy
        if best["strategy"] == "block-shuffling":
            self.strategy = BlockShuffling(self.block_size)
        else:
            by = label if best["strategy"] == "stratified-by-label" else ()
            self.strategy = StratifiedBlockShuffling(self.block_size, by=by)
        self.batch_size: int = report["batch_size"]
        self.fetch_factor: int = best["fetch_factor"]
        self.read_ahead: int = best["read_ahead"]
        self.threads: int = best["threads"]
        self.memory: int = best["memory_bytes"]
        self.meets_target: bool = best["meets_target"]
        self.cells_per_second: float = check["measured_cells_per_second"]
        self.entropy: float = check["measured_diversity"]["entropy_bits"]
        self.deff: float | None = check["measured_diversity"]["deff_w"]
        self.command: str = best["command"]
        self.candidates: list[dict[str, Any]] = report["candidates"]
        self.svg = svg

    def loader_options(self) -> dict[str, Any]:
        """The recommended options: ``cellfeed.Loader(store, **tuned.loader_options())``."""
        return {
            "strategy": self.strategy,
            "batch_size": self.batch_size,
            "fetch_factor": self.fetch_factor,
            "read_ahead": self.read_ahead,
            "threads": self.threads,
            "memory": self.memory,
        }

    def to_dict(self) -> dict[str, Any]:
        """All that was found, as ``cellfeed tune --json`` prints it."""
        return dict(self._report)

    def __repr__(self) -> str:
        deff = "-" if self.deff is None else f"{self.deff:.2f}"
        window = self._report["window"]
        meets = "" if self.meets_target else "\n    nothing within the memory meets the target"
        return (
            f"Tuned for {self._label} of {self._report['store']}: {self.strategy!r}\n"
            f"    fetch_factor={self.fetch_factor}, batch_size={self.batch_size}, "
            f"read_ahead={self.read_ahead}, threads={self.threads}, memory {show_bytes(self.memory)}\n"
            f"    {self.cells_per_second:,.0f} cells/s, {self.entropy:.3f} bits a minibatch, "
            f"DEFF_{window} {deff}; {len(self.candidates)} settings looked at{meets}"
        )


def tune(
    store: Store | str | os.PathLike[str],
    label: str,
    *,
    target_deff: float | None = None,
    target_entropy: float | None = None,
    memory: int | str = "1GiB",
    batch_size: int = 64,
    window: int = 10,
    layer: str | None = None,
    layout: Literal["csr", "dense"] = "csr",
    dtype: Any = "float32",
    threads: int | None = None,
    page_cache: Literal["auto", "warm", "cold"] = "auto",
    time_limit: float = 60,
    seed: int = 0,
    progress: bool = True,
) -> Tuned:
    """Find the fastest sampling that is diverse enough, on this store and this machine.

    Runs plans over the label, times the loader at a few settings, predicts the others, and runs the
    best. Give the machine nothing else to do meanwhile.

    Parameters
    ----------
    store
        One store, or its path.
    label
        The obs column that minibatches should mix: the plate, the donor, the drug; of several the one
        with the longest runs.
    target_deff
        Take settings with a design effect of at most this; 1.5 by default. 1 is as good as random.
    target_entropy
        Instead: take settings with at least this share of the entropy that true random sampling has.
    memory
        Bytes that fetches and waiting minibatches may take, as in `cellfeed.Loader`.
    batch_size
        Cells in a minibatch.
    window
        Consecutive minibatches that the design effect is over.
    layer, layout, dtype
        As in `cellfeed.Loader`.
    threads
        Threads to use at most; those of the store by default.
    page_cache
        Which state of the page cache decides: ``"warm"`` if the store is in memory from the second epoch
        on, ``"cold"`` if it is read from disk, ``"auto"`` by its size. Unless ``"warm"``, the store's
        pages are thrown out of the page cache for some runs.
    time_limit
        Seconds to measure, about; with less the predictions are rougher.
    seed
        The seed of every random choice.
    progress
        Whether to show a progress bar, if tqdm is installed.

    Returns
    -------
    Tuned
        What to use, how fast and how diverse that was, and every setting that was looked at.

    Examples
    --------
    >>> tuned = cellfeed.tune("atlas.h5ad", "plate")  # doctest: +SKIP
    >>> loader = cellfeed.Loader("atlas.h5ad", **tuned.loader_options())  # doctest: +SKIP
    """
    if not isinstance(store, Store):
        store = open(store)
    if len(store.paths) != 1:
        raise ValueError(
            f"{len(store.paths)} stores cannot be tuned as one; tune one of them, or convert them into one"
        )
    if target_deff is not None and target_entropy is not None:
        raise ValueError("give target_deff or target_entropy, not both")
    if not isinstance(label, str):
        raise TypeError(f"label must be the name of an obs column, not {type(label).__name__}")
    one_of("page_cache", page_cache, ("auto", "warm", "cold"))
    one_of("layout", layout, ("csr", "dense"))
    deff, limit = number("target_deff", target_deff), number("time_limit", time_limit)
    work = _native.tune(
        store.paths[0],
        label,
        target_deff=1.5 if deff is None else deff,
        target_entropy=number("target_entropy", target_entropy),
        matrix=matrix_key(layer),
        batch_size=whole("batch_size", batch_size, 1),
        layout=layout,
        dtype=value_type(dtype),
        memory=parse_bytes(memory, "memory"),
        window=whole("window", window, 1),
        seed=whole("seed", seed, 0),
        time_limit=60.0 if limit is None else limit,
        page_cache=page_cache,
        threads=store.threads if threads is None else whole("threads", threads, 1),
        remote=store._options["remote"],
    )
    answer = _work.run(work, progress, " steps")
    return Tuned(label, answer["report"], answer["svg"])
