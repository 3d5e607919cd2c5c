"""Who takes which fetch: ranks of a distributed training, and workers of a rank.

scDataset deals fetches to ranks in turn, which leaves some ranks with more minibatches than others
unless the numbers happen to divide: the ranks that have more wait forever for the others in their
next collective operation. Here the last round is dealt cell by cell where that would be so, by the
rule of ``docs/sampling.md`` under "Ranks".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Fetch:
    """Positions ``begin .. end`` of the epoch's order, of which `cells` go into `batches`."""

    begin: int
    end: int
    batches: int
    cells: int
    batch_size: int

    def cuts(self) -> Iterator[tuple[int, int]]:
        """Yield the borders of each minibatch within the fetch."""
        begin = 0
        for j in range(1, self.batches + 1):
            # Where this rank has a cell less than others, each minibatch has one all the same.
            end = min(j * self.batch_size, self.cells - (self.batches - j))
            if j == self.batches:
                end = self.cells
            yield begin, end
            begin = end


class Share:
    """The fetches of one rank."""

    def __init__(
        self,
        n: int,
        batch_size: int,
        fetch_size: int,
        drop_last: bool,
        rank: int,
        world_size: int,
        equal: bool,
    ) -> None:
        self._n = n
        self._batch_size = batch_size
        self._fetch_size = fetch_size
        self._drop_last = drop_last
        self._rank = rank
        self._world_size = world_size
        self._last: Fetch | None = None
        fetches = -(-n // fetch_size)
        # Of the rank's fetches, those in turn; the last round may be another.
        self._in_turn = len(range(rank, fetches, world_size))
        if equal and not self._turns_are_equal(fetches):
            self._deal_last_round()

    def __len__(self) -> int:
        return self._in_turn + (self._last is not None)

    def __getitem__(self, k: int) -> Fetch:
        if not 0 <= k < len(self):
            raise IndexError(k)
        if k == self._in_turn and self._last is not None:
            return self._last
        return self._turn(self._rank + k * self._world_size)

    def batches(self) -> int:
        """Return the number of minibatches in all."""
        if not len(self):
            return 0
        return (len(self) - 1) * self._count(self._fetch_size) + self[len(self) - 1].batches

    def of_worker(self, worker: int, workers: int) -> range:
        """Return the numbers of the fetches that one of the rank's workers reads."""
        each, more = divmod(len(self), workers)
        begin = worker * each + min(worker, more)
        return range(begin, begin + each + (worker < more))

    def _count(self, cells: int) -> int:
        return cells // self._batch_size if self._drop_last else -(-cells // self._batch_size)

    def _turn(self, number: int) -> Fetch:
        begin = number * self._fetch_size
        end = min(begin + self._fetch_size, self._n)
        return self._fetch(begin, end, self._count(end - begin))

    def _fetch(self, begin: int, end: int, batches: int) -> Fetch:
        cells = batches * self._batch_size if self._drop_last else end - begin
        return Fetch(begin, end, batches, cells, self._batch_size)

    def _turns_are_equal(self, fetches: int) -> bool:
        if self._world_size == 1 or fetches == 0:
            return True
        last = self._turn(fetches - 1)
        others = self._count(self._fetch_size)
        if fetches % self._world_size == 0:
            return last.batches == others
        # Some ranks have a fetch more: it must not come to a minibatch.
        return fetches % self._world_size == 1 and last.batches == 0

    def _deal_last_round(self) -> None:
        round_size = self._world_size * self._fetch_size
        full, left = divmod(self._n, round_size)
        if not self._drop_last and 0 < left < self._world_size and full > 0:
            # Too few for a cell each: the last round is dealt with them.
            full -= 1
            left += round_size
        share, more = divmod(left, self._world_size)
        if self._drop_last:
            batches = share // self._batch_size
        else:
            batches = min(-(-(share + (more > 0)) // self._batch_size), share)
        self._in_turn = full
        if batches:
            begin = self._n - left + self._rank * share + min(self._rank, more)
            end = begin + share + (self._rank < more)
            self._last = self._fetch(begin, end, batches)
