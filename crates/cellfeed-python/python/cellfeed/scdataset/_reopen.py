"""Files of h5py in worker processes that are spawned.

h5py's objects refuse to be pickled, and so does all that holds one, such as an AnnData in backed
mode. For processes started by `multiprocessing`, and for these alone, they are pickled as the name
of their file, which the new process opens again.
"""

from __future__ import annotations

import importlib
import sys
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

_opened: dict[str, Any] = {}


def let_h5py_be_spawned() -> None:
    """Register with `multiprocessing` how h5py's objects are sent, if h5py is in use."""
    h5py = sys.modules.get("h5py")
    if h5py is not None:
        ForkingPickler.register(h5py.File, _reduce)
        ForkingPickler.register(h5py.Group, _reduce)
        ForkingPickler.register(h5py.Dataset, _reduce)


def _reduce(item: Any) -> tuple[Any, tuple[str, str | None]]:
    if not item:
        raise TypeError("an h5py object of a closed file cannot be sent to a worker: open it again")
    file = item.file
    path = Path(file.filename)
    if file.mode != "r":
        raise TypeError(
            f"{path} is open in mode {file.mode!r}, and cannot be opened again in a worker: open "
            "it with mode 'r'"
        )
    if not path.is_file():
        raise TypeError(f"{path} is not a file that a worker could open: use workers by fork")
    # A file object stands for itself, anything else for its name.
    name = None if type(item).__name__ == "File" else item.name
    return _open, (str(path.resolve()), name)


def _open(path: str, name: str | None) -> Any:
    file = _opened.get(path)
    if not file:
        file = _opened[path] = importlib.import_module("h5py").File(path, "r")
    return file if name is None else file[name]
