"""Diversity and tuning, against what minibatches have and what the command says."""

import json
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

import cellfeed
from cellfeed import _native
from conftest import LISTEN, N_OBS, make

SIZES = {"batch_size": 16, "block_size": 4, "fetch_factor": 5}
QUIET = {"progress": False}


def entropy(codes):
    shares = np.unique(codes, return_counts=True)[1] / len(codes)
    return -(shares * np.log2(shares)).sum()


def test_entropy_is_that_of_the_minibatches(h5ad, adata):
    codes = adata.obs["plate"].cat.codes.to_numpy()
    for strategy in ("stratified", "block_shuffling", "streaming", "true_random"):
        loader = cellfeed.Loader(h5ad, **SIZES, strategy=strategy, seed=4)
        found = cellfeed.diversity(loader, "plate", **QUIET)
        full = [rows for rows in loader.plan_rows(0) if len(rows) == 16]
        assert found.n_minibatches == len(full) == 62 and found.n_partial == 1
        assert found.entropy == pytest.approx(np.mean([entropy(codes[rows]) for rows in full]))
        assert found.entropy_store == pytest.approx(entropy(codes))
        assert (found.n_cells, found.n_labels, found.n_missing) == (N_OBS, 5, 0)
        assert (found.n_runs, found.longest_run) == (5, np.bincount(codes).max())
        again = cellfeed.diversity(h5ad, "plate", **SIZES, strategy=strategy, seed=4, **QUIET)
        labelled = cellfeed.diversity(loader, adata.obs["plate"], **QUIET)
        assert found == again and {**found.to_dict(), "label": "labels"} == labelled.to_dict()
    # File order has one plate in nearly every minibatch; random nearly all five.
    assert found.entropy > 1.9 and found.deff_1 == pytest.approx(1, abs=0.3)


def test_design_effects_are_those_of_their_definition(h5ad, adata):
    loader = cellfeed.Loader(h5ad, batch_size=17, fetch_factor=5, strategy="streaming")
    found = cellfeed.diversity(loader, "is_control", window=1, **QUIET)
    x = adata.obs["is_control"].to_numpy().astype(float)
    means = x[: 59 * 17].reshape(59, 17).mean(1)
    want = ((means - x.mean()) ** 2).mean() / (x.mean() * (1 - x.mean()) / 17)
    assert found.n_minibatches == 59
    assert found.deff_1 == pytest.approx(want, rel=1e-9) and found.deff_w == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize("by", [None, "plate", ["plate", "cell_type"]])
def test_it_says_what_the_command_says(h5ad, by):
    options = ["--batch-size", "16", "--block-size", "4", "--fetch-factor", "5", "--strategy", "stratified"]
    for name in [by] if isinstance(by, str) else by or []:
        options += ["--by", name]
    command = [sys.executable, "-m", "cellfeed", "entropy", str(h5ad), "--label", "cell_type", "--json"]
    said = subprocess.run([*command, *options], capture_output=True, text=True, check=True)
    want = json.loads(said.stdout)
    found = cellfeed.diversity(h5ad, "cell_type", **SIZES, by=by, **QUIET)
    assert found.entropy == pytest.approx(want["measured"]["entropy_mean"], rel=1e-12)
    assert found.deff_w == pytest.approx(want["measured"]["deff_w"], rel=1e-12)
    assert found.expected.entropy == pytest.approx(want["theory"]["entropy"], rel=1e-12)
    assert found.expected.deff_w == pytest.approx(want["theory"]["deff_w"], rel=1e-12)
    assert found.n_missing == want["n_missing"] > 0
    text = repr(found)
    assert "DEFF_10" in text and f"{found.entropy:.3f}" in text and "cell_type" in text


def test_weighted_sampling_has_no_theory(h5ad):
    found = cellfeed.diversity(
        h5ad, "plate", **SIZES, strategy="weighted", weights="n_counts", minibatches=200, **QUIET
    )
    assert found.expected is None and "closed form" in found.note and found.n_minibatches >= 190
    assert "closed form" in repr(found)
    json.dumps(found.to_dict())


def test_a_collection_has_diversity_too(adata):
    plates = adata.obs["plate"]
    loader = cellfeed.CollectionLoader(np.zeros((N_OBS, 2)), **SIZES, by=plates)
    found = cellfeed.diversity(loader, plates, **QUIET)
    assert found.expected is not None and found.deff_w < 1.5
    with pytest.raises(TypeError, match="as an array"):
        cellfeed.diversity(loader, "plate", **QUIET)


