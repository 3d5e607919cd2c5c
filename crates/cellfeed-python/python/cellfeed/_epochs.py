"""Which epoch the workers of a `DataLoader` are in: they must agree, and nobody tells them."""

from __future__ import annotations

import multiprocessing
from multiprocessing import sharedctypes
from typing import Any

# Generations of workers that are remembered; of two at once there is hardly need.
_SLOTS = 32
_NEXT, _CURSOR, _BY_WORKERS, _HEAD = range(4)
_SEED, _TURN, _WORKERS, _EPOCH, _CLAIMS, _WIDTH = range(6)


class Epochs:
    """The next epoch, in memory that a process shares with its workers.

    PyTorch starts workers anew for each epoch, or tells those that persist to begin again, and a dataset
    is told of neither. What workers of one start have in common is a seed that PyTorch draws for it, and
    how often each was told to begin. The first of them to ask gets the next epoch; the others get the
    same.
    """

    def __init__(self, epoch: int = 0) -> None:
        # A lock of this context goes to workers that are forked as well as to those that are spawned.
        self._lock: Any = multiprocessing.get_context("spawn").Lock()
        self._numbers: Any = sharedctypes.RawArray("q", _HEAD + _SLOTS * _WIDTH)
        self._numbers[_NEXT] = epoch

    def __reduce__(self) -> Any:
        # A worker shares it; any other copy is one of its own.
        if _is_spawning():
            return _shared, (self._lock, self._numbers)
        return Epochs, (self._numbers[_NEXT],)

    def _locked(self) -> Any:
        return _Held(self._lock)

    @property
    def by_workers(self) -> bool:
        """Whether it was workers who began the last epoch."""
        return bool(self._numbers[_BY_WORKERS])

    @property
    def next(self) -> int:
        """The epoch that comes next."""
        return int(self._numbers[_NEXT])

    def set(self, epoch: int) -> None:
        """Says which epoch comes next."""
        with self._locked():
            self._numbers[_NEXT] = epoch
            self._numbers[_BY_WORKERS] = 0
            # A generation that was not begun by all of its workers begins this epoch, too.
            for slot in range(_SLOTS):
                self._numbers[_HEAD + slot * _WIDTH + _CLAIMS] = 0

    def claim(self) -> int:
        """The next epoch, for a process without workers."""
        with self._locked():
            epoch = int(self._numbers[_NEXT])
            self._numbers[_NEXT] = epoch + 1
            self._numbers[_BY_WORKERS] = 0
            return epoch

    def claim_as_worker(self, seed: int, turn: int, n_workers: int, epoch: int | None) -> int:
        """The epoch of the workers that have a seed in common and begin for the ``turn``-th time.

        Parameters
        ----------
        seed, turn
            What they have in common.
        n_workers
            How many they are.
        epoch
            The epoch, where a worker goes on from a state.
        """
        numbers = self._numbers
        with self._locked():
            numbers[_BY_WORKERS] = 1
            for slot in range(_SLOTS):
                at = _HEAD + slot * _WIDTH
                # One that is complete is over: the seed may be the same again.
                if (
                    numbers[at : at + _EPOCH] == [seed, turn, n_workers]
                    and 0 < numbers[at + _CLAIMS] < n_workers
                ):
                    numbers[at + _CLAIMS] += 1
                    return int(numbers[at + _EPOCH])
            if epoch is None:
                epoch = int(numbers[_NEXT])
            numbers[_NEXT] = epoch + 1
            at = _HEAD + numbers[_CURSOR] * _WIDTH
            numbers[_CURSOR] = (numbers[_CURSOR] + 1) % _SLOTS
            numbers[at : at + _WIDTH] = [seed, turn, n_workers, epoch, 1]
            return epoch


class _Held:
    """A lock that is waited for with patience, but not for ever: its holder may have been killed."""

    def __init__(self, lock: Any) -> None:
        self._lock = lock

    def __enter__(self) -> None:
        if not self._lock.acquire(timeout=60):
            raise RuntimeError(
                "the workers cannot agree on an epoch: one was ended while it asked; make the "
                "dataset anew"
            )

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _is_spawning() -> bool:
    return multiprocessing.context.get_spawning_popen() is not None


def _shared(lock: Any, numbers: Any) -> Epochs:
    epochs = Epochs.__new__(Epochs)
    epochs._lock = lock
    epochs._numbers = numbers
    return epochs
