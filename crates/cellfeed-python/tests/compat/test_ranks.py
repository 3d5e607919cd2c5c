"""Ranks have equally many minibatches, and see every cell once."""

import socket

import cases
import numpy as np
import pytest
import torch.multiprocessing
from torch.utils.data import DataLoader

from cellfeed.scdataset import BlockShuffling, Streaming, scDataset


def ranks(n, batch_size, fetch_factor, world_size, strategy=None, **options):
    return [
        scDataset(
            np.arange(n),
            strategy or BlockShuffling(3),
            batch_size,
            fetch_factor,
            rank=rank,
            world_size=world_size,
            seed=1,
            **options,
        )
        for rank in range(world_size)
    ]


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("batch_size", [1, 2, 5, 7])
@pytest.mark.parametrize("fetch_factor", [1, 3])
def test_equal_and_complete(world_size, batch_size, fetch_factor):
    for n in [0, *range(world_size, 70), 100, 101, 1000]:
        shares = [cases.batches(x) for x in ranks(n, batch_size, fetch_factor, world_size)]
        assert sorted(row for share in shares for batch in share for row in batch) == list(range(n))
        assert len({len(share) for share in shares}) == 1, n
        for together in zip(*shares, strict=True):
            sizes = [len(batch) for batch in together]
            # Of one cell each there is one larger minibatch, where it does not come out even.
            assert 0 < min(sizes) and max(sizes) <= max(batch_size, 2)
            assert batch_size > 1 or max(sizes) - min(sizes) <= 1
        assert len(shares[0]) == len(ranks(n, batch_size, fetch_factor, world_size)[0])


@pytest.mark.parametrize("world_size", [2, 3, 8])
@pytest.mark.parametrize("batch_size", [1, 2, 5, 7])
def test_drop_last(world_size, batch_size):
    for n in [*range(70), 100, 1000]:
        datasets = ranks(n, batch_size, 3, world_size, drop_last=True)
        shares = [cases.batches(dataset) for dataset in datasets]
        assert len({len(share) for share in shares}) == 1
        assert all(len(batch) == batch_size for share in shares for batch in share)
        seen = [row for share in shares for batch in share for row in batch]
        assert len(set(seen)) == len(seen) and n - len(seen) < world_size * batch_size
        assert [len(dataset) for dataset in datasets] == [len(share) for share in shares]


def test_the_known_defect():
    """1,000 cells on four ranks: scDataset gives 30, 30, 20 and 20 minibatches."""
    datasets = ranks(1000, 10, 10, 4)
    assert [len(dataset) for dataset in datasets] == [25, 25, 25, 25]
    for dataset in datasets:
        dataset.equal_ranks = False
    assert [len(dataset) for dataset in datasets] == [30, 30, 20, 20]
    assert [len(list(dataset)) for dataset in datasets] == [30, 30, 20, 20]


def test_too_few_cells():
    with pytest.raises(ValueError, match="3 cells are too few for 4 ranks"):
        len(ranks(3, 2, 1, 4)[0])


def test_workers_of_ranks():
    seen = []
    for dataset in ranks(500, 32, 2, 3, strategy=Streaming()):
        loader = DataLoader(dataset, batch_size=None, num_workers=2)
        share = cases.batches(loader)
        assert len(share) == len(dataset)
        seen += [row for batch in share for row in batch]
    assert sorted(seen) == list(range(500))


def train(rank, world_size, port, queue):
    import torch.distributed as dist

    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=world_size)
    try:
        dataset = scDataset(np.arange(103), BlockShuffling(4), 5, 3)
        assert (dataset.rank, dataset.world_size) == (rank, world_size)
        epochs = []
        for _ in range(2):
            epoch = []
            for batch in dataset:
                # As in training: a rank with more steps than another would wait here forever.
                dist.all_reduce(torch.tensor([1.0]))
                epoch.append(batch.tolist())
            epochs.append(epoch)
        queue.put((rank, dataset._base_seed, epochs))
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_of_torch_distributed(world_size):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn = torch.multiprocessing.get_context("spawn")
    queue = spawn.Queue()
    arguments = [(rank, world_size, port, queue) for rank in range(world_size)]
    processes = [spawn.Process(target=train, args=each) for each in arguments]
    for process in processes:
        process.start()
    try:
        found = sorted(queue.get(timeout=90) for _ in processes)
    finally:
        for process in processes:
            process.join(timeout=10)
            process.kill()
    assert len({seed for _, seed, _ in found}) == 1
    for epoch in range(2):
        shares = [epochs[epoch] for _, _, epochs in found]
        assert len({len(share) for share in shares}) == 1
        assert sorted(r for share in shares for batch in share for r in batch) == list(range(103))