@pytest.mark.parametrize(("done", "world_size"), [(0, 1), (7, 1), (61, 1), (40, 2)])
def test_an_epoch_that_goes_on_is_measured_from_there(h5ad, adata, done, world_size):
    one = cellfeed.Loader(h5ad, **SIZES)
    loader = cellfeed.Loader(h5ad, **SIZES, rank=0, world_size=world_size)
    store, plan = loader.store, loader._plan.resume(one._plan.state(3, done))
    codes = adata.obs["plate"].cat.codes.to_numpy()
    left = [rows for k in range(plan.n_fetches_of(3)) for rows in plan.fetch(3, k)]
    left = left[plan.first_minibatch(3) :]
    full = [rows for rows in left if len(rows) == 16]
    labels = _native.Labels.of_column(store._native, "plate")
    work = _native.diversity(plan, labels, window=1, epoch=3, minibatches=None)
    found = json.loads(work.finish())
    assert (found["n_minibatches"], found["n_partial"]) == (len(full), len(left) - len(full))
    assert found["entropy"] == pytest.approx(np.mean([entropy(codes[rows]) for rows in full]))
    # The next epoch is whole.
    work = _native.diversity(plan, labels, window=1, epoch=3, minibatches=len(left) + plan.n_minibatches)
    found = json.loads(work.finish())
    assert found["n_minibatches"] + found["n_partial"] == len(left) + plan.n_minibatches


def test_what_cannot_be_is_refused(h5ad):
    loader = cellfeed.Loader(h5ad, **SIZES)
    for source, label, options, error, why in (
        (h5ad, "nothing", {}, KeyError, "plate"),
        (h5ad, "score", {}, ValueError, "floating-point"),
        (h5ad, np.arange(5), {}, ValueError, "labels of 5 cells"),
        (h5ad, "plate", {"window": 0}, ValueError, "window"),
        (h5ad, "plate", {"minibatches": 1.5}, TypeError, "minibatches"),
        (h5ad, "plate", {"batch_size": 5000}, ValueError, "batch_size|minibatch"),
        (loader, "plate", {"seed": 3}, TypeError, "its own seed"),
        ("nowhere.h5ad", "plate", {}, FileNotFoundError, "nowhere"),
    ):
        with pytest.raises(error, match=why):
            cellfeed.diversity(source, label, **options, **QUIET)
    for label, options, error, why in (
        ("nothing", {}, KeyError, "plate"),
        (["plate"], {}, TypeError, "label"),
        ("plate", {"target_deff": 0}, ValueError, "design effect"),
        ("plate", {"target_deff": 2, "target_entropy": 0.9}, ValueError, "not both"),
        ("plate", {"target_entropy": 2}, ValueError, "entropy"),
        ("plate", {"time_limit": 0}, ValueError, "time limit"),
        ("plate", {"time_limit": float("nan")}, ValueError, "time_limit"),
        ("plate", {"page_cache": "hot"}, ValueError, "auto, warm, cold"),
        ("plate", {"layer": "nothing"}, KeyError, "nothing"),
        ("plate", {"memory": 1}, MemoryError, "raise it to"),
    ):
        with pytest.raises(error, match=why):
            cellfeed.tune(h5ad, label, **options, **QUIET)
    with pytest.raises(ValueError, match="2 stores"):
        cellfeed.tune(cellfeed.open([h5ad, h5ad]), "plate", **QUIET)


def test_tuning_finds_what_can_be_used(tmp_path):
    path = tmp_path / "atlas.h5ad"
    make(20_000, 50).write_h5ad(path)
    tuned = cellfeed.tune(path, "plate", time_limit=2, page_cache="warm", **QUIET)
    assert tuned.meets_target and tuned.cells_per_second > 0 and tuned.deff <= 1.5 * 1.3
    assert 1.5 < tuned.entropy < np.log2(5) and tuned.svg.startswith("<svg")
    loader = cellfeed.Loader(path, **tuned.loader_options())
    assert loader.strategy is tuned.strategy
    batches = list(loader)
    assert sum(len(b) for b in batches) == 20_000
    seen = cellfeed.diversity(loader, "plate", **QUIET)
    assert seen.entropy == pytest.approx(tuned.entropy, rel=0.05)
    report = tuned.to_dict()
    json.dumps(report)
    assert report["recommended"]["fetch_factor"] == tuned.fetch_factor
    assert tuned.candidates and "cellfeed stream" in tuned.command
    text = repr(tuned)
    assert "plate" in text and f"fetch_factor={tuned.fetch_factor}" in text and "cells/s" in text


def test_a_progress_bar_is_shown_where_tqdm_is(h5ad, capfd):
    pytest.importorskip("tqdm")
    cellfeed.diversity(h5ad, "plate", batch_size=1, minibatches=300_000)
    assert "minibatches" in capfd.readouterr().err


@pytest.mark.parametrize(
    "call", ["tune({path!r}, 'plate', time_limit=600)", "diversity({path!r}, 'plate', minibatches=1 << 40)"]
)
def test_ctrl_c_ends_it(h5ad, call):
    code = f"""
        {LISTEN}
        import cellfeed, os, time
        print("begun", flush=True)
        try:
            cellfeed.{call.format(path=str(h5ad))[:-1]}, progress=False)
        except KeyboardInterrupt:
            names = []
            for task in os.listdir("/proc/self/task"):
                try:
                    names.append(open(f"/proc/self/task/{{task}}/comm").read())
                except OSError:  # a thread of the decoders that has just ended
                    pass
            print("interrupted", any("cellfeed-work" in name for name in names), flush=True)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "begun\n"
    time.sleep(1)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=30)
    assert said == "interrupted False\n" and time.monotonic() - began < 5
