"""The data module of Lightning."""

import warnings

import numpy as np
import pytest
import torch

from conftest import N_OBS, N_VARS

lightning = pytest.importorskip("lightning", reason="Lightning is not installed")
from cellfeed.lightning import CellDataModule  # noqa: E402

SIZES = {"batch_size": 16, "block_size": 4, "fetch_factor": 5}
TRAINER = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}

pytestmark = pytest.mark.filterwarnings("ignore")


class Model(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(N_VARS, 5)
        self.rows, self.seen = [], []

    def training_step(self, batch, number):
        self.rows.append(batch.rows.tolist())
        loss = torch.nn.functional.cross_entropy(self.linear(batch.X), batch.obs["plate"])
        self.log("loss", loss, batch_size=len(batch))
        return loss

    def validation_step(self, batch, number):
        self.seen.append(batch.rows.tolist())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())


def data(h5ad):
    return CellDataModule(
        h5ad,
        **SIZES,
        obs=["plate"],
        layout="dense",
        train={"subset": "plate != plate4"},
        val={"subset": "plate == plate4", "strategy": "streaming"},
    )


def test_a_trainer_trains_and_goes_on(h5ad, adata, tmp_path):
    model, module = Model(), data(h5ad)
    trainer = lightning.Trainer(max_epochs=2, default_root_dir=tmp_path, enable_checkpointing=False, **TRAINER)
    trainer.fit(model, datamodule=module)
    loader = module.loader("train")
    want = [rows.tolist() for epoch in range(2) for rows in loader.plan_rows(epoch)]
    assert model.rows == want
    held = np.flatnonzero(adata.obs["plate"] == "plate4")
    assert sorted(sum(model.seen, [])) == sorted([*held, *held]) and len(held) + loader.n_cells == N_OBS

    # Gone on from a checkpoint in the middle of the second epoch.
    steps = len(loader) + 7
    kept = lightning.pytorch.callbacks.ModelCheckpoint(tmp_path, every_n_train_steps=steps, save_top_k=-1)
    trainer = lightning.Trainer(max_epochs=2, default_root_dir=tmp_path, callbacks=[kept], **TRAINER)
    trainer.fit(Model(), datamodule=data(h5ad))
    second = Model()
    trainer = lightning.Trainer(max_epochs=2, default_root_dir=tmp_path, enable_checkpointing=False, **TRAINER)
    trainer.fit(second, datamodule=data(h5ad), ckpt_path=kept.best_model_path, weights_only=False)
    assert second.rows == want[steps:]


def test_what_cannot_be_is_refused_at_once(h5ad):
    with pytest.raises(ValueError, match="train={}"):
        CellDataModule(h5ad)
    with pytest.raises(KeyError, match="nothing"):
        CellDataModule(h5ad, train={"obs": "nothing"})
    with pytest.raises(ValueError, match="no options were given for test"):
        CellDataModule(h5ad, train={}).test_dataloader()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CellDataModule(h5ad, train={})
