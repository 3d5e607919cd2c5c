"""The dataset of PyTorch: workers, ranks, states."""

import copy
import pickle
import subprocess
import sys
import textwrap
import warnings

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import cellfeed
from cellfeed._plans import Position
from cellfeed.torch import CellDataset
from conftest import N_OBS, N_VARS, dense, rows_of

SIZES = {"batch_size": 16, "block_size": 4, "fetch_factor": 5}

pytestmark = pytest.mark.filterwarnings(
    "ignore:This DataLoader will create", "ignore:Sparse invariant checks", "ignore:.*multi-threaded.*fork"
)


def minibatches(batches):
    """What minibatches are there, whatever their order."""
    return sorted(tuple(b.rows.tolist()) for b in batches)


def planned(dataset, epoch):
    return sorted(tuple(rows.tolist()) for rows in dataset.loader.plan_rows(epoch))


def test_minibatches_are_not_put_together(h5ad):
    dataset = CellDataset(h5ad, **SIZES)
    for options in ({}, {"batch_size": 4}):
        with pytest.raises(TypeError, match=r"DataLoader\(dataset, batch_size=None\)"):
            next(iter(DataLoader(dataset, **options)))


def loader_of(dataset, n_workers, context, persistent=False, **options):
    if n_workers == 0:
        context = None
    return DataLoader(
        dataset,
        batch_size=None,
        num_workers=n_workers,
        multiprocessing_context=context,
        persistent_workers=persistent,
        **options,
    )


WAYS = [(0, None, False)]
WAYS += [(n, "fork", persistent) for n in (1, 3) for persistent in (False, True)]
# A spawned worker takes seconds to import PyTorch.
WAYS += [(2, "spawn", True), (2, "spawn", False)]


@pytest.mark.parametrize(("n_workers", "context", "persistent"), WAYS)
def test_every_epoch_is_the_plan_s(h5ad, adata, n_workers, context, persistent):
    dataset = CellDataset(h5ad, **SIZES, layout="dense", obs=["cell_type", "note"])
    # The parent's threads run before the workers begin.
    assert minibatches(dataset) == planned(dataset, 0)
    loader = loader_of(dataset, n_workers, context, persistent)
    assert len(loader) == len(dataset) == 63
    x, codes = adata.X.toarray(), adata.obs["cell_type"].cat.codes.to_numpy()
    for epoch in (1, 2):
        batches = list(loader)
        assert {b.epoch for b in batches} == {epoch}
        assert minibatches(batches) == planned(dataset, epoch)
        for b in batches:
            assert torch.equal(b.X, torch.from_numpy(x[b.rows])) and b.X.dtype == torch.float32
            assert np.array_equal(b.obs["cell_type"], codes[b.rows])
            assert list(b.obs["note"]) == [f"note {r} ☃" for r in b.rows.tolist()]
    dataset.set_epoch(9)
    assert minibatches(loader) == planned(dataset, 9)
    assert minibatches(loader) == planned(dataset, 10)


def test_epochs_go_on_whatever_reads_them(h5ad):
    dataset = CellDataset(h5ad, **SIZES)
    epoch = 0
    for n_workers in (2, 0, 3, 1, 2):
        # The seed of PyTorch, by which workers know each other, may be the same each time.
        torch.manual_seed(0)
        assert minibatches(loader_of(dataset, n_workers, "fork")) == planned(dataset, epoch)
        epoch += 1
    # Workers that are abandoned have had their epoch.
    next(iter(loader_of(dataset, 2, "fork")))
    assert minibatches(dataset) == planned(dataset, epoch + 1)


def test_sparse_tensors_and_numpy_come_from_workers(h5ad, adata):
    x = adata.X.toarray()
    for options in ({"output": "torch"}, {"output": "numpy"}, {"output": "scipy"}):
        batches = list(loader_of(CellDataset(h5ad, **SIZES, **options), 2, "fork"))
        assert sorted(rows_of(batches)) == list(range(N_OBS))
        for batch in batches:
            assert np.array_equal(dense(batch.X), x[np.asarray(batch.rows)])


