"""Cellfeed as a dataset of PyTorch.

>>> from torch.utils.data import DataLoader
>>> from cellfeed.torch import CellDataset
>>> dataset = CellDataset("atlas.h5ad", obs=["cell_type"], layout="dense")  # doctest: +SKIP
>>> for batch in DataLoader(dataset, batch_size=None):  # doctest: +SKIP
...     loss = model(batch.X, batch.obs["cell_type"])

`cellfeed.Loader` alone does the same with less between it and the model: it reads ahead on threads of its
own and needs no worker processes. The dataset is for code that wants a `DataLoader`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info
from torch.utils.data._utils.collate import default_collate_fn_map

from ._batch import Batch
from ._epochs import Epochs
from ._loader import Loader
from ._options import whole
from ._plans import Planned, Position

__all__ = ["CellDataset"]


class CellDataset(IterableDataset):  # type: ignore[type-arg]
    """Minibatches of a store as an `IterableDataset`, to put in ``DataLoader(dataset, batch_size=None)``.

    With worker processes every worker takes its share of the fetches: together they yield what one
    process would, in another order of minibatches. Each opens the store for itself, with its share of
    the cores. Every iteration is the next epoch, with workers that persist and with those that do not.

    Parameters
    ----------
    store
        A store, what `cellfeed.open` takes, or a `cellfeed.Loader` or `cellfeed.CollectionLoader`.
    **options
        As `cellfeed.Loader`; ``output`` is ``"torch"`` by default. Rank and world size are found when the
        dataset is made, so make it after ``init_process_group``.

    Notes
    -----
    `state_dict` and `load_state_dict` are what torchdata's ``StatefulDataLoader`` calls, in the workers if
    there are any. With PyTorch's own `DataLoader` they are exact without workers; with workers the
    dataset cannot know which minibatches have arrived, and says so.
    """

    def __init__(self, store: Any, **options: Any) -> None:
        super().__init__()
        self._loader: Planned
        if isinstance(store, Planned):
            if options:
                raise TypeError(f"the loader has its options: {', '.join(options)} cannot be given")
            self._loader = store
        else:
            options.setdefault("output", "torch")
            self._loader = Loader(store, **options)
        self._epochs = Epochs(self._loader.epoch)
        # How often this copy of the dataset was iterated by a worker.
        self._turn = 0
        # A worker's state to go on from, and its iterator.
        self._pending: dict[str, Any] | None = None
        self._working: Any = None

    @property
    def loader(self) -> Planned:
        """The loader that it is made of."""
        return self._loader

    def __len__(self) -> int:
        """Minibatches in an epoch of this rank, of all its workers together."""
        return len(self._loader)

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next iteration yields, also to workers that persist.

        Parameters
        ----------
        epoch
            Its number.
        """
        self._epochs.set(whole("epoch", epoch, 0))
        self._loader.set_epoch(epoch)

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        if worker is None:
            self._loader._next_epoch = self._epochs.claim()
            return iter(self._loader)
        loader, pending = self._loader, self._pending
        self._turn += 1
        self._pending = None
        epoch = self._epochs.claim_as_worker(
            worker.seed - worker.id,
            self._turn,
            worker.num_workers,
            None if pending is None else pending["epoch"],
        )
        loader._share_cores(worker.num_workers)
        plan, skip = loader._plan, 0
        if pending is not None:
            plan, skip = plan.resume(json.dumps(pending["plan"])), pending["yielded"]
        elif loader._resumed is not None and loader._resumed_epoch == epoch:
            plan = loader._resumed
        loader._resumed = None
        position = Position(plan, epoch, plan.first_minibatch(epoch))
        self._working = loader._iterate(position, worker.id, worker.num_workers, skip)
        # Without a state of its own, which the dataset has.
        return map(_same, self._working)

    def state_dict(self) -> dict[str, Any]:
        """Where the iteration is: in a worker that of the worker's share.

        Returns
        -------
        dict
            Of numbers and text.

        Raises
        ------
        RuntimeError
            In the main process, if workers iterate: what they have yielded is known to a
            ``StatefulDataLoader`` only.
        """
        worker = get_worker_info()
        if worker is None:
            if self._epochs.by_workers:
                raise RuntimeError(
                    "worker processes read this dataset, and it cannot know which of their minibatches "
                    "have arrived: use torchdata's StatefulDataLoader, or num_workers=0, which reads "
                    "ahead too"
                )
            return self._loader.state_dict()
        about = {"worker": worker.id, "n_workers": worker.num_workers}
        if self._working is None:
            if self._pending is not None:
                return dict(self._pending)
            epoch = self._epochs.next
            plan = json.loads(self._loader._plan.state(epoch, 0))
            return {**about, "epoch": epoch, "yielded": 0, "plan": plan}
        at = self._working._position
        plan = json.loads(at.plan.state(at.epoch, at.plan.first_minibatch(at.epoch)))
        return {**about, "epoch": at.epoch, "yielded": self._working.yielded, "plan": plan}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state, with the next minibatch of its epoch.

        Parameters
        ----------
        state
            What `state_dict` gave; in a worker that of the worker of the same number among as many.
        """
        if not isinstance(state, dict):
            raise TypeError(f"a state is a dict, not {type(state).__name__}")
        if "worker" not in state:
            self._loader.load_state_dict(state)
            self._epochs.set(self._loader.epoch)
            return
        worker = get_worker_info()
        here = (worker.id, worker.num_workers) if worker is not None else (0, 0)
        there = (state["worker"], state["n_workers"])
        if here != there:
            now = f"of worker {here[0]} of {here[1]}" if worker is not None else "of no worker"
            raise ValueError(
                f"the state is of worker {there[0]} of {there[1]}, but this process is {now}; go on "
                "with as many workers as there were"
            )
        if state["plan"]["world_size"] != self._loader.world_size:
            raise ValueError(
                f"the state is of {state['plan']['world_size']} ranks with workers, but there are "
                f"{self._loader.world_size}; go on with as many ranks"
            )
        # Refuses the state of another dataset.
        self._loader._plan.resume(json.dumps(state["plan"]))
        self._pending = dict(state)
        self._working = None

    def __repr__(self) -> str:
        return f"<CellDataset of {self._loader!r}>"


def _refuse(*_: Any, **__: Any) -> Any:
    """Stands where a `DataLoader` would put several minibatches together."""
    raise TypeError(
        "a CellDataset yields whole minibatches: make DataLoader(dataset, batch_size=None), and give "
        "the batch_size to CellDataset"
    )


default_collate_fn_map[Batch] = _refuse


def _same(batch: Any) -> Any:
    return batch
