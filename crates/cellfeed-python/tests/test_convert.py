"""Conversion, and the command."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import anndata as ad
import numpy as np
import pytest

import cellfeed
from conftest import LISTEN, N_OBS, make


def test_a_selection_is_written_and_read_by_anndata(h5ad, adata, tmp_path):
    genes = ["gene7", "gene3", "no such gene"]
    path = tmp_path / "small.h5ad"
    done = cellfeed.convert(h5ad, path, genes=genes, obs=["plate"], layers=[], raw=False, progress=False)
    assert (done.format, done.n_obs, done.missing_genes) == ("h5ad", N_OBS, ("no such gene",))
    assert (done.n_vars, done.n_vars_of_each) == (2, (120,))
    assert done.bytes > 1000 and "small.h5ad" in repr(done) and "2 of 120 genes" in repr(done)
    back = ad.read_h5ad(path)
    assert list(back.var_names) == ["gene3", "gene7"] and list(back.obs) == ["plate"]
    assert np.array_equal(back.X.toarray(), adata[:, ["gene3", "gene7"]].X.toarray())
    assert back.raw is None
    with pytest.raises(ValueError, match="exists"):
        cellfeed.convert(h5ad, path, progress=False)
    with pytest.raises(FileNotFoundError, match="no such folder; make it first"):
        cellfeed.convert(h5ad, tmp_path / "nowhere" / "out.csr", progress=False)
    cellfeed.convert(cellfeed.open(h5ad), path, shuffle=True, seed=3, overwrite=True, progress=True)
    mixed = ad.read_h5ad(path)
    assert list(mixed.obs_names) != list(adata.obs_names)
    assert sorted(mixed.obs_names) == sorted(adata.obs_names)


def test_what_cannot_be_converted_leaves_nothing(h5ad, tmp_path):
    for options, error, why in (
        ({"codec": "nonsense"}, ValueError, "nonsense"),
        ({"format": "nonsense"}, ValueError, "nonsense"),
        ({"obs": ["nothing"]}, KeyError, "nothing"),
        ({"layers": ["nothing"]}, KeyError, "nothing"),
        ({"chunk_rows": 0}, ValueError, "chunk_rows"),
        ({"memory": "-1"}, ValueError, "memory"),
    ):
        with pytest.raises(error, match=why):
            cellfeed.convert(h5ad, tmp_path / "out.h5ad", progress=False, **options)
    with pytest.raises(ValueError, match="ending|format"):
        cellfeed.convert(h5ad, tmp_path / "out.xyz", progress=False)
    with pytest.raises(NotImplementedError, match="web server"):
        cellfeed.convert(h5ad, "http://127.0.0.1:9/out.zarr", staging=tmp_path, progress=False)
    with pytest.raises(FileNotFoundError):
        cellfeed.convert(tmp_path / "nowhere.h5ad", tmp_path / "out.h5ad")
    assert os.listdir(tmp_path) == []


def test_ctrl_c_leaves_no_half_store(tmp_path):
    source = tmp_path / "source.h5ad"
    make(40_000, 400).write_h5ad(source)
    out = tmp_path / "out"
    out.mkdir()
    # Small memory makes small steps, and the codec takes its time.
    code = f"""
        {LISTEN}
        import cellfeed, threading, os
        threads = len(os.listdir("/proc/self/task"))
        try:
            print("begun", flush=True)
            cellfeed.convert({str(source)!r}, {str(out / "big.h5ad")!r}, codec="gzip:9", memory="4MiB",
                             progress=False)
            print("complete", flush=True)
        except KeyboardInterrupt:
            print("interrupted", os.listdir({str(out)!r}), flush=True)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "begun\n"
    until = time.monotonic() + 30
    while not os.listdir(out) and time.monotonic() < until:
        time.sleep(0.005)
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert said == "interrupted []\n"


def test_the_command_is_there(h5ad):
    command = [sys.executable, "-m", "cellfeed"]
    shown = subprocess.run([*command, "inspect", str(h5ad)], capture_output=True, text=True, check=True)
    assert "1,003 cells" in shown.stdout
    bad = subprocess.run([*command, "inspect", "nowhere.h5ad"], capture_output=True, text=True)
    assert bad.returncode == 2 and "nowhere.h5ad" in bad.stderr and "Traceback" not in bad.stderr
    assert subprocess.run([*command, "--nonsense"], capture_output=True).returncode == 2
    assert subprocess.run([*command, "--help"], capture_output=True).returncode == 0
