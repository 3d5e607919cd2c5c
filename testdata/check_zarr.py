#!/usr/bin/env python3
"""Read every Zarr test store again with the newest anndata, and compare with its oracle.

    python check_zarr.py [zarr]
    python check_zarr.py --written FOLDER ORACLES

The second form compares the stores in FOLDER, which Cellfeed wrote, with the oracles of the same name;
matrices are CSR there, and kinds may have become nullable. Of each bad store it says what anndata makes of it, for information; only its being listed in
expected.json is checked. Ends with status 1 if anything differs. The comparison is check.py's.
"""
import json
import os
import sys
import warnings

import anndata
import zarr

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = sys.argv[1] if len(sys.argv) == 2 else os.path.join(HERE, "zarr")
import check  # noqa: E402

warnings.simplefilter("ignore")


def read(path):
    root = zarr.open_group(path, mode="r")
    if root.attrs.get("encoding-type") != "annbatch-preshuffled":
        return anndata.io.read_zarr(path)
    parts = sorted(root, key=lambda name: int(name.rsplit("_", 1)[1]))
    return anndata.concat([anndata.io.read_elem(root[part]) for part in parts], merge="same")


def check_types(name, path, oracle):
    """Encodings and value types by the metadata alone."""
    root = zarr.open_group(path, mode="r")
    root = root["dataset_0"] if "dataset_0" in root else root
    for key, want in oracle["matrices"].items():
        e = root[key]
        sparse = isinstance(e, zarr.Group)
        kind = e.attrs.get("encoding-type", e.attrs.get("h5sparse_format", "csr"))[:3] if sparse else "dense"
        dtype = (e["data"] if sparse else e).dtype
        value_type = "bool" if dtype.kind == "b" else "%s%d" % (dtype.kind, dtype.itemsize * 8)
        if (kind, value_type) != (want["encoding"], want["value_type"]):
            check.fault(name, "%s is %s %s" % (key, kind, value_type))


# What the extras of cellfeed-testkit are, as Python sees them.
EXTRAS = {"params": {"method": "umap", "n_neighbors": 15, "metric_kwds": {}, "use_rep": True},
          "colors": ["#1f77b4", "", "µ"], "flags": [True, False, False, True], "counts": [0, 1, 2 ** 64 - 1]}


def check_written(folder, oracles):
    n = 0
    for store in sorted(os.listdir(folder)):
        name = store[:-len(".zarr")]
        with open(os.path.join(oracles, name + ".oracle.json"), encoding="utf-8") as f:
            oracle = json.load(f)
        for matrix in oracle["matrices"].values():
            matrix["encoding"] = "csr"
        a = anndata.io.read_zarr(os.path.join(folder, store))
        check.check_anndata(store, a, oracle)
        for key in oracle["matrices"]:
            x = a.X if key == "X" else a.raw.X if key == "raw/X" else a.layers[key[7:]]
            if x.format != "csr" or str(x.indices.dtype) not in ("int32", "int64"):
                check.fault(store, key + " is no CSR matrix that scipy takes everywhere")
            # Another way to see the matrix whole: scipy's own arithmetic.
            if x.nnz and x.dtype == "float32" and abs(x.toarray().sum(0).sum() - x.sum()) > 1e-3 * abs(x.sum()):
                check.fault(store, key + " has other sums as an array")
        uns = a.uns
        got = {k: v.tolist() if hasattr(v, "tolist") else v
               for k, v in [("params", dict(uns["neighbors"]["params"]))] + [(k, uns[k]) for k in EXTRAS if k != "params"]}
        if got != EXTRAS:
            check.fault(store, "uns is %r" % got)
        if a.obsm["X_umap"].shape != (a.n_obs, 2) or a.obsp["distances"].shape != (a.n_obs, a.n_obs):
            check.fault(store, "obsm or obsp")
        n += 1
    print("%d written stores read by anndata %s; %d faults" % (n, anndata.__version__, len(check.faults)))
    return 1 if check.faults or not n else 0


def main():
    if sys.argv[1:2] == ["--written"]:
        return check_written(*sys.argv[2:])
    not_read, n = [], 0
    for sub in ("", "odd"):
        top = os.path.join(TOP, sub)
        for file in sorted(os.listdir(top)):
            if not file.endswith(".oracle.json"):
                continue
            n += 1
            with open(os.path.join(top, file), encoding="utf-8") as f:
                oracle = json.load(f)
            name = os.path.join(sub, file[:-len(".oracle.json")] + ".zarr")
            path = os.path.join(TOP, name)
            check_types(name, path, oracle)
            try:
                a = read(path)
            except Exception as e:
                not_read.append((name, "%s: %s" % (type(e).__name__, str(e).split("\n")[0][:90])))
                continue
            check.check_anndata(name, a, oracle)
    print("%d oracles agree or are named above; not read by anndata:" % n)
    for x in not_read:
        print("   %s (%s)" % x)
    with open(os.path.join(TOP, "bad", "expected.json"), encoding="utf-8") as f:
        expected = json.load(f)
    stores = set(os.listdir(os.path.join(TOP, "bad"))) - {"expected.json"}
    for store in stores ^ set(expected):
        check.fault("bad/" + store, "is not both a store and an entry of expected.json")
    lenient = []
    for store in sorted(stores):
        try:
            anndata.io.read_zarr(os.path.join(TOP, "bad", store))
            lenient.append(store)
        except BaseException:
            pass
    print("%d bad stores; anndata itself reads %d of them: %s" % (len(stores), len(lenient), ", ".join(lenient)))
    print("%d faults" % len(check.faults))
    return 1 if check.faults else 0


if __name__ == "__main__":
    sys.exit(main())
