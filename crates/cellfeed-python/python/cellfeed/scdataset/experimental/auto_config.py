"""How large samples are, and which parameters fit into the memory."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ... import _taking as _rows
from ..multiindexable import MultiIndexable

__all__ = ["estimate_sample_size", "suggest_parameters"]

_GIB = 2.0**30
_MIB = 2.0**20
# A fetch beyond this brings nothing more; without a known memory or size, a careful choice.
_LARGEST_FACTOR = 256
_CAREFUL_FACTOR = 8
# Parts of an AnnData that hold values by row.
_PARTS = ("X", "obs", "var", "obsm", "varm", "layers")


def estimate_sample_size(
    data_collection: Any,
    n_samples: int = 16,
    fetch_callback: Callable[..., Any] | None = None,
    fetch_transform: Callable[..., Any] | None = None,
    batch_callback: Callable[..., Any] | None = None,
    batch_transform: Callable[..., Any] | None = None,
) -> int:
    """Estimate the bytes of a sample after all hooks, as the mean over the first ones.

    Parameters
    ----------
    data_collection : object
        As for `scDataset`.
    n_samples : int, default 16
        How many samples are looked at.
    fetch_callback, fetch_transform, batch_callback, batch_transform : callable, optional
        As for `scDataset`.

    Returns
    -------
    int
        0 if there are no samples.
    """
    seen = min(n_samples, _rows.count(data_collection))
    if seen <= 0:
        return 0
    total = 0
    for row in range(seen):
        if fetch_callback is not None:
            sample = fetch_callback(data_collection, [row])
        elif batch_callback is not None or _only_lists(data_collection):
            sample = _rows.take(data_collection, [row])
        else:
            sample = data_collection[row]
        if fetch_transform is not None:
            sample = fetch_transform(sample)
        if batch_callback is not None:
            sample = batch_callback(sample, [0])
        if batch_transform is not None:
            sample = batch_transform(sample)
        total += _deep_sizeof(sample)
    return int(total / seen)


def suggest_parameters(
    data_collection: Any,
    batch_size: int,
    target_ram_fraction: float = 0.2,
    max_workers: int = 16,
    min_workers: int = 1,
    verbose: bool = True,
    fetch_callback: Callable[..., Any] | None = None,
    fetch_transform: Callable[..., Any] | None = None,
    batch_callback: Callable[..., Any] | None = None,
    batch_transform: Callable[..., Any] | None = None,
) -> dict[str, Any]:
    """Suggest parameters by the size of samples, the memory and the cores.

    Parameters
    ----------
    data_collection : object
        As for `scDataset`.
    batch_size : int
        Cells of a minibatch.
    target_ram_fraction : float, default 0.2
        The share of the free memory that all workers may fill, with what they read ahead.
    max_workers, min_workers : int, default 16 and 1
        Limits of the number of workers.
    verbose : bool, default True
        Print the suggestions.
    fetch_callback, fetch_transform, batch_callback, batch_transform : callable, optional
        As for `scDataset`.

    Returns
    -------
    dict
        ``num_workers``, ``prefetch_factor`` for the `DataLoader`; ``fetch_factor`` for
        `scDataset`; ``block_size_conservative``, ``_balanced`` and ``_aggressive`` for
        strategies; ``estimated_memory_per_fetch_mb``, ``estimated_total_memory_mb`` and
        ``system_info``.
    """
    sample = estimate_sample_size(
        data_collection,
        fetch_callback=fetch_callback,
        fetch_transform=fetch_transform,
        batch_callback=batch_callback,
        batch_transform=batch_transform,
    )
    cores = os.cpu_count() or 4
    memory = _memory()
    if memory is None:
        warnings.warn(
            "how much memory is free could not be found out, so careful parameters are suggested; "
            "psutil would tell: pip install psutil",
            UserWarning,
            stacklevel=2,
        )
    workers = min(max(cores // 2, min_workers), max_workers)
    per_minibatch = batch_size * sample
    # Each worker holds a fetch, and as much again that is read ahead.
    held = 2 * workers * per_minibatch
    if held <= 0:
        factor = _CAREFUL_FACTOR
    else:
        free = memory[0] if memory else 8 * _GIB
        factor = min(max(int(free * target_ram_fraction / held), 1), _LARGEST_FACTOR)
    per_fetch = factor * per_minibatch / _MIB
    unknown = "unknown (psutil not installed)"
    suggested: dict[str, Any] = {
        "num_workers": workers,
        "fetch_factor": factor,
        "block_size_conservative": max(1, factor // 2),
        "block_size_balanced": factor,
        "block_size_aggressive": factor * 2,
        # One more, so that the next fetch begins while the last one is used up.
        "prefetch_factor": factor + 1,
        "estimated_memory_per_fetch_mb": per_fetch,
        "estimated_total_memory_mb": per_fetch * workers * 2,
        "system_info": {
            "available_ram_gb": memory[0] / _GIB if memory else unknown,
            "total_ram_gb": memory[1] / _GIB if memory else unknown,
            "cpu_count": cores,
            "estimated_sample_size_bytes": sample,
        },
    }
    if verbose:
        _tell(suggested)
    return suggested


def _only_lists(data_collection: Any) -> bool:
    """Return whether a number alone is not a row of the collection."""
    named = isinstance(data_collection, (MultiIndexable, Mapping))
    return named or hasattr(data_collection, "iloc") or not hasattr(data_collection, "__getitem__")


def _tell(suggested: dict[str, Any]) -> None:
    system = suggested["system_info"]
    free = system["available_ram_gb"]
    print("System Information")
    print(f"  free memory:    {free if isinstance(free, str) else f'{free:.1f} GB'}")
    print(f"  cores:          {system['cpu_count']}")
    print(f"  bytes a sample: {system['estimated_sample_size_bytes']}")
    print("Suggested Parameters")
    for name in (
        "num_workers",
        "prefetch_factor",
        "fetch_factor",
        "block_size_conservative",
        "block_size_balanced",
        "block_size_aggressive",
    ):
        print(f"  {name}: {suggested[name]}")
    print(f"Memory: {suggested['estimated_memory_per_fetch_mb']:.1f} MB a fetch,", end=" ")
    print(f"{suggested['estimated_total_memory_mb']:.1f} MB for all workers")


def _memory() -> tuple[float, float] | None:
    """Return the bytes that are free, and all there are."""
    try:
        memory = importlib.import_module("psutil").virtual_memory()
        return float(memory.available), float(memory.total)
    except ImportError:
        pass
    try:
        with open("/proc/meminfo") as lines:
            fields = {name: rest.split()[0] for name, _, rest in (x.partition(":") for x in lines)}
        return float(fields["MemAvailable"]) * 1024, float(fields["MemTotal"]) * 1024
    except (OSError, KeyError, IndexError, ValueError):
        return None


def _deep_sizeof(obj: Any, seen: set[int] | None = None) -> int:
    """Return the bytes of an object and of what it holds, each part once."""
    seen = set() if seen is None else seen
    if id(obj) in seen:
        return 0
    seen.add(id(obj))
    if isinstance(obj, str):
        return len(obj.encode())
    if isinstance(obj, bytes):
        return len(obj)
    if isinstance(obj, dict):
        return sys.getsizeof(obj) + sum(
            _deep_sizeof(key, seen) + _deep_sizeof(value, seen) for key, value in obj.items()
        )
    if isinstance(obj, (list, tuple)):
        return sys.getsizeof(obj) + sum(_deep_sizeof(item, seen) for item in obj)
    if isinstance(obj, MultiIndexable):
        # What is not by row is shared by all samples.
        return sum(_deep_sizeof(modality, seen) for modality in obj)
    known = _arrays_sizeof(obj)
    if known is not None:
        return known
    if getattr(obj, "X", None) is not None:
        return _anndata_sizeof(obj, seen)
    return sys.getsizeof(obj)


def _arrays_sizeof(obj: Any) -> int | None:
    if isinstance(obj, (np.ndarray, np.generic)):
        return int(obj.nbytes)
    memory_usage = getattr(obj, "memory_usage", None)
    if callable(memory_usage):
        return int(np.sum(memory_usage(deep=True)))
    if hasattr(obj, "toarray"):
        parts = ("data", "indices", "indptr", "row", "col")
        arrays = (getattr(obj, part, None) for part in parts)
        return sum(int(array.nbytes) for array in arrays if isinstance(array, np.ndarray))
    if hasattr(obj, "element_size") and hasattr(obj, "numel"):
        if str(getattr(obj, "layout", "")) == "torch.sparse_csr":
            tensors = (obj.values(), obj.col_indices(), obj.crow_indices())
            return sum(int(tensor.element_size() * tensor.numel()) for tensor in tensors)
        return int(obj.element_size() * obj.numel())
    return None


def _anndata_sizeof(obj: Any, seen: set[int]) -> int:
    total = 0
    for name in _PARTS:
        part = getattr(obj, name, None)
        if part is None:
            continue
        if hasattr(part, "items") and _arrays_sizeof(part) is None:
            total += sum(_deep_sizeof(value, seen) for _, value in part.items())
        else:
            total += _deep_sizeof(part, seen)
    return total
