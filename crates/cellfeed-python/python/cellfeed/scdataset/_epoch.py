"""The number of the epoch, shared by a dataset and its copies in worker processes.

A `DataLoader` without `persistent_workers` starts new workers for every epoch, each with a copy of
the dataset. What a copy counts is lost with it: scDataset repeats its first epoch for ever. Here
the count is kept in an unlinked file that all copies have open, whether they were forked or
spawned.
"""

from __future__ import annotations

import os
import struct
import tempfile
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import context, reduction
from typing import Any

try:
    import fcntl
except ImportError:  # Not on Windows: each process counts for itself, as in scDataset.
    fcntl = None  # type: ignore[assignment]

# The next epoch, and how many entries were written; then entries in a ring.
_HEAD = struct.Struct("<qq")
# Seed of the loader's workers, turn, number of workers, how many have come, epoch.
_ENTRY = struct.Struct("<qqqqq")
# As many iterations over one dataset may be under way at once.
_ENTRIES = 64


class EpochCounter:
    """Gives each iteration its epoch, and all workers of an iteration the same.

    Parameters
    ----------
    epoch : int, default 0
        The epoch of the next iteration.
    """

    def __init__(self, epoch: int = 0) -> None:
        self._alone = epoch
        # Turns that this process has begun as a worker, by the seed of its loader.
        self._turns: dict[int, int] = {}
        self._file = -1
        if fcntl is not None:
            self._adopt(_unlinked_file())
            self.next = epoch

    def _adopt(self, file: int) -> None:
        self._file = file
        weakref.finalize(self, os.close, file)

    @property
    def next(self) -> int:
        """The epoch of the next iteration."""
        if self._file < 0:
            return self._alone
        with self._locked():
            return self._head()[0]

    @next.setter
    def next(self, epoch: int) -> None:
        if self._file < 0:
            self._alone = epoch
            return
        with self._locked():
            _, written = self._head()
            os.pwrite(self._file, _HEAD.pack(epoch, written), 0)

    def take(self) -> int:
        """Begin an iteration outside workers; return its epoch."""
        if self._file < 0:
            self._alone += 1
            return self._alone - 1
        with self._locked():
            epoch, written = self._head()
            os.pwrite(self._file, _HEAD.pack(epoch + 1, written), 0)
            return epoch

    def take_as_worker(self, loader_seed: int, workers: int) -> int:
        """Begin an iteration as one of the workers of a loader; return its epoch.

        The first worker to come takes the next epoch, and the others that one. They know each other
        by the seed that the loader draws when it starts its workers, and, if they persist, by how
        often they have begun.
        """
        if self._file < 0:
            return self.take()
        turn = self._turns.get(loader_seed, 0)
        self._turns[loader_seed] = turn + 1
        with self._locked():
            epoch, written = self._head()
            for number in range(written - 1, max(written - _ENTRIES, 0) - 1, -1):
                seed, its_turn, its_workers, come, its_epoch = self._entry(number)
                mine = (seed, its_turn, its_workers) == (loader_seed, turn, workers)
                # Where all have come this is another loader, which happens to have the same seed.
                if mine and come < workers:
                    self._write_entry(number, seed, its_turn, its_workers, come + 1, its_epoch)
                    return its_epoch
            self._write_entry(written, loader_seed, turn, workers, 1, epoch)
            os.pwrite(self._file, _HEAD.pack(epoch + 1, written + 1), 0)
            return epoch

    def _head(self) -> tuple[int, int]:
        epoch, written = _HEAD.unpack(os.pread(self._file, _HEAD.size, 0))
        return epoch, written

    def _entry(self, number: int) -> tuple[int, int, int, int, int]:
        a, b, c, d, e = _ENTRY.unpack(os.pread(self._file, _ENTRY.size, _offset(number)))
        return a, b, c, d, e

    def _write_entry(self, number: int, *fields: int) -> None:
        os.pwrite(self._file, _ENTRY.pack(*fields), _offset(number))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # Locks of records belong to a process: workers that were forked exclude each other too, and
        # a worker that is killed leaves no lock behind.
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)

    def __reduce__(self) -> tuple[Callable[..., EpochCounter], tuple[Any, ...]]:
        if self._file >= 0 and context.get_spawning_popen() is not None:
            return _shared, (reduction.DupFd(self._file),)
        # A copy that is kept, or sent elsewhere, counts on for itself.
        return EpochCounter, (self.next,)


def _offset(number: int) -> int:
    return _HEAD.size + number % _ENTRIES * _ENTRY.size


def _unlinked_file() -> int:
    with tempfile.TemporaryFile() as file:
        descriptor = os.dup(file.fileno())
    os.pwrite(descriptor, _HEAD.pack(0, 0), 0)
    return descriptor


def _shared(descriptor: Any) -> EpochCounter:
    counter = EpochCounter.__new__(EpochCounter)
    counter._alone = 0
    counter._turns = {}
    counter._adopt(descriptor.detach())
    return counter
