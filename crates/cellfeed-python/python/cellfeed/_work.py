"""Native work that takes a while: waited for with a progress bar, and ended by Ctrl-C."""

from __future__ import annotations

import json
from typing import Any

from . import _native


def run(work: _native.Work, progress: bool, unit: str) -> dict[str, Any]:
    """Waits for it.

    Parameters
    ----------
    work
        What goes on.
    progress
        Whether to show a progress bar, if tqdm is installed.
    unit
        What is counted.

    Returns
    -------
    dict
        What came of it.
    """
    bar = _bar(unit) if progress else None
    try:
        while not work.wait():
            if bar is not None:
                _show(bar, *work.progress)
        return dict(json.loads(work.finish()))
    except BaseException:
        # Ctrl-C, for one.
        work.give_up()
        raise
    finally:
        if bar is not None:
            bar.close()


def _bar(unit: str) -> Any:
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return None
    return tqdm(unit=unit, unit_scale=True)


def _show(bar: Any, doing: str, done: int, total: int) -> None:
    bar.set_description(doing or None, refresh=False)
    if done < bar.n or bar.total != (total or None):
        bar.reset(total=total or None)
    bar.update(done - bar.n)
