#!/usr/bin/env python3
"""Check the stores under h5ad/ against their oracles, the bad ones against expected.json.

    python check.py [h5ad]      with the newest anndata, h5py and hdf5plugin

Each good store is read twice: its matrices with plain h5py (nothing of make_h5ad.py is used), and
the whole with anndata. Where anndata cannot read a store, this says so, and h5py alone has judged.
Of each bad file it says what h5py and anndata make of it, for information; only its being listed
in expected.json is checked. Ends with status 1 if anything differs.
"""
import hashlib
import json
import math
import os
import sys
import warnings

import anndata
import h5py
import hdf5plugin  # noqa: F401  (registers its filters)
import numpy as np
import pandas as pd
import scipy.sparse as sp

warnings.simplefilter("ignore")
TOP = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "h5ad")
faults = []


def fault(name, what):
    faults.append(name)
    print("FAULT", name, what)


def same(a, b):
    if b is None:
        return a is None or a is pd.NA or (isinstance(a, float) and math.isnan(a))
    if b == "nan" and not isinstance(a, str):
        return a is not pd.NA and a is not None and math.isnan(a)
    if b in ("inf", "-inf") and not isinstance(a, str):
        return a == float(b)
    if isinstance(b, bool):
        return bool(a) is b
    if isinstance(b, int) and isinstance(a, (int, np.integer)):
        return int(a) == b
    if isinstance(b, (int, float)):
        return not isinstance(a, str) and float(a) == b
    return str(a) == b


def all_same(a, b):
    return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b))


def rows_of(value, encoding):
    """{(row, column): value}, in row order, without numpy tricks shared with the writer."""
    if encoding == "dense":
        return {(i, j): v for i, row in enumerate(value.tolist()) for j, v in enumerate(row) if v != 0}
    indptr, indices, data = value
    out = {}
    for k in range(len(indptr) - 1):
        for p in range(int(indptr[k]), int(indptr[k + 1])):
            at = (k, int(indices[p])) if encoding == "csr" else (int(indices[p]), k)
            assert at not in out, "repeated index"
            out[at] = data[p].item()
    return dict(sorted(out.items()))


def check_matrix(name, key, encoding, value, dtype, want, n):
    got = rows_of(value, encoding)
    indptr = [0] * (n + 1)
    for i, _ in got:
        indptr[i + 1] += 1
    indptr = np.cumsum(indptr).tolist()
    vt = "bool" if dtype.kind == "b" else "%s%d" % (dtype.kind, dtype.itemsize * 8)
    if encoding != want["encoding"] or vt != want["value_type"]:
        fault(name, "%s is %s %s" % (key, encoding, vt))
    if indptr != want["indptr"] or [j for _, j in got] != want["indices"]:
        fault(name, key + ": indptr or indices differ")
    if not all_same([int(v) if isinstance(v, bool) else v for v in got.values()], want["data"]):
        fault(name, key + ": data differ")


def element(f, key):
    if key == "raw/X" and "raw/X" not in f:
        key = "raw.X"
    return f[key]


def check_h5py(name, f, o):
    for key, want in o["matrices"].items():
        e = f if key == "X" and "barcodes" in f else element(f, key)
        if isinstance(e, h5py.Dataset):
            check_matrix(name, key, "dense", e[()], e.dtype, want, o["n_obs"])
        else:
            kind = e.attrs.get("encoding-type", e.attrs.get("h5sparse_format", "csr"))
            kind = kind.decode() if isinstance(kind, bytes) else kind
            arrays = [e[k][()] for k in ("indptr", "indices", "data")]
            check_matrix(name, key, kind[:3], arrays, e["data"].dtype, want, o["n_obs"])
    if "obs" in f and isinstance(f["obs"], h5py.Group):
        order = [c.decode() if isinstance(c, bytes) else str(c) for c in f["obs"].attrs["column-order"]]
        if order != list(o["obs"]):
            fault(name, "order of the obs columns")
    if "barcodes" in f:
        if [b.decode() for b in f["barcodes"]] != o["obs_names"]:
            fault(name, "barcodes")
    elif "obs" in f:
        e = f["obs"]
        if isinstance(e, h5py.Dataset):
            names = [r[0] for r in e]
        else:
            index = e.attrs["_index"]
            names = e[index.decode() if isinstance(index, bytes) else index]
            names = names["values"] if isinstance(names, h5py.Group) else names
            names = names[()].tolist()
        if [x.decode() if isinstance(x, bytes) else str(x) for x in names] != o["obs_names"]:
            fault(name, "obs names by h5py")