def test_a_loader_can_be_given_and_copies_go_their_own_way(h5ad):
    dataset = CellDataset(cellfeed.Loader(h5ad, **SIZES, output="torch"))
    list(dataset)
    for other in (pickle.loads(pickle.dumps(dataset)), copy.deepcopy(dataset)):
        assert minibatches(other) == planned(dataset, 1)
    assert minibatches(dataset) == planned(dataset, 1)
    with pytest.raises(TypeError, match="batch_size"):
        CellDataset(cellfeed.Loader(h5ad), batch_size=3)


def test_hooks_and_states_without_workers(h5ad):
    dataset = CellDataset(h5ad, **SIZES, batch_transform=lambda b: b.rows)
    list(dataset)
    want = list(map(torch.Tensor.tolist, dataset))
    dataset.set_epoch(1)
    batches = iter(DataLoader(dataset, batch_size=None))
    for _ in range(7):
        next(batches)
    state = dataset.state_dict()
    other = CellDataset(h5ad, **SIZES, batch_transform=lambda b: b.rows)
    other.load_state_dict(state)
    assert [r.tolist() for r in DataLoader(other, batch_size=None)] == want[7:]
    with pytest.raises(TypeError, match="dict"):
        other.load_state_dict(5)


def test_what_workers_have_yielded_is_not_guessed(h5ad):
    dataset = CellDataset(h5ad, **SIZES)
    next(iter(loader_of(dataset, 2, "fork")))
    with pytest.raises(RuntimeError, match="StatefulDataLoader"):
        dataset.state_dict()


def test_an_error_in_a_worker_arrives(h5ad):
    def broken(batch):
        raise ZeroDivisionError("in the user's own code")

    # Not by pytest.raises, which keeps the traceback, and with it PyTorch's iterator, until it is
    # collected as garbage: PyTorch then waits for each worker in vain.
    try:
        list(loader_of(CellDataset(h5ad, **SIZES, batch_transform=broken), 2, "fork"))
    except ZeroDivisionError as error:
        text = str(error)
    assert "user's own code" in text and "in broken" in text


@pytest.mark.parametrize("hooked", [False, True])
@pytest.mark.parametrize("n_workers", [0, 1, 2])
def test_torchdata_s_loader_resumes_exactly(h5ad, n_workers, hooked):
    stateful = pytest.importorskip("torchdata.stateful_dataloader")

    def make():
        more = {"fetch_transform": lambda fetch: fetch} if hooked else {}
        dataset = CellDataset(h5ad, **SIZES, **more)
        return stateful.StatefulDataLoader(dataset, batch_size=None, num_workers=n_workers)

    def rows(batches):
        return [tuple(b.rows.tolist()) for b in batches]

    whole = make()
    first, second = rows(whole), rows(whole)
    assert first != second and sorted(sum(first, ())) == sorted(sum(second, ())) == list(range(N_OBS))
    for done in (1, 11, 30, 62):
        loader = make()
        list(loader)
        batches = iter(loader)
        seen = rows(next(batches) for _ in range(done))
        state = pickle.loads(pickle.dumps(loader.state_dict()))
        again = make()
        again.load_state_dict(state)
        assert seen + rows(again) == second, done
        assert len(rows(again)) == len(second)


def marked(fetch):
    """Every cell gets a number that only the whole fetch has."""
    fetch.obs["fetch"] = np.full(len(fetch), fetch.rows.sum())
    return fetch


def marks_of(batches):
    """Of each minibatch, whose number is the key, its rows and its mark."""
    return {b.number: (b.rows.tolist(), set(b.obs["fetch"].tolist())) for b in batches}


HOOKED = {"batch_size": 16, "block_size": 4, "fetch_factor": 4, "output": "numpy", "fetch_transform": marked}


