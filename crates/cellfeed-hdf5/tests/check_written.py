"""What Python anndata reads of a file that the writer's test wrote, beside what it was given.

    python3 check_written.py FILE.h5ad FACTS.json

Any anndata from 0.8 on. Exits with the first difference.
"""

import json
import sys

import anndata
import numpy as np
import pandas as pd


def fail(*what):
    sys.exit(" ".join(map(str, what)))


def number(value):
    return float(value) if isinstance(value, (int, float)) else {
        "NaN": np.nan, "inf": np.inf, "-inf": -np.inf
    }[value]


def matrix(name, want, got, n_obs):
    got = got.tocsr()
    if got.shape != (n_obs, want["n_vars"]):
        fail(name, "shape", got.shape)
    # scipy has no half precision.
    want["value_type"] = want["value_type"].replace("f16", "f32")
    kind = {"f": "float", "u": "uint", "i": "int"}[want["value_type"][0]] + want["value_type"][1:]
    if got.dtype != np.dtype(kind):
        fail(name, "type", got.dtype)
    if list(got.indptr) != want["indptr"] or list(got.indices) != want["indices"]:
        fail(name, "indptr or indices")
    data = np.array([number(v) for v in want["data"]], dtype=np.float64)
    if not np.array_equal(got.data.astype(np.float64), data, equal_nan=True):
        fail(name, "values")


def frame(name, want, got, names):
    if [c for c, _ in want] != list(got.columns):
        fail(name, "columns", list(got.columns))
    if names != list(got.index):
        fail(name, "index", list(got.index)[:5])
    for column, values in want:
        series = got[column]
        if len(values) != len(series):
            fail(name, column, len(series), "values")
        for row, (a, b) in enumerate(zip(values, series)):
            if a is None:
                same = pd.isna(b)
            elif isinstance(b, (bool, np.bool_)):
                same = a == bool(b)
            elif isinstance(b, (float, np.floating)):
                a = number(a)
                same = a == b and np.signbit(a) == np.signbit(b) or (np.isnan(a) and np.isnan(b))
            elif isinstance(b, (int, np.integer)):
                same = int(a) == int(b)
            else:
                same = a == b
            if not same:
                fail(f"{name}/{column}, row {row}: {a!r} and {b!r}")


def main(path, facts):
    facts = json.load(open(facts, encoding="utf-8"))
    data = anndata.read_h5ad(path)
    for key, want in facts["matrices"].items():
        if key == "X":
            got = data.X
        elif key == "raw/X":
            got = data.raw.X
        else:
            got = data.layers[key.removeprefix("layers/")]
        matrix(key, want, got, facts["n_obs"])
    frame("obs", facts["obs"], data.obs, facts["obs_names"])
    frame("var", facts["var"], data.var, facts["var_names"])
    if data.raw is not None:
        frame("raw/var", facts["raw_var"], data.raw.var, facts["raw_var_names"])
    if not data.obs["stage"].cat.ordered or data.obs["z type"].cat.ordered:
        fail("ordered")
    uns = data.uns
    if uns["neighbors"]["params"]["n_neighbors"] != 15 or uns["neighbors"]["params"]["method"] != "umap":
        fail("uns", uns)
    if list(uns["colors"]) != ["#1f77b4", "", "\u00b5"] or list(uns["flags"]) != [True, False, False, True]:
        fail("uns", uns)
    if uns["table"].shape != (2, 3) or uns["counts"][2] != 2**64 - 1 or uns["none"].shape != (0,):
        fail("uns", uns)
    if data.obsm["X_umap"].shape != (facts["n_obs"], 2) or data.obsm["X_umap"].dtype != np.float32:
        fail("obsm")
    if data.obsp["distances"].shape != (facts["n_obs"], facts["n_obs"]):
        fail("obsp")
    # And lazily, as large files are opened.
    if facts["n_obs"] and len(facts["matrices"]["X"]["indices"]):
        backed = anndata.read_h5ad(path, backed="r")
        if backed.X[: facts["n_obs"]].shape != data.X.shape:
            fail("backed")


if __name__ == "__main__":
    main(*sys.argv[1:])
