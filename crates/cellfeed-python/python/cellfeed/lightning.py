"""Cellfeed in Lightning.

>>> from cellfeed.lightning import CellDataModule
>>> data = CellDataModule(
...     "atlas.h5ad",
...     obs=["cell_type"],
...     layout="dense",
...     train={"subset": "plate != plate14"},
...     val={"subset": "plate == plate14", "strategy": "streaming"},
... )  # doctest: +SKIP
>>> lightning.Trainer(max_epochs=3).fit(model, datamodule=data)  # doctest: +SKIP

The module makes its loaders once the trainer has begun its processes, so that each finds its rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ._loader import Loader
from ._optional import need
from ._store import Store, open

__all__ = ["CellDataModule"]


def _base() -> Any:
    try:
        return need("lightning.pytorch", "cellfeed.lightning").LightningDataModule
    except ImportError:
        # The same under its older name.
        return need("pytorch_lightning", "cellfeed.lightning").LightningDataModule


class _Epochs:
    """A loader for a trainer, which calls ``iter`` more often than it takes minibatches: an epoch begins
    with its first minibatch."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        yield from self.loader

    def state_dict(self) -> dict[str, Any]:
        return self.loader.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loader.load_state_dict(state)


class CellDataModule(_base()):  # type: ignore[misc]
    """Loaders of one store for a trainer of Lightning.

    Parameters
    ----------
    store
        A store, or what `cellfeed.open` takes.
    train, val, test, predict
        Options of `cellfeed.Loader` for each of these; a stage without is not there.
    **options
        Options that all have in common; ``output`` is ``"torch"`` by default.

    Notes
    -----
    Where a checkpoint is taken in the middle of an epoch, training goes on with the next minibatch. A
    trainer cannot tell the size of a `Batch`: give ``batch_size=len(batch)`` to ``self.log``.
    """

    def __init__(
        self,
        store: Any,
        *,
        train: Mapping[str, Any] | None = None,
        val: Mapping[str, Any] | None = None,
        test: Mapping[str, Any] | None = None,
        predict: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self._store = store if isinstance(store, Store) else open(store)
        options.setdefault("output", "torch")
        stages = {"train": train, "val": val, "test": test, "predict": predict}
        self._options = {name: {**options, **more} for name, more in stages.items() if more is not None}
        if not self._options:
            raise ValueError("give options for train, val, test or predict; train={} takes all cells")
        # What makes no sense is said now, not once processes have begun.
        for more in self._options.values():
            Loader(self._store, **{**more, "rank": 0, "world_size": 1})
        self._loaders: dict[str, Loader] = {}

    @property
    def store(self) -> Store:
        """The store."""
        return self._store

    def loader(self, stage: str) -> Loader:
        """The loader of a stage, which is made when it is first asked for.

        Parameters
        ----------
        stage
            ``"train"``, ``"val"``, ``"test"`` or ``"predict"``.
        """
        if stage not in self._options:
            there_are = ", ".join(self._options)
            raise ValueError(f"no options were given for {stage}; there are some for {there_are}")
        if stage not in self._loaders:
            self._loaders[stage] = Loader(self._store, **self._options[stage])
        return self._loaders[stage]

    def train_dataloader(self) -> Any:
        """The loader for training."""
        return _Epochs(self.loader("train"))

    def val_dataloader(self) -> Any:
        """The loader for validation, or nothing."""
        return _Epochs(self.loader("val")) if "val" in self._options else []

    def test_dataloader(self) -> Any:
        """The loader for testing."""
        return _Epochs(self.loader("test"))

    def predict_dataloader(self) -> Any:
        """The loader for prediction."""
        return _Epochs(self.loader("predict"))
