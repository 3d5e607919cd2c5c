from typing import Any, Self, final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Labels",
    "PLAN_VERSION",
    "Plan",
    "Run",
    "Store",
    "Subset",
    "Work",
    "__version__",
    "check_run",
    "command",
    "convert",
    "diversity",
    "tune",
]

__version__: str
PLAN_VERSION: int

_Column = tuple[Any, NDArray[np.bool_] | None]
_Categories = tuple[list[str], bool] | None

@final
class Store:
    def __new__(
        cls,
        paths: list[str],
        *,
        join: str,
        label: str | None,
        threads: int | None,
        remote: dict[str, Any],
        access: str | None = None,
    ) -> Self: ...
    def take_warnings(self) -> list[str]: ...
    @property
    def is_here(self) -> bool: ...
    @property
    def n_obs(self) -> int: ...
    @property
    def n_vars(self) -> int: ...
    @property
    def format(self) -> str: ...
    @property
    def writer(self) -> str | None: ...
    @property
    def threads(self) -> int: ...
    @property
    def obs_index(self) -> str | None: ...
    def obs_columns(self) -> list[tuple[str, str, str, str | None]]: ...
    def obs_categories(self, name: str) -> _Categories: ...
    def check_obs(self, name: str) -> None: ...
    def matrices(self) -> list[dict[str, Any]]: ...
    def check_matrix(self, matrix: str) -> None: ...
    def read_rows(
        self, matrix: str, rows: NDArray[np.uint64]
    ) -> tuple[NDArray[Any], NDArray[np.int32], NDArray[np.int64]]: ...
    def read_obs(self, columns: list[str], start: int, stop: int) -> list[_Column]: ...
    def has_missing(self, name: str) -> bool: ...
    def read_var(
        self, matrix: str
    ) -> tuple[list[str] | None, list[tuple[str, str, _Categories, _Column]]]: ...
    def var_names(self, matrix: str) -> list[str]: ...
    def subset(self, conditions: list[str]) -> Subset: ...

@final
class Subset:
    @staticmethod
    def all(n_obs: int) -> Subset: ...
    @staticmethod
    def of_mask(mask: NDArray[np.bool_]) -> Subset: ...
    @staticmethod
    def of_rows(n_obs: int, rows: NDArray[np.uint64]) -> Subset: ...
    @property
    def n_cells(self) -> int: ...

@final
class Plan:
    def __new__(
        cls,
        store: Store | None,
        subset: Subset,
        strategy: str,
        *,
        block_size: int,
        shuffle: bool,
        draws: int | None,
        replacement: bool,
        by: list[str],
        weights: NDArray[np.float64] | None,
        labels: list[NDArray[np.int64]],
        batch_size: int,
        fetch_factor: int,
        drop_last: bool,
        seed: int,
        rank: int,
        world_size: int,
    ) -> Self: ...
    @property
    def n_obs(self) -> int: ...
    @property
    def n_cells(self) -> int: ...
    @property
    def n_minibatches(self) -> int: ...
    @property
    def n_fetches(self) -> int: ...
    @property
    def strategy(self) -> str: ...
    def n_minibatches_of(self, epoch: int) -> int: ...
    def first_minibatch(self, epoch: int) -> int: ...
    def first_fetch(self, epoch: int) -> int: ...
    def n_fetches_of(self, epoch: int) -> int: ...
    def worker_first(
        self, epoch: int, worker: int, n_workers: int, skip: int
    ) -> tuple[int, int]: ...
    def fetch(self, epoch: int, number: int) -> list[NDArray[np.int64]]: ...
    def state(self, epoch: int, minibatch: int) -> str: ...
    def resume(self, state: str) -> Plan: ...

@final
class Run:
    def __new__(
        cls,
        store: Store,
        plan: Plan,
        *,
        epoch: int,
        worker: int,
        n_workers: int,
        skip: int,
        matrix: str,
        obs: list[tuple[str, bool]],
        layout: str,
        dtype: str,
        memory: int,
        read_ahead: int | None,
        genes: list[str] | None,
        normalize_total: float | None,
        log1p: bool,
        binarize: float | None,
    ) -> Self: ...
    def __iter__(self) -> Run: ...
    def __next__(
        self,
    ) -> tuple[tuple[NDArray[Any], ...], NDArray[np.int64], list[Any], int]: ...
    @property
    def waited(self) -> float: ...
    def close(self) -> None: ...

@final
class Labels:
    @staticmethod
    def of_column(store: Store, column: str) -> Labels: ...
    @staticmethod
    def of_codes(codes: NDArray[np.int64]) -> Labels: ...

@final
class Work:
    @property
    def progress(self) -> tuple[str, int, int]: ...
    def wait(self) -> bool: ...
    def give_up(self) -> None: ...
    def finish(self) -> str: ...

def convert(
    source: Store,
    destination: str,
    *,
    format: str | None,
    codec: str | None,
    chunk_rows: int | None,
    shuffle: int | None,
    layers: list[str] | None,
    raw: bool,
    obs: list[str] | None,
    genes: list[str] | None,
    memory: int,
    overwrite: bool,
    staging: str | None,
    remote: dict[str, Any],
) -> Work: ...
def diversity(
    plan: Plan, labels: Labels, *, window: int, epoch: int, minibatches: int | None
) -> Work: ...
def tune(
    path: str,
    label: str,
    *,
    target_deff: float,
    target_entropy: float | None,
    matrix: str,
    batch_size: int,
    layout: str,
    dtype: str,
    memory: int,
    window: int,
    seed: int,
    time_limit: float,
    page_cache: str,
    threads: int | None,
    remote: dict[str, Any],
) -> Work: ...
def command(args: list[str]) -> int: ...
def check_run(
    store: Store,
    plan: Plan,
    *,
    matrix: str,
    obs: list[tuple[str, bool]],
    layout: str,
    dtype: str,
    memory: int,
    read_ahead: int | None,
    genes: list[str] | None,
    normalize_total: float | None,
    log1p: bool,
    binarize: float | None,
) -> None: ...
