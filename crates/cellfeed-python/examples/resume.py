"""Training that is killed in the middle of an epoch, and goes on exactly where it was.

    python resume.py

Trains without a stop; then again, killed by the system in the middle of the second epoch; then goes on
from the last checkpoint. The model ends with the same weights, bit for bit.
"""

import os
import pathlib
import signal
import subprocess
import sys
import tempfile

import torch

import cellfeed

EPOCHS = 3


def train(store, checkpoint, kill_at=None):
    """Trains, with a checkpoint every ten steps; killed at a step if that is said."""
    loader = cellfeed.Loader(
        store, batch_size=64, fetch_factor=8, obs="cell_type", output="torch", layout="dense", seed=1
    )
    torch.manual_seed(0)
    model = torch.nn.Linear(loader.store.n_vars, len(loader.store.obs_categories("cell_type")))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    step = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        loader.load_state_dict(saved["loader"])
        step = saved["step"]
        print(f"goes on at step {step}, in epoch {loader.epoch}")
    while loader.epoch < EPOCHS:
        for batch in loader:
            loss = torch.nn.functional.cross_entropy(model(batch.X.log1p()), batch.obs["cell_type"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            if step % 10 == 0:
                state = {
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "loader": loader.state_dict(),
                    "step": step,
                }
                # A checkpoint is there as a whole, or not at all.
                torch.save(state, checkpoint.with_suffix(".new"))
                checkpoint.with_suffix(".new").replace(checkpoint)
            if step == kill_at:
                print(f"killed at step {step}", flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
    print(f"done after {step} steps, loss {loss.item():.4f}")
    return model


def main():
    if len(sys.argv) > 1:
        train(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), kill_at=int(sys.argv[3]))
        return
    with tempfile.TemporaryDirectory() as folder:
        import small

        folder = pathlib.Path(folder)
        store = small.write(folder / "small.h5ad", n_obs=4000)
        whole = train(store, folder / "whole.pt")
        killed = subprocess.run([sys.executable, __file__, store, folder / "checkpoint.pt", "103"])
        assert killed.returncode == -signal.SIGKILL
        resumed = train(store, folder / "checkpoint.pt")
        assert torch.equal(whole.weight, resumed.weight), "the weights differ"
        print("the weights are the same, bit for bit")


if __name__ == "__main__":
    main()
