"""What all loaders have in common: a plan, and where they are in it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _native
from ._options import checked, whole

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ._store import Store
    from ._strategies import Strategy


class Position:
    """How far an iterator is."""

    __slots__ = ("plan", "epoch", "minibatch")

    def __init__(self, plan: _native.Plan, epoch: int, minibatch: int) -> None:
        self.plan = plan
        self.epoch = epoch
        self.minibatch = minibatch

    def state(self) -> dict[str, Any]:
        """The state after what was yielded."""
        return dict(json.loads(self.plan.state(self.epoch, self.minibatch)))


class Planned:
    """Minibatches by a plan, epoch after epoch."""

    _arguments: dict[str, Any]

    def _begin(
        self,
        store: Store | None,
        subset: _native.Subset,
        strategy: Strategy,
        *,
        batch_size: int,
        fetch_factor: int,
        drop_last: bool,
        seed: int,
        rank: int,
        world_size: int,
        fetch_transform: Callable[[Any], Any] | None,
        batch_transform: Callable[[Any], Any] | None,
    ) -> None:
        for name, hook in (("fetch_transform", fetch_transform), ("batch_transform", batch_transform)):
            checked(name, hook)
        self._fetch_transform, self._batch_transform = fetch_transform, batch_transform
        self._has_hooks = fetch_transform is not None or batch_transform is not None
        self._batch_size = whole("batch_size", batch_size, 1)
        self._fetch_factor = whole("fetch_factor", fetch_factor, 1)
        self._rank, self._world_size = rank, world_size
        self._strategy = strategy
        self._plan = _native.Plan(
            None if store is None else store._native,
            subset,
            **strategy._arguments(),
            batch_size=self._batch_size,
            fetch_factor=self._fetch_factor,
            drop_last=bool(drop_last),
            seed=whole("seed", seed, 0),
            rank=rank,
            world_size=world_size,
        )
        if drop_last and self._plan.n_minibatches == 0:
            ranks = " for each rank" if world_size > 1 else ""
            warnings.warn(
                f"there are no minibatches: an epoch has fewer than {batch_size} cells{ranks}, and "
                "drop_last leaves out what does not fill one",
                stacklevel=3,
            )
        self._next_epoch = 0
        # A plan that goes on in the middle of its epoch, until that epoch is begun.
        self._resumed: _native.Plan | None = None
        self._resumed_epoch = 0
        # Where the iterator is that was made last.
        self._position: Position | None = None

    def _iterate(
        self, position: Position, worker: int = 0, n_workers: int = 1, skip: int = 0
    ) -> Any:
        """The minibatches of a worker's share of an epoch, after the first ones."""
        raise NotImplementedError

    def _share_cores(self, n_workers: int) -> None:
        """Leave the other workers of this machine their cores."""

    # --- What it yields.

    @property
    def batch_size(self) -> int:
        """Cells in a minibatch."""
        return self._batch_size

    @property
    def strategy(self) -> Strategy:
        """How cells are chosen and ordered."""
        return self._strategy

    @property
    def rank(self) -> int:
        """Which training process this is, from 0 on."""
        return self._rank

    @property
    def world_size(self) -> int:
        """How many training processes there are."""
        return self._world_size

    @property
    def n_cells(self) -> int:
        """Cells that an epoch of this rank yields."""
        return self._plan.n_cells

    def __len__(self) -> int:
        """Minibatches in an epoch of this rank."""
        return self._plan.n_minibatches

    def plan_rows(self, epoch: int = 0) -> Iterator[NDArray[np.int64]]:
        """The row numbers of each minibatch of an epoch, without reading anything.

        Parameters
        ----------
        epoch
            The epoch.

        Yields
        ------
        numpy.ndarray
            The rows of a minibatch, in its order.
        """
        for fetch in range(self._plan.n_fetches):
            yield from self._plan.fetch(epoch, fetch)

    # --- Epochs.

    @property
    def epoch(self) -> int:
        """The epoch that the next ``iter()`` yields."""
        return self._next_epoch

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next ``iter()`` yields.

        Parameters
        ----------
        epoch
            Its number. If the loader was resumed in the middle of this epoch, what is left of it comes.
        """
        self._next_epoch = whole("epoch", epoch, 0)
        self._position = None

    def __iter__(self) -> Iterator[Any]:
        batches: Iterator[Any] = self._iterate(self._next_position())
        return batches

    def _next_position(self) -> Position:
        epoch, plan = self._next_epoch, self._plan
        if self._resumed is not None and self._resumed_epoch == epoch:
            plan = self._resumed
        self._resumed = None
        self._next_epoch = epoch + 1
        self._position = Position(plan, epoch, plan.first_minibatch(epoch))
        return self._position

    # --- States.

    def state_dict(self) -> dict[str, Any]:
        """Where the loader is: after the minibatches that its last iterator has yielded.

        Returns
        -------
        dict
            Small, of numbers and text; the same on every rank. `load_state_dict` goes on from it with the
            next minibatch, exactly.
        """
        if self._position is not None:
            return self._position.state()
        epoch = self._next_epoch
        resumed = self._resumed if self._resumed_epoch == epoch else None
        plan = self._plan if resumed is None else resumed
        return dict(json.loads(plan.state(epoch, plan.first_minibatch(epoch))))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state: the next ``iter()`` yields what was left of its epoch.

        Parameters
        ----------
        state
            What `state_dict` gave, of a loader over the same cells with the same strategy, sizes and seed.
            The number of ranks may be another at the end of a round of fetches.

        Raises
        ------
        ValueError
            If it is of another loader, with what differs.
        """
        if not isinstance(state, dict):
            raise TypeError(f"a state is a dict, not {type(state).__name__}")
        self._resumed = self._plan.resume(json.dumps(state))
        self._next_epoch = int(state["epoch"])
        self._resumed_epoch = self._next_epoch
        self._position = None

    def __reduce__(self) -> Any:
        return _remake, (type(self), self._arguments, self.state_dict())

    def _describe_plan(self) -> str:
        ranks = f", rank {self._rank} of {self._world_size}" if self._world_size > 1 else ""
        return (
            f"in {len(self):,} minibatches of {self._batch_size}, {self._plan.strategy}, "
            f"{self._fetch_factor} minibatches a fetch{ranks}"
        )


def _remake(kind: type[Planned], arguments: dict[str, Any], state: dict[str, Any]) -> Planned:
    loader = kind(**arguments)
    loader.load_state_dict(state)
    return loader


def transformed(hook: Callable[[Any], Any], cells: Any, n: int, count: Callable[[Any], int]) -> Any:
    """What a ``fetch_transform`` makes of so many cells; refused if it is not of as many."""
    made = hook(cells)
    if made is None:
        raise TypeError("fetch_transform returned None; it must return what minibatches are cut from")
    kept = count(made)
    if kept != n:
        raise ValueError(
            f"fetch_transform was given {n} cells and returned {kept}; it must keep their number, "
            "since minibatches are cut from what it returns"
        )
    return made