def check_frame(name, axis, df, want):
    for c, w in want.items():
        if w["kind"] == "unreadable":
            continue
        s = df[c]
        if w["kind"] == "categorical":
            if str(s.dtype) != "category":
                fault(name, "%s %s is no categorical but %s" % (axis, c, s.dtype))
                continue
            ok = (s.cat.codes.tolist() == w["codes"] and all_same(s.cat.categories.tolist(), w["categories"])
                  and bool(s.cat.ordered) == w["ordered"])
            ok = ok and all_same([None if k < 0 else s.cat.categories[k] for k in s.cat.codes], w["values"])
        else:
            ok = all_same(list(s), w["values"])
            kinds = {"int": "iu", "float": "f", "bool": "b", "nullable-int": "iu", "nullable-bool": "b"}
            if w["kind"] in kinds:
                ok = ok and s.dtype.kind in kinds[w["kind"]]
                ok = ok and isinstance(s.dtype, np.dtype) != w["kind"].startswith("nullable")
        if not ok:
            fault(name, "%s column %r differs" % (axis, c))


def check_anndata(name, a, o):
    if a.shape != (o["n_obs"], o["n_vars"]):
        fault(name, "shape %s" % (a.shape,))
    if list(a.obs_names) != o["obs_names"] or list(a.var_names) != o["var_names"]:
        fault(name, "obs or var names by anndata")
    if ("raw_var_names" in o) != (a.raw is not None) or (a.raw is not None and list(a.raw.var_names) != o["raw_var_names"]):
        fault(name, "raw")
    check_frame(name, "obs", a.obs, o["obs"])
    check_frame(name, "var", a.var, o["var"])
    for key, want in o["matrices"].items():
        v = a.X if key == "X" else a.raw.X if key == "raw/X" else a.layers[key[7:]]
        csr = sp.issparse(v)
        got = rows_of((v.indptr, v.indices, v.data) if csr else np.asarray(v), v.format if csr else "dense")
        if [j for _, j in got] != want["indices"] or not all_same(
                [int(x) if isinstance(x, bool) else x for x in got.values()], want["data"]):
            fault(name, key + " differs by anndata")


def main():
    only_h5py, n = [], 0
    for sub in ("", "odd"):
        top = os.path.join(TOP, sub)
        for file in sorted(os.listdir(top)):
            if not file.endswith(".oracle.json"):
                continue
            n += 1
            with open(os.path.join(top, file), encoding="utf-8") as f:
                o = json.load(f)
            stem = file[:-len(".oracle.json")]
            path, at = None, "/"
            for ext in (".h5ad", ".h5", ".h5mu"):
                if os.path.exists(os.path.join(top, stem + ext)):
                    path = os.path.join(top, stem + ext)
            if path is None:  # FILE.MEMBER.oracle.json
                stem, member = stem.rsplit(".", 1)
                h5mu = os.path.join(top, stem + ".h5mu")
                path, at = (h5mu, "mod/" + member) if os.path.exists(h5mu) else (os.path.join(top, stem + ".h5"), member)
            name = os.path.join(sub, file)
            with h5py.File(path, "r") as f:
                if path.endswith(".h5") and at == "/":
                    at = "matrix" if "matrix" in f else list(f)[0]
                check_h5py(name, f[at], o)
                if path.endswith(".h5"):
                    only_h5py.append((name, "not AnnData"))
                    continue
                try:
                    a = anndata.io.read_elem(f[at]) if at != "/" else anndata.read_h5ad(path)
                except Exception as e:
                    only_h5py.append((name, "%s: %s" % (type(e).__name__, str(e).split("\n")[0][:90])))
                    continue
            check_anndata(name, a, o)
    print("%d oracles agree or are named above; %d judged by h5py alone:" % (n, len(only_h5py)))
    for x in only_h5py:
        print("   %s (%s)" % x)

    with open(os.path.join(TOP, "bad", "expected.json"), encoding="utf-8") as f:
        expected = json.load(f)
    files = set(os.listdir(os.path.join(TOP, "bad"))) - {"expected.json"}
    for file in files ^ set(expected):
        fault("bad/" + file, "is not both a file and an entry of expected.json")
    lenient = []
    for file in sorted(files):
        if expected[file]["when"] not in ("open", "read", "column"):
            fault("bad/" + file, "when")
        try:
            anndata.read_h5ad(os.path.join(TOP, "bad", file))
            lenient.append(file)
        except BaseException:
            pass
    print("%d bad files; anndata itself reads %d of them: %s" % (len(files), len(lenient), ", ".join(lenient)))
    sums = os.path.join(TOP, "SHA256SUMS")
    if os.path.exists(sums):
        listed = dict(reversed(line.split()) for line in open(sums))
        for root, _, names in os.walk(TOP):
            for x in names:
                p = os.path.relpath(os.path.join(root, x), TOP)
                if p != "SHA256SUMS" and hashlib.sha256(open(os.path.join(TOP, p), "rb").read()).hexdigest() != listed.pop(p, None):
                    fault(p, "checksum")
        for p in listed:
            fault(p, "is in SHA256SUMS alone")
    print("%d faults" % len(faults))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
