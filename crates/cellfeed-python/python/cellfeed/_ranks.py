"""Which training process of how many this is."""

from __future__ import annotations

import os
import sys


def find(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Rank and world size.

    As they were given; else of ``torch.distributed`` where it is initialised; else of the environment
    (``RANK`` and ``WORLD_SIZE``, as torchrun sets them); else one process alone.
    """
    if (rank is None) != (world_size is None):
        raise ValueError("give both rank and world_size, or neither")
    if rank is not None and world_size is not None:
        return _checked(rank, world_size, "world_size")
    # If nobody has imported it, nobody has initialised it.
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    found = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    if found[0] is None or found[1] is None:
        return 0, 1
    try:
        numbers = int(found[0]), int(found[1])
    except ValueError:
        raise ValueError(
            f"the environment has RANK={found[0]!r} and WORLD_SIZE={found[1]!r}; they must be whole "
            "numbers"
        ) from None
    return _checked(*numbers, "WORLD_SIZE")


def _checked(rank: int, world_size: int, name: str) -> tuple[int, int]:
    for what, value in (("rank", rank), (name, world_size)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{what} must be a whole number, not {value!r}")
    if not 0 <= rank < world_size:
        raise ValueError(
            f"rank {rank} does not exist in a world of {world_size}; ranks count from 0"
        )
    return rank, world_size