@pytest.mark.parametrize("n_workers", [1, 2, 3])
def test_workers_transform_whole_fetches_of_an_epoch_that_goes_on(h5ad, n_workers):
    want = marks_of(cellfeed.Loader(h5ad, **HOOKED))
    assert all(len(mark) == 1 for _, mark in want.values())
    for done in (5, 8, 62):
        dataset = CellDataset(h5ad, **HOOKED)
        batches = iter(dataset)
        for _ in range(done):
            next(batches)
        again = CellDataset(h5ad, **HOOKED)
        again.load_state_dict(dataset.state_dict())
        left = marks_of(loader_of(again, n_workers, "fork"))
        assert left == {number: want[number] for number in range(done, 63)}, done


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_worker_that_goes_on_transforms_whole_fetches(h5ad, world_size):
    # On two ranks an epoch that one has begun: its fetches are others then, and fewer.
    one = cellfeed.Loader(h5ad, **HOOKED)
    whole = marks_of(one)
    for done in (0, 8) if world_size == 2 else (0, 5, 8, 17):
        loader = cellfeed.Loader(h5ad, **HOOKED, rank=0, world_size=world_size)
        plan = loader._plan.resume(one._plan.state(0, done))
        first, end = plan.first_minibatch(0), plan.n_minibatches_of(0)
        assert (first, end) == ((done, 63) if world_size == 1 else (0, 32 - done // 2))

        def left(worker, n_workers, skip):
            return marks_of(loader._iterate(Position(plan, 0, first), worker, n_workers, skip))

        # Without workers fetches were whole: those of an epoch that is resumed between fetches.
        want = marks_of(loader._iterate(Position(plan, 0, first)))
        if world_size == 1:
            assert want == {number: whole[number] for number in range(done, 63)}
        for n_workers in (1, 2, 3, 20):
            seen = {}
            for worker in range(n_workers):
                mine = left(worker, n_workers, 0)
                seen.update(mine)
                assert mine == {number: want[number] for number in mine}
                for skip in range(len(mine) + 2):
                    later = left(worker, n_workers, skip)
                    assert list(later) == list(mine)[skip:]
                    assert later == {number: want[number] for number in later}, (done, worker, skip)
            assert seen.keys() == want.keys()


GLOO = """
    import sys, os, json, torch, numpy as np, torch.distributed as dist, torch.multiprocessing as mp

    def main(rank, world, path, port):
        import cellfeed
        from cellfeed.torch import CellDataset
        from torch.utils.data import DataLoader
        dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
        model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(%d, 2))
        for n_workers in (0, 2):
            dataset = CellDataset(path, batch_size=16, block_size=4, fetch_factor=5, layout="dense")
            assert (dataset.loader.rank, dataset.loader.world_size) == (rank, world)
            for epoch in range(2):
                rows, steps = [], 0
                # Gradients are exchanged at every step: unequal steps would hang.
                for batch in DataLoader(dataset, batch_size=None, num_workers=n_workers):
                    model(batch.X).sum().backward()
                    rows.append(batch.rows)
                    steps += 1
                assert steps == len(dataset)
                everyone = [None] * world
                dist.all_gather_object(everyone, torch.cat(rows).tolist())
                assert sorted(sum(everyone, [])) == list(range(%d))
        dist.barrier()
        dist.destroy_process_group()

    if __name__ == "__main__":
        world, path, port = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
        context = mp.get_context("fork")
        workers = [context.Process(target=main, args=(r, world, path, port)) for r in range(world)]
        [w.start() for w in workers]
        [w.join() for w in workers]
        print([w.exitcode for w in workers])
""" % (N_VARS, N_OBS)


@pytest.mark.parametrize("world", [2, 3])
def test_processes_that_train_together(h5ad, tmp_path, world):
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(GLOO))
    done = subprocess.run(
        [sys.executable, str(script), str(world), str(h5ad), str(port)],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.stdout == f"{[0] * world}\n", done.stderr


def test_nothing_warns(h5ad):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batch = next(iter(CellDataset(h5ad, **SIZES)))
        assert batch.X.layout == torch.sparse_csr
        assert torch.equal(batch.X @ torch.ones(N_VARS, 1), batch.X.to_dense().sum(1, keepdim=True))
