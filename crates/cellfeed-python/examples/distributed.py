"""Two processes that train one model, under torchrun.

    python distributed.py          starts itself under torchrun, on small data
    torchrun --nproc-per-node 2 distributed.py atlas.h5ad

Each process gets its share of every epoch, and as many steps as the other. `cellfeed.Loader` finds rank
and world size by itself.
"""

import pathlib
import subprocess
import sys
import tempfile

import torch
import torch.distributed as dist

import cellfeed


def train(store):
    dist.init_process_group("gloo")  # "nccl" with GPUs
    loader = cellfeed.Loader(
        store, batch_size=64, fetch_factor=8, obs="cell_type", output="torch", layout="dense"
    )
    torch.manual_seed(0)
    n_classes = len(loader.store.obs_categories("cell_type"))
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(loader.store.n_vars, n_classes))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for epoch in range(2):
        seen = torch.zeros(loader.store.n_obs, dtype=torch.int64)
        for batch in loader:
            loss = torch.nn.functional.cross_entropy(model(batch.X.log1p()), batch.obs["cell_type"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen[batch.rows] += 1
        mine = int(seen.sum())
        dist.all_reduce(seen)
        assert bool((seen == 1).all()), "every cell is seen once, by one of the processes"
        print(f"rank {dist.get_rank()}: epoch {epoch}, {len(loader)} steps, {mine} cells", flush=True)
    dist.destroy_process_group()


def main():
    if len(sys.argv) > 1:
        train(sys.argv[1])
        return
    with tempfile.TemporaryDirectory() as folder:
        import small

        store = small.write(pathlib.Path(folder, "small.h5ad"), n_obs=3000)
        run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        subprocess.run([*run, __file__, store], check=True)


if __name__ == "__main__":
    main()
