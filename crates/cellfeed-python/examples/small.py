"""Small data for the examples: cells of several types on several plates, in a file as anndata writes it."""

import pathlib

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp


def write(path, n_obs=6000, n_vars=400, n_types=5, n_plates=4, seed=0):
    """Writes an .h5ad whose cells are ordered by plate, as real ones are."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, n_types, n_obs)
    plate = np.sort(rng.integers(0, n_plates, n_obs))
    # Each type has genes of its own, each plate a depth of its own.
    profile = rng.gamma(0.3, size=(n_types, n_vars)) * (1 + 3 * (rng.random((n_types, n_vars)) < 0.1))
    depth = 1.5 * (0.7 + 0.2 * plate)[:, None]
    counts = sp.csr_matrix(rng.poisson(profile[kind] * depth).astype(np.float32))
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical([f"type {k}" for k in kind]),
            "plate": pd.Categorical([f"plate{p}" for p in plate]),
        },
        index=[f"cell{i}" for i in range(n_obs)],
    )
    var = pd.DataFrame(index=[f"gene{i}" for i in range(n_vars)])
    ad.AnnData(counts, obs=obs, var=var).write_h5ad(path)
    return pathlib.Path(path)
