"""The order of rows in an epoch, computed for the positions that are asked for.

An order maps positions ``0 .. len(order)`` to rows of a collection. Only what cannot be computed is
kept: of a shuffled epoch the permutation of its blocks, of a streamed one nothing. With ten million
blocks of sixteen cells that is 80 MB and not 1.3 GB.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


class Order(ABC):
    """Rows by position."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def at(self, positions: Rows) -> Rows:
        """Rows at these positions, as an array that is the caller's own."""

    def span(self, begin: int, end: int) -> Rows:
        """Rows at the positions from `begin` to before `end`."""
        return self.at(np.arange(begin, end, dtype=np.int64))

    def all(self) -> Rows:
        """Rows at all positions."""
        return self.span(0, len(self))


class InTurn(Order):
    """Rows ``0 .. n`` as they come."""

    def __init__(self, n: int) -> None:
        self._n = n

    def __len__(self) -> int:
        return self._n

    def at(self, positions: Rows) -> Rows:
        return positions.copy()

    def span(self, begin: int, end: int) -> Rows:
        return np.arange(begin, end, dtype=np.int64)


class Listed(Order):
    """Rows of a list."""

    def __init__(self, rows: Any) -> None:
        self._rows = np.asarray(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def at(self, positions: Rows) -> Rows:
        return np.asarray(self._rows[positions], dtype=np.int64)

    def span(self, begin: int, end: int) -> Rows:
        return np.array(self._rows[begin:end], dtype=np.int64)


class LeftOut(Order):
    """Rows ``0 .. n`` as they come, without some."""

    def __init__(self, n: int, without: Rows) -> None:
        self._n = n - len(without)
        # How many rows that are kept lie before each one left out.
        self._kept_before = np.sort(without) - np.arange(len(without))

    def __len__(self) -> int:
        return self._n

    def at(self, positions: Rows) -> Rows:
        skipped = np.searchsorted(self._kept_before, positions, side="right")
        return np.asarray(positions + skipped, dtype=np.int64)


class Within(Order):
    """An order of the positions of another order."""

    def __init__(self, outer: Order, inner: Order) -> None:
        self._outer = outer
        self._inner = inner

    def __len__(self) -> int:
        return len(self._inner)

    def at(self, positions: Rows) -> Rows:
        return self._outer.at(self._inner.at(positions))

    def span(self, begin: int, end: int) -> Rows:
        return self._outer.at(self._inner.span(begin, end))


class Blocks(Order):
    """Blocks of neighbours in a random order; a shorter block, the tail, somewhere among them."""

    def __init__(self, n: int, block_size: int, rng: np.random.Generator) -> None:
        self._n = n
        self._size = block_size
        full, self._tail = divmod(n, block_size)
        self._tail_row = n - self._tail
        # The same draws as for permuting the rows of a table of blocks.
        self._blocks = rng.permutation(full)
        slot = int(rng.integers(0, full + 1)) if self._tail else full
        self._tail_at = slot * block_size

    def __len__(self) -> int:
        return self._n

    def at(self, positions: Rows) -> Rows:
        after = positions >= self._tail_at + self._tail
        inside = (positions >= self._tail_at) & ~after
        place = positions - self._tail * after
        # Positions in the tail are looked up as the first block, and then corrected.
        place[inside] = 0
        rows = np.zeros_like(positions)
        if len(self._blocks):
            rows = self._blocks[place // self._size] * self._size + place % self._size
        rows[inside] = positions[inside] - self._tail_at + self._tail_row
        return rows
