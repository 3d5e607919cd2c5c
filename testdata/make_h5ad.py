#!/usr/bin/env python3
"""Write small AnnData HDF5 stores, each with an oracle, for tests that need no Python.

    python make_h5ad.py --set typical  --out h5ad    in an environment per anndata version
    python make_h5ad.py --set nullable --out h5ad    anndata 0.12 and mudata
    python make_h5ad.py --set variants --out h5ad    the newest anndata, h5py and hdf5plugin

`make.sh` makes the environments and runs all of these. Everything is synthetic and seeded.
The first set must run on Python 3.7.
"""
import argparse
import json
import os
import warnings

import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp

warnings.simplefilter("ignore")

OUT = "h5ad"
VLEN = h5py.special_dtype(vlen=str)

if h5py.version.version_tuple[0] < 3:  # else HDF5 writes the time of day into the files
    from h5py._hl import dataset as _dataset

    def _without_times(*args, _make=_dataset.make_new_dset, **kw):
        if kw.get("track_times") is None:
            kw["track_times"] = False
        return _make(*args, **kw)

    _dataset.make_new_dset = _without_times


# ---------------------------------------------------------------------------------------------
# values -> JSON

def number(x):
    """A JSON number; what JSON cannot say becomes a string."""
    if isinstance(x, (bool, np.bool_)):
        return bool(x)
    if isinstance(x, (int, np.integer)):
        return int(x)
    x = float(x)
    if x != x:
        return "nan"
    if x in (float("inf"), float("-inf")):
        return "inf" if x > 0 else "-inf"
    return x


def numbers(xs):
    xs = np.asarray(xs)
    if xs.dtype == bool:
        xs = xs.astype("u1")
    return [number(x) for x in xs]


def scalar(x):
    if isinstance(x, bytes):
        x = x.decode()
    return str(x) if isinstance(x, str) else number(x)


def value_type(dtype):
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return "bool"
    return "{}{}".format(dtype.kind, dtype.itemsize * 8)


def native(a):
    a = np.asarray(a)
    return a.astype(a.dtype.newbyteorder("="))


def canonical_csr(encoding, shape, indptr, indices, data):
    """Canonical CSR of the rows, keeping explicit zeros."""
    n, m = shape
    indptr, indices, data = native(indptr), native(indices), native(data)
    major = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr.astype("i8")))
    minor = indices.astype("i8")
    rows, cols = (major, minor) if encoding == "csr" else (minor, major)
    order = np.lexsort((cols, rows))
    rows, cols, data = rows[order], cols[order], data[order]
    out = np.zeros(n + 1, "i8")
    np.cumsum(np.bincount(rows, minlength=n), out=out[1:])
    return out, cols, data


def dense_csr(a):
    a = native(a)
    rows, cols = np.nonzero(a)
    out = np.zeros(a.shape[0] + 1, "i8")
    np.cumsum(np.bincount(rows, minlength=a.shape[0]), out=out[1:])
    return out, cols, a[rows, cols]


def matrix_json(encoding, vt, csr):
    indptr, indices, data = csr
    return {"encoding": encoding, "value_type": vt, "indptr": numbers(indptr),
            "indices": numbers(indices), "data": numbers(data)}


def matrix_oracle(value, vt):
    if sp.issparse(value):
        enc = value.format
        csr = canonical_csr(enc, value.shape, value.indptr, value.indices, value.data)
    else:
        enc, csr = "dense", dense_csr(value)
    return matrix_json(enc, vt, csr)


def column_oracle(s):
    """The oracle of a pandas column as anndata read it."""
    if str(s.dtype) == "category":
        cats = [scalar(c) for c in s.cat.categories]
        codes = [int(c) for c in s.cat.codes]
        return {"kind": "categorical", "values": [None if c < 0 else cats[c] for c in codes],
                "codes": codes, "categories": cats, "ordered": bool(s.cat.ordered)}
    name = str(s.dtype)
    if name == "boolean" or (name[:1] in "IU" and name.lstrip("U")[:3] == "Int"):
        kind = "nullable-bool" if name == "boolean" else "nullable-int"
        return {"kind": kind, "values": [None if pd.isna(x) else number(x) for x in s]}
    if getattr(s.dtype, "kind", "O") in "biuf" and isinstance(s.dtype, np.dtype):
        kind = {"b": "bool", "i": "int", "u": "int", "f": "float"}[s.dtype.kind]
        return {"kind": kind, "values": [number(x) for x in s.values]}
    return {"kind": "string", "values": [None if pd.isna(x) else str(x) for x in s]}


def dump(path, oracle):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(oracle, f, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        f.write("\n")


def out_path(*names):
    path = os.path.join(OUT, *names)
    if not os.path.isdir(os.path.dirname(path)):
        os.makedirs(os.path.dirname(path))
    return path


# ---------------------------------------------------------------------------------------------
# stores that anndata writes; the oracle is what the same anndata reads back

def stored_dtype(f, *names):
    for name in names:
        if name in f:
            e = f[name]
            return value_type((e if hasattr(e, "dtype") else e["data"]).dtype)
    raise KeyError(names)


def anndata_oracle(path, a, writer, at=""):
    with h5py.File(path, "r") as f:
        return oracle_of(f[at] if at else f, a, writer)


def oracle_of(f, a, writer):
    """The oracle of an AnnData that was read from `f`, a group of h5py or of zarr."""
    matrices = {}
    if a.X is not None:
        matrices["X"] = matrix_oracle(a.X, stored_dtype(f, "X"))
    for k in a.layers.keys():
        if k is not None:
            matrices["layers/" + k] = matrix_oracle(a.layers[k], stored_dtype(f, "layers/" + k))
    if a.raw is not None:
        matrices["raw/X"] = matrix_oracle(a.raw.X, stored_dtype(f, "raw/X", "raw.X"))
        matrices["raw/X"]["n_vars"] = int(a.raw.shape[1])
    o = {"n_obs": int(a.shape[0]), "n_vars": int(a.shape[1]), "matrices": matrices,
         "obs_names": [str(x) for x in a.obs_names], "var_names": [str(x) for x in a.var_names],
         "obs": {c: column_oracle(a.obs[c]) for c in a.obs.columns},
         "var": {c: column_oracle(a.var[c]) for c in a.var.columns}}
    if a.raw is not None:
        o["raw_var_names"] = [str(x) for x in a.raw.var_names]
    o["writer"] = writer
    return o


def write_anndata(name, a, **kw):
    import anndata
    path = out_path(name + ".h5ad")
    a.write(path, **kw) if not hasattr(a, "write_h5ad") else a.write_h5ad(path, **kw)
    back = (getattr(anndata, "read_h5ad", None) or anndata.io.read_h5ad)(path)
    dump(out_path(name + ".oracle.json"),
         anndata_oracle(path, back, "anndata " + anndata.__version__))


def counts(rng, n, m, dtype="f4", density=0.2):
    """Count-like CSR: mostly ones, some large values, an empty row inside and an empty last row."""
    dense = np.where(rng.rand(n, m) < density, rng.geometric(0.6, (n, m)), 0).astype("f8")
    dense[n // 3] = 0
    dense[-1] = 0
    if n > 8 and m > 8:
        d = np.dtype(dtype)
        special = [100.0, 117.0, 3.0]
        if d.itemsize > 1:
            special += [255.0, 256.0, 2047.0]
        if d.itemsize > 2:
            special += [65536.0, 595310.0]
        if d.kind == "i":
            special += [-1.0, -7.0]
        if d.kind == "f":
            special += [0.25, 1.75, -2.5]
        if d.kind == "f" and d.itemsize == 8:
            special += [0.1, 1e-300]
        if d.kind in "iu" and d.itemsize == 8:
            special += [2.0 ** 40 + 1]
        for j, v in enumerate(special):
            dense[(2 + 3 * j) % (n // 3), (5 * j + 1) % m] = v
        dense[0, 0] = dense[1, m - 1] = 1
    return sp.csr_matrix(dense.astype(dtype))


STAGES = ["E8", "E10", "adult"]


def typical(version):
    """One ordinary store: CSR float32, layers, raw, columns of every kind the version can write."""
    import anndata
    v = tuple(int(x) for x in version.split(".")[:2])
    rng = np.random.RandomState(1000 + v[1])
    n, m, m_raw = 43, 25, 29
    x = counts(rng, n, m_raw, density=0.18)
    obs = pd.DataFrame(index=["cell-%03d" % i for i in range(n)])
    kinds = np.array(["T cell", "B cell", "µglia", "NK"], dtype=object)
    pick = rng.randint(0, 4, n)
    obs["cell type"] = pd.Categorical.from_codes(np.where(rng.rand(n) < 0.15, -1, pick), kinds)
    obs["stage"] = pd.Categorical.from_codes(np.where(np.arange(n) == 4, -1, rng.randint(0, 3, n)),
                                             STAGES, ordered=True)
    if v < (0, 8):
        obs["№ one"] = pd.Categorical(["only"] * n)
    obs["barcode"] = ["".join("ACGT"[j] for j in rng.randint(0, 4, 12)) + "-é%d" % i for i in range(n)]
    obs["n_counts"] = np.asarray(x[:, :m].sum(1)).ravel().astype("i8")
    score = rng.normal(size=n).round(6)
    score[[3, 17, n - 1]] = np.nan
    score[5], score[6] = np.inf, -np.inf
    obs["score"] = score
    obs["is_control"] = rng.rand(n) < 0.3
    if v >= (0, 8):
        obs["age"] = pd.array([None if i % 7 == 2 else int(i * 3) for i in range(n)], dtype="Int64")
        obs["keep"] = pd.array([None if i % 9 == 4 else bool(i % 2) for i in range(n)], dtype="boolean")
    if v >= (0, 13):
        obs["note"] = pd.array([None if i % 6 == 1 else "note %d ☃" % i for i in range(n)], dtype="string")
    obs.index.name = "cell_id"
    var = pd.DataFrame(index=["ENSG%08d" % (11 * i) for i in range(m_raw)])
    var["gene symbol"] = ["Gene-%d" % i for i in range(m_raw)]
    var["chrom"] = pd.Categorical.from_codes(np.where(np.arange(m_raw) == 3, -1, rng.randint(0, 3, m_raw)),
                                             ["1", "2", "X"])
    var.index.name = "gene_id"
    kw = {"dtype": "float32"} if v < (0, 8) else {}
    if v in [(0, 10), (0, 11)]:  # written as 0.8 and 0.12 write: less of everything, with gzip
        obs = obs[["cell type", "barcode", "score", "keep"]]
        a = anndata.AnnData(sp.csr_matrix(x[:, :m]), obs=obs, var=var.iloc[:m].drop(columns="chrom"))
        a.layers["counts"] = sp.csr_matrix(x[:, :m]).astype("i8")
        return write_anndata("anndata-" + version, a, **({"compression": "gzip"} if v[1] == 10 else {}))
    full = anndata.AnnData(x, obs=obs.copy(), var=var[["gene symbol"]].copy(), **kw)
    part = sp.csr_matrix(x[:, :m])
    normal = part.astype("f8")
    normal.data = np.log1p(normal.data)
    a = anndata.AnnData(normal.astype("f4"), obs=obs, var=var.iloc[:m].copy(), **kw)
    a.raw = full
    a.layers["counts"] = part.astype("i4" if v[1] % 2 else "i8")
    if v not in [(0, 8)]:
        a.layers["dense"] = part.toarray() / np.float32(4)
    a.uns["note"] = "synthetic"
    comp = {6: "gzip", 7: "lzf"}.get(v[1])
    args = {"compression": comp} if comp else {}
    if v >= (0, 13):  # else "note" becomes a categorical
        args["convert_strings_to_categoricals"] = False
    write_anndata("anndata-" + version, a, **args)

    # X as CSC and dense, with less around it
    rng = np.random.RandomState(2000 + v[1])
    n, m = 37, 23
    x = counts(rng, n, m)
    obs = pd.DataFrame({"plate": pd.Categorical.from_codes(np.arange(n) * 3 // n, ["a", "b", "c"])},
                       index=["c%d" % i for i in range(n)])
    var = pd.DataFrame(index=["g%d" % i for i in range(m)])
    for enc, value in [("csc", sp.csc_matrix(x)), ("dense", x.toarray())]:
        if (v, enc) in [((0, 6), "csc"), ((0, 7), "dense"), ((0, 13), "csc"), ((0, 13), "dense")]:
            a = anndata.AnnData(value, obs=obs.copy(), var=var.copy(), **kw)
            write_anndata("anndata-%s-%s" % (version, enc), a)


def nullable():
    """anndata 0.12: nullable strings by its setting; a MuData file by mudata."""
    import anndata
    import mudata
    rng = np.random.RandomState(12)
    n, m = 37, 23
    x = counts(rng, n, m)
    obs = pd.DataFrame({
        "note": pd.array([None if i % 5 == 2 else "n%d é" % i for i in range(n)], dtype="string"),
        "full": pd.array(["f%d" % i for i in range(n)], dtype="string"),
        "cats": pd.Categorical.from_codes(np.where(np.arange(n) % 8 == 1, -1, np.arange(n) % 3),
                                          pd.Index(pd.array(["x", "y", "z"], dtype="string"))),
    }, index=["c%d" % i for i in range(n)])
    var = pd.DataFrame({"symbol": pd.array(["s%d" % i if i else None for i in range(m)], dtype="string")},
                       index=["g%d" % i for i in range(m)])
    anndata.settings.allow_write_nullable_strings = True
    write_anndata("anndata-%s-nullable-strings" % anndata.__version__, anndata.AnnData(x, obs=obs, var=var),
                  convert_strings_to_categoricals=False)
    anndata.settings.allow_write_nullable_strings = False

    mods = {}
    for k, mm, keep in [("gex", 23, slice(0, 37)), ("prot", 7, slice(4, 30))]:
        y = counts(rng, 37, mm, density=0.25)[keep]
        mods[k] = anndata.AnnData(
            sp.csr_matrix(y) if k == "gex" else y.toarray(),
            obs=pd.DataFrame({"q": np.arange(37)[keep] * 2}, index=["c%d" % i for i in range(37)][keep]),
            var=pd.DataFrame(index=["%s-%d" % (k, i) for i in range(mm)]))
    mu = mudata.MuData(mods)
    path = out_path("multimodal.h5mu")
    mu.write(path)
    for k in mods:
        back = mudata.read_h5ad(path, mod=k)
        writer = "mudata %s with anndata %s" % (mudata.__version__, anndata.__version__)
        dump(out_path("multimodal.%s.oracle.json" % k), anndata_oracle(path, back, writer, "mod/" + k))


# ---------------------------------------------------------------------------------------------
# stores written by hand with h5py; the oracle comes from the arrays that were written

FIXED = False  # the attributes of the file in hand are fixed-length strings


class Store:
    """A file in the layout of anndata 0.8 to 0.12, with the parts that a caller wants otherwise.

    `small` writes what anndata writes in a third of the bytes: HDF5 1.8 groups, and fixed-length
    strings for the attributes and the two indexes.
    """

    def __init__(self, name, n=37, m=23, sub="", index="_index", columns=True, df=True, ext=".h5ad",
                 names="c%d", small=True, **kw):
        global FIXED
        FIXED = self.small = small
        if small:
            kw.setdefault("libver", ("v108", "v108"))
        self.name, self.n, self.m, self.sub = name, n, m, sub
        self.path = out_path(*[p for p in (sub, name + ext) if p])
        self.f = h5py.File(self.path, "w", **kw)
        self.columns = {"obs": [], "var": []}
        self.o = {"n_obs": n, "n_vars": m, "matrices": {}, "obs_names": [names % i for i in range(n)],
                  "var_names": ["g%d" % i for i in range(m)], "obs": {}, "var": {}}
        self.frames = ext == ".h5ad" and df
        if self.frames:
            encoding(self.f, "anndata", "0.1.0")
            self.frame("obs", index)
            self.frame("var", index)
            if columns:
                self.categorical("obs", "plate", [-1 if i % 10 == 7 else i * 3 // max(n, 1) for i in range(n)],
                                 ["p0", "p1", "p2"])
                self.column("obs", "depth", np.arange(n, dtype="i8") * 7 + 1)

    def frame(self, axis, index="_index"):
        g = self.f.create_group(axis)
        encoding(g, "dataframe", "0.2.0")
        text_attr(g, "_index", index)
        self.text(axis + "/" + index, self.o[axis + "_names"])

    def text(self, path, values):
        if self.small and values:
            encoding(self.f.create_dataset(path, data=np.array(values, "S")), "string-array", "0.2.0")
        else:
            self.array(path, values)

    def array(self, path, values, **kw):
        if isinstance(values, list) and (not values or isinstance(values[0], str)):
            d = self.f.create_dataset(path, data=np.array(values, dtype=object), dtype=VLEN, **kw)
            encoding(d, "string-array", "0.2.0")
        else:
            d = self.f.create_dataset(path, data=np.asarray(values), **kw)
            encoding(d, "array", "0.2.0")
        return d

    def order(self, axis, name):
        self.columns[axis].append(name)

    def column(self, axis, name, values, kind=None, **kw):
        self.order(axis, name)
        self.array(axis + "/" + name, values, **kw)
        if kind is None:
            k = np.asarray(values).dtype.kind
            kind = {"i": "int", "u": "int", "f": "float", "b": "bool"}.get(k, "string")
        self.o[axis][name] = {"kind": kind, "values": [scalar(x) for x in values]}

    def categorical(self, axis, name, codes, categories, ordered=False, codes_dtype="i1", note=True):
        self.order(axis, name)
        g = self.f.create_group(axis + "/" + name)
        encoding(g, "categorical", "0.2.0")
        g.attrs["ordered"] = bool(ordered)
        self.array(axis + "/" + name + "/codes", np.asarray(codes, dtype=codes_dtype))
        if isinstance(categories, list):
            self.text(axis + "/" + name + "/categories", categories)
        else:
            self.array(axis + "/" + name + "/categories", categories)
        cats = [scalar(c) for c in categories]
        codes = [int(c) for c in codes]
        if note:
            self.o[axis][name] = {"kind": "categorical",
                                  "values": [None if c < 0 else cats[c] for c in codes],
                                  "codes": codes, "categories": cats, "ordered": bool(ordered)}

    def unreadable(self, axis, name):
        self.order(axis, name)
        self.o[axis][name] = {"kind": "unreadable", "values": []}

    def sparse(self, path, indptr, indices, data, enc="csr", shape=None, oracle=True, each=None, **kw):
        """`kw` goes to create_dataset of all three arrays; `each` replaces it for one of them."""
        shape = shape or (self.n, self.m)
        g = self.f.create_group(path)
        encoding(g, enc + "_matrix", "0.1.0")
        g.attrs["shape"] = np.array(shape, dtype="i8")
        for k, v in (("data", data), ("indices", indices), ("indptr", indptr)):
            args = dict((each or {}).get(k, kw))
            v = np.asarray(v)
            if "chunks" in args and args["chunks"] not in (None, True, False):
                args.setdefault("maxshape", (None,))
            if not v.size and "maxshape" not in args:
                args = {}
            g.create_dataset(k, data=v, **args)
        if oracle:
            self.o["matrices"][path] = matrix_json(
                enc, value_type(np.asarray(data).dtype), canonical_csr(enc, shape, indptr, indices, data))
        return g

    def csr(self, x, path="X", dtypes=("i4", "i4"), **kw):
        return self.sparse(path, x.indptr.astype(dtypes[0]), x.indices.astype(dtypes[1]), x.data,
                           shape=x.shape, **kw)

    def dense(self, a, path="X", **kw):
        d = self.f.create_dataset(path, data=a, **kw)
        encoding(d, "array", "0.2.0")
        self.o["matrices"][path] = matrix_json("dense", value_type(a.dtype), dense_csr(a))
        return d

    def close(self, oracle=True):
        for axis, names in self.columns.items():
            if axis in self.f and "column-order" not in self.f[axis].attrs and self.frames:
                text_attr(self.f[axis], "column-order", names)
        self.f.close()
        if oracle:
            self.o["writer"] = "by hand with h5py %s (oracle from the arrays written)" % h5py.__version__
            parts = [p for p in (self.sub, self.name + ".oracle.json") if p]
            dump(out_path(*parts), self.o)


def text_attr(e, name, value):
    """A string attribute, or an array of strings, of variable length unless the file is a small one."""
    if name in e.attrs:
        del e.attrs[name]
    if isinstance(value, str):
        ascii_ = FIXED and value.isascii()
        e.attrs[name] = np.bytes_(value.encode()) if ascii_ else value
    elif FIXED and value and all(v.isascii() for v in value):
        e.attrs[name] = np.array(value, "S")
    else:
        e.attrs.create(name, np.array(value, dtype=object), dtype=VLEN)


def encoding(e, kind, version):
    text_attr(e, "encoding-type", kind)
    text_attr(e, "encoding-version", version)


def base(seed, dtype="f4", n=37, m=23, density=0.2):
    return counts(np.random.RandomState(seed), n, m, dtype, density)


def x_dtypes():
    # value types: by h5py, since anndata (or scipy) casts or refuses some
    s = Store("x-csr-f32", small=False)
    s.csr(base(110), chunks=True, maxshape=(None,))
    s.close()
    for t in "u1 i4 f8".split():
        s = Store("x-csr-" + value_type(t))
        s.csr(base(100, t))
        s.close()
    s = Store("layers-of-all-value-types", columns=False)
    s.csr(base(111))
    for i, t in enumerate("u1 i1 u2 i2 u4 i4 u8 i8 f2 f4 f8 b1".split()):
        x = base(100 + i, {"f2": "f4", "b1": "u1"}.get(t, t), density=0.1)
        data = np.minimum(x.data, 60000).astype(t) if t == "f2" else x.data.astype(t)
        s.sparse("layers/" + value_type(t), x.indptr, x.indices, data)
    encoding(s.f["layers"], "dict", "0.1.0")
    s.close()
    # beyond what f64 and f32 hold
    s = Store("x-csr-u64-beyond-f64", columns=False)
    for path, t, big in [("X", "u8", [2 ** 53 + 1, 2 ** 63 + 5, 2 ** 64 - 1]),
                         ("layers/i64", "i8", [2 ** 53 + 1, -2 ** 63, 2 ** 63 - 1])]:
        x = base(120, t)
        x.data[[0, 5, 9]] = np.array(big, dtype=t)
        s.csr(x, path)
    encoding(s.f["layers"], "dict", "0.1.0")
    s.close()
    x = base(121, "f4")
    x.data[[0, 5, 9, 11]] = [np.nan, np.inf, -np.inf, -0.0]
    s = Store("x-csr-f32-nan-inf")
    s.csr(x)
    s.close()
    s = Store("layers-of-all-index-types", columns=False)
    for j, (p, i) in enumerate([("i8", "i8"), ("i4", "i8"), ("i8", "i4"), ("u4", "u4"), ("i8", "u2"), ("u8", "u8"),
                                ("u2", "i2"), ("i4", "u1"), ("i2", "i1")]):
        s.csr(base(130, density=0.1), "layers/indptr-%s-indices-%s" % (value_type(p), value_type(i)) if j else "X",
              dtypes=(p, i))
    encoding(s.f["layers"], "dict", "0.1.0")
    s.close()
    s = Store("x-csc-i16-indices-i64")
    c = sp.csc_matrix(base(140, "i2"))
    s.sparse("X", c.indptr.astype("i8"), c.indices.astype("i8"), c.data, "csc")
    s.close()
    s = Store("x-csr-big-endian")
    x = base(141)
    s.sparse("X", x.indptr.astype(">i8"), x.indices.astype(">i4"), x.data.astype(">f4"),
             each={"data": dict(chunks=(50,), compression="gzip", shuffle=True)})
    s.column("obs", "big", np.arange(37).astype(">i4"))
    s.dense(base(142).toarray().astype(">f8"), "layers/be")
    encoding(s.f["layers"], "dict", "0.1.0")
    s.close()


def x_contents():
    x = base(200)
    s = Store("x-csr-unsorted-rows")
    rng = np.random.RandomState(201)
    ind, dat = x.indices.copy(), x.data.copy()
    for r in range(x.shape[0]):
        a, b = x.indptr[r], x.indptr[r + 1]
        p = a + rng.permutation(b - a)
        ind[a:b], dat[a:b] = x.indices[p], x.data[p]
    s.sparse("X", x.indptr, ind, dat)
    s.close()

    s = Store("x-csr-explicit-zeros")
    dat = x.data.copy()
    dat[::5] = 0
    s.sparse("X", x.indptr, x.indices, dat)
    s.close()
    s = Store("x-csc-explicit-zeros")
    c = sp.csc_matrix(x)
    dat = c.data.copy()
    dat[::4] = 0
    s.sparse("X", c.indptr, c.indices, dat, "csc")
    s.close()
    s = Store("x-csr-no-rows", n=0)
    s.csr(sp.csr_matrix((0, 23), dtype="f4"), chunks=(8,))
    s.close()
    s = Store("x-csr-no-rows-no-genes", n=0, m=0)
    s.csr(sp.csr_matrix((0, 1), dtype="f4")[:, :0], chunks=(8,))
    s.close()
    s = Store("x-csr-no-nonzeros")
    s.csr(sp.csr_matrix((37, 23), dtype="f4"), chunks=(8,), compression="gzip")
    s.close()
    s = Store("x-csr-no-nonzeros-contiguous")
    s.csr(sp.csr_matrix((37, 23), dtype="f4"))
    s.close()
    s = Store("x-csr-no-genes", m=0)
    s.sparse("X", np.zeros(38, "i4"), np.zeros(0, "i4"), np.zeros(0, "f4"))
    s.close()
    s = Store("x-dense-no-rows", n=0)
    s.dense(np.zeros((0, 23), "f4"))
    s.close()
    s = Store("x-csr-one-cell-one-gene", n=1, m=1)
    s.sparse("X", np.array([0, 1], "i4"), np.array([0], "i4"), np.array([3], "f4"))
    s.close()
    s = Store("x-csr-full-rows", n=12)
    s.csr(sp.csr_matrix(np.arange(1, 12 * 23 + 1, dtype="f4").reshape(12, 23)))
    s.close()
    s = Store("x-absent")
    s.csr(base(202), "layers/counts")
    encoding(s.f["layers"], "dict", "0.1.0")
    s.close()
    s = Store("x-null")
    d = s.f.create_dataset("X", data=h5py.Empty("f4"))
    encoding(d, "null", "0.1.0")
    s.csr(base(202), "layers/counts")
    encoding(s.f["layers"], "dict", "0.1.0")
    s.close()
    s = Store("x-csr-encoding-missing")  # old: no encoding attributes at the root, layers and arrays
    s.csr(base(203))
    s.csr(base(204), "layers/counts")
    for k in ("encoding-type", "encoding-version"):
        del s.f.attrs[k]
    s.close()


def x_storage():
    import hdf5plugin as hp
    x = base(300)
    i = base(301, "i4")
    ways = {
        "contiguous": (x, {}),
        "chunks-none": (x, dict(chunks=True, maxshape=(None,))),
        "chunks-7": (x, dict(chunks=(7,))),
        "chunks-2": (x, dict(chunks=(2,))),
        "chunks-7-gzip": (x, dict(chunks=(7,), compression="gzip")),
        "chunks-beyond-data": (x, dict(chunks=(80000,), compression="gzip")),
        "gzip": (x, dict(chunks=True, compression="gzip", maxshape=(None,))),
        "gzip-9-shuffle": (x, dict(chunks=(40,), compression="gzip", compression_opts=9, shuffle=True)),
        "shuffle": (x, dict(chunks=(40,), shuffle=True)),
        "lzf": (x, dict(chunks=(40,), compression="lzf")),
        "shuffle-lzf": (x, dict(chunks=(40,), compression="lzf", shuffle=True)),
        "fletcher32": (x, dict(chunks=(40,), fletcher32=True)),
        "gzip-shuffle-fletcher32": (x, dict(chunks=(40,), compression="gzip", shuffle=True, fletcher32=True)),
        "scaleoffset": (i, dict(chunks=(40,), scaleoffset=0)),
        "scaleoffset-gzip": (i, dict(chunks=(40,), scaleoffset=0, compression="gzip")),
    }
    alone = ("contiguous", "chunks-7", "chunks-beyond-data", "gzip", "lzf", "gzip-shuffle-fletcher32", "scaleoffset")
    many = Store("layers-of-all-hdf5-filters", columns=False)
    for k, (y, kw) in ways.items():
        s = Store("store-csr-" + k) if k in alone else many
        s.csr(y, "X" if k in alone or k == "chunks-none" else "layers/" + k,
              each={"indptr": {}} if k != "gzip" else None, **kw)
        if k in alone:
            s.close()
    encoding(many.f["layers"], "dict", "0.1.0")
    many.close()

    # filters that HDF5 itself does not bring; of one family, the first is X and the others are layers
    blosc = {"lz4": dict(hp.Blosc(cname="lz4", shuffle=hp.Blosc.SHUFFLE))}
    for c in "blosclz lz4hc zlib zstd".split():
        blosc[c] = dict(hp.Blosc(cname=c, clevel=5, shuffle=hp.Blosc.SHUFFLE))
    blosc["lz4-bitshuffle"] = dict(hp.Blosc(cname="lz4", shuffle=hp.Blosc.BITSHUFFLE))
    blosc["lz4-noshuffle"] = dict(hp.Blosc(cname="lz4", shuffle=hp.Blosc.NOSHUFFLE))
    families = {
        "zstd": {"zstd": dict(hp.Zstd(clevel=3)), "shuffle-zstd": dict(shuffle=True, **hp.Zstd(clevel=3))},
        "lz4": {"lz4": dict(hp.LZ4(nbytes=0)), "lz4-blocks": dict(hp.LZ4(nbytes=64))},
        "bitshuffle": {c: dict(hp.Bitshuffle(cname=c)) for c in ("lz4", "zstd", "none")},
        "bzip2": {"bzip2": dict(hp.BZip2())},
        "blosc": blosc,
        "blosc2": {"zstd": dict(hp.Blosc2(cname="zstd", clevel=5, filters=hp.Blosc2.SHUFFLE))},
    }
    for family, members in families.items():
        s = Store("store-csr-" + family, libver=("v110", "v110"))
        for j, (k, kw) in enumerate(members.items()):
            s.csr(base(320 + j), "layers/" + k if j else "X", chunks=(90,), each={"indptr": {}}, **kw)
        if "layers" in s.f:
            encoding(s.f["layers"], "dict", "0.1.0")
        s.close()

    s = Store("store-csr-compact")
    g = s.csr(x)
    for k in ("data", "indices", "indptr"):
        v = g[k][:]
        del g[k]
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_obj_track_times(False)
        plist.set_layout(h5py.h5d.COMPACT)
        t = h5py.h5t.py_create(v.dtype, logical=True)
        d = h5py.h5d.create(g.id, k.encode(), t, h5py.h5s.create_simple(v.shape), dcpl=plist)
        d.write(h5py.h5s.ALL, h5py.h5s.ALL, v)
    s.close()

    # a chunk whose filter was skipped (filter mask), as the HDF5 library does when a filter fails
    s = Store("store-csr-filter-mask")
    g = s.csr(x, chunks=(40,), compression="gzip", shuffle=True)
    raw = g["data"][40:80].tobytes()
    g["data"].id.write_direct_chunk((40,), raw, filter_mask=0b11)
    raw = np.frombuffer(g["indices"][80:120].tobytes(), "u1").reshape(40, 4).T.tobytes()
    g["indices"].id.write_direct_chunk((80,), raw, filter_mask=0b10)  # shuffled, not deflated
    s.close()

    d = base(310, density=0.15).toarray()
    for k, kw in {"contiguous": {}, "gzip": dict(chunks=(10, 6), compression="gzip")}.items():
        s = Store("store-dense-" + k)
        s.dense(d, **kw)
        s.close()
    s = Store("layers-of-all-dense-layouts", columns=False)
    s.dense(base(311, "i8", density=0.1).toarray())
    for k, kw in {
        "chunks-rows": dict(chunks=(5, 23)), "chunks-columns-lzf": dict(chunks=(37, 4), compression="lzf"),
        "chunks-beyond-data": dict(chunks=(64, 64), maxshape=(None, None), compression="gzip"),
        "shuffle-fletcher32": dict(chunks=(8, 8), shuffle=True, fletcher32=True),
    }.items():
        s.dense(d, "layers/" + k, **kw)
    s.dense(base(312, "u1", density=0.1).toarray(), "layers/u8-scaleoffset", chunks=(8, 8), scaleoffset=0)
    encoding(s.f["layers"], "dict", "0.1.0")
    s.close()
    s = Store("store-dense-f32-nan-inf")
    d = base(313).toarray()
    d[0, 1], d[2, 2], d[2, 3], d[3, 3] = np.nan, np.inf, -np.inf, -0.0
    s.dense(d)
    s.close()
    for k, fill in [("zero", 0.0), ("2.5", 2.5)]:  # chunks never written: the fill value
        s = Store("store-dense-unwritten-chunks-fill-" + k)
        v = base(314).toarray()
        ds = s.f.create_dataset("X", (37, 23), "f4", chunks=(8, 23), fillvalue=fill)
        encoding(ds, "array", "0.2.0")
        ds[:16] = v[:16]
        ds[32:] = v[32:]
        v[16:32] = fill
        s.o["matrices"]["X"] = matrix_json("dense", "f32", dense_csr(v))
        s.close()


def containers():
    x = base(400)
    wide = base(401, "u2", 60, 40, 0.5)
    for lib in ("v108", "v110", "v200"):
        s = Store("container-libver-" + lib, libver=(lib, lib), small=False)
        for i in range(7):
            s.column("obs", "extra %d" % i, np.arange(37, dtype="i1") % (i + 2))
        s.csr(x, each={"data": dict(chunks=(40,), maxshape=(None,), compression="gzip"),  # extensible array
                       "indices": dict(chunks=(40,), compression="gzip", maxshape=(160 + 4000,)),  # fixed array
                       "indptr": dict(chunks=(38,), compression="gzip", maxshape=(38,))})  # single chunk
        s.close()
    v110 = dict(libver=("v110", "v110"))
    for k, kw in {
        "extensible-array": dict(chunks=(1,), maxshape=(None,)),
        "extensible-array-gzip": dict(chunks=(5,), maxshape=(None,), compression="gzip"),
        "fixed-array-paged": dict(chunks=(1,), maxshape=(1500,)),
        "fixed-array-gzip": dict(chunks=(5,), maxshape=(1500,), compression="gzip"),
    }.items():
        y = wide if "paged" in k else x
        s = Store("index-" + k, *y.shape, columns=False, **v110)
        s.csr(y, each={"indices": kw})
        s.close()
    s = Store("index-single-chunk", **v110)
    s.csr(x, each={k: dict(chunks=(len(v),), maxshape=(len(v),)) for k, v in
                   [("data", x.data), ("indices", x.indices), ("indptr", x.indptr)]})
    s.close()
    s = Store("index-implicit", **v110)  # allocated early, no filter, fixed size
    g = s.csr(x)
    for k in ("data", "indices"):
        v = g[k][:]
        del g[k]
        p = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        p.set_obj_track_times(False)
        p.set_chunk((16,))
        p.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        d = h5py.h5d.create(g.id, k.encode(), h5py.h5t.py_create(v.dtype, logical=True),
                            h5py.h5s.create_simple(v.shape), dcpl=p)
        d.write(h5py.h5s.ALL, h5py.h5s.ALL, v)
    s.close()
    for k, kw in {"btree2": {}, "btree2-gzip": dict(compression="gzip")}.items():
        s = Store("index-" + k, **v110)
        s.dense(x.toarray(), chunks=(4, 2), maxshape=(None, None), **kw)
        s.close()

    s = Store("container-many-columns", libver=("v110", "v110"))  # dense links: heap and B-tree
    for i in range(28):
        s.column("obs", "column number %d" % i, np.arange(37, dtype="i2") * i)
    s.csr(x)
    s.close()
    s = Store("container-many-attributes", libver=("v110", "v110"), track_order=True)
    s.csr(x)
    for where in ("/", "X", "obs"):
        for i in range(30):
            s.f[where].attrs["attribute %d" % i] = "value %d" % i
    s.close()
    s = Store("container-userblock", userblock_size=512)
    s.csr(x, chunks=(40,), compression="gzip")
    s.close()
    with open(s.path, "r+b") as f:
        f.write(b"512 bytes that are not HDF5\n")
    s = Store("container-paged", libver=("v110", "v110"), fs_strategy="page", fs_page_size=512)
    s.csr(x, chunks=(40,))
    s.close()
    s = Store("container-soft-link-x")
    s.csr(x, "layers/counts")
    encoding(s.f["layers"], "dict", "0.1.0")
    s.f["X"] = h5py.SoftLink("/layers/counts")
    s.o["matrices"] = {"X": s.o["matrices"]["layers/counts"], **s.o["matrices"]}
    s.close()
    # a file whose later parts were written after deletions and rewrites, with continuation blocks
    s = Store("container-rewritten", small=False)
    s.csr(base(405))
    del s.f["X"]
    s.csr(x, chunks=(40,), compression="gzip")
    for i in range(25):
        s.f["X"].attrs["note %d" % i] = "x" * i
        s.f["obs"].attrs["later %d" % i] = i
    s.close()


def fixed(group, name, values, size, pad, cset=h5py.h5t.CSET_ASCII, attr=False):
    """A fixed-length string array (or attribute) with a padding of our choice."""
    t = h5py.h5t.C_S1.copy()
    t.set_size(size)
    t.set_strpad(pad)
    t.set_cset(cset)
    scalar_ = isinstance(values, str)
    enc = [v.encode() for v in ([values] if scalar_ else values)]
    fill = b" " if pad == h5py.h5t.STR_SPACEPAD else b"\0"
    a = np.array([v.ljust(size, fill) for v in enc], dtype="S%d" % size)
    space = h5py.h5s.create(h5py.h5s.SCALAR) if scalar_ else h5py.h5s.create_simple((len(enc),))
    if attr:
        h = h5py.h5a.create(group.id, name.encode(), t, space)
        h.write(a[0:1].reshape(()) if scalar_ else a, mtype=t)
    else:
        pl = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        pl.set_obj_track_times(False)
        h = h5py.h5d.create(group.id, name.encode(), t, space, dcpl=pl)
        h.write(h5py.h5s.ALL, h5py.h5s.ALL, a, mtype=t)


def columns():
    x = base(500)
    n = 37

    s = Store("obs-fixed-strings")
    s.csr(x)
    nul, term, space = h5py.h5t.STR_NULLPAD, h5py.h5t.STR_NULLTERM, h5py.h5t.STR_SPACEPAD
    for name, pad, cset, text in [("null padded", nul, h5py.h5t.CSET_ASCII, "v%d"),
                                  ("null terminated", term, h5py.h5t.CSET_ASCII, "value %d"),
                                  ("space padded", space, h5py.h5t.CSET_ASCII, "w%d"),
                                  ("utf-8", nul, h5py.h5t.CSET_UTF8, "µ%d")]:
        values = [text % (i * i) for i in range(n)]
        size = max(len(v.encode()) for v in values) + (1 if pad == term else 0)
        fixed(s.f["obs"], name, values, size, pad, cset)
        encoding(s.f["obs"][name], "string-array", "0.2.0")
        s.order("obs", name)
        s.o["obs"][name] = {"kind": "string", "values": values}
    s.close()

    s = Store("obs-odd-index-name", index="weird index, µ \"quoted\" %d")
    s.csr(x)
    s.column("obs", "index", ["i%d" % i for i in range(n)])
    s.column("obs", "_index", ["u%d" % i for i in range(n)])
    s.column("obs", "a.b:c [d] 'e' \\f", np.arange(n))
    s.column("obs", "日本語", np.linspace(0, 1, n))
    s.column("obs", "long " + "x" * 300, np.arange(n) % 2 == 0)
    s.close()

    s = Store("obs-integer-index")  # a RangeIndex written as int64
    s.csr(x)
    del s.f["obs/_index"]
    s.array("obs/_index", np.arange(n, dtype="i8"))
    s.o["obs_names"] = [str(i) for i in range(n)]
    s.close()

    s = Store("obs-no-columns", columns=False)
    s.csr(x)
    s.close()

    s = Store("obs-categories-of-all-kinds", columns=False)
    s.csr(x)
    k = np.arange(n)
    s.categorical("obs", "int", np.where(k % 9 == 1, -1, k % 4), np.array([3, -1, 2 ** 40, 7], "i8"))
    s.categorical("obs", "float", k % 3, np.array([0.5, 1e-3, -2.0], "f8"))
    s.categorical("obs", "float32", k % 2, np.array([0.25, 4], "f4"), ordered=True)
    s.categorical("obs", "bool", np.where(k % 5 == 0, -1, k % 2), np.array([False, True]))
    s.categorical("obs", "codes-int32", k % 2, ["a", "b"], codes_dtype="i4")
    s.categorical("obs", "codes-int64", k % 2, ["a", "b"], codes_dtype="i8")
    s.categorical("obs", "codes-uint8", k % 2, ["a", "b"], codes_dtype="u1")
    s.categorical("obs", "all-missing", [-1] * n, ["never"])
    s.categorical("obs", "no-categories", [-1] * n, [])
    s.categorical("obs", "unused", k % 2, ["a", "b", "unused"], ordered=True)
    s.close()

    s = Store("obs-numbers-of-all-kinds", columns=False)
    s.csr(x)
    for t in "u1 i1 u2 i2 u4 i4 u8 i8 f2 f4 f8".split():
        v = (np.arange(n) * 3).astype(t)
        if t[0] == "f":
            v[[1, 2, 3]] = [np.nan, np.inf, -np.inf]
        elif t[0] == "i":
            v[1], v[2] = np.iinfo(t).min, np.iinfo(t).max
        else:
            v[2] = np.iinfo(t).max
        s.column("obs", value_type(np.dtype(t)), v)
    s.column("obs", "bool", np.arange(n) % 3 == 0)
    s.column("obs", "chunked", np.arange(n, dtype="i4"), chunks=(5,), compression="gzip", shuffle=True)
    s.column("obs", "chunked strings", ["s%d" % (i % 6) for i in range(n)], chunks=(10,), compression="gzip")
    s.column("obs", "empty strings", ["" if i % 3 else "x" for i in range(n)])
    s.close()

    s = Store("obs-unreadable-columns")
    s.csr(x)
    s.array("obs/two-dimensional", np.arange(2 * n).reshape(n, 2))
    s.unreadable("obs", "two-dimensional")
    d = s.array("obs/unknown-encoding", np.arange(n))
    encoding(d, "made-up-array", "9.9.9")
    s.unreadable("obs", "unknown-encoding")
    s.f["obs"].create_group("plain-group")
    s.unreadable("obs", "plain-group")
    s.f["obs"].create_dataset("compound", data=np.zeros(n, dtype=[("a", "i4"), ("b", "f4")]))
    encoding(s.f["obs/compound"], "rec-array", "0.2.0")
    s.unreadable("obs", "compound")
    s.f["obs"].create_dataset("complex", data=np.zeros(n, "c8"))
    encoding(s.f["obs/complex"], "array", "0.2.0")
    s.unreadable("obs", "complex")
    s.column("obs", "after", np.arange(n))
    s.close()

    s = Store("obs-nullable-hand", columns=False)
    s.csr(x)
    for name, kind, enc, values in [
            ("int16", "nullable-int", "nullable-integer", np.arange(n, dtype="i2") - 5),
            ("uint64", "nullable-int", "nullable-integer", np.arange(n, dtype="u8") + 2 ** 63),
            ("boolean", "nullable-bool", "nullable-boolean", np.arange(n) % 2 == 1)]:
        g = s.f.create_group("obs/" + name)
        encoding(g, enc, "0.1.0")
        s.array("obs/" + name + "/values", values)
        mask = np.arange(n) % 6 == 3
        s.array("obs/" + name + "/mask", mask)
        s.order("obs", name)
        s.o["obs"][name] = {"kind": kind, "values": [None if b else number(v) for v, b in zip(values, mask)]}
    s.close()

    # the habits of R writers: fixed-length ASCII attributes, 32-bit shape, int32 codes, columns in group order
    s = Store("container-fixed-attributes", df=False, small=False)
    f = s.f
    enc = lambda e, a, b: (fixed(e, "encoding-type", a, len(a), nul, attr=True),  # noqa: E731
                           fixed(e, "encoding-version", b, 6, term, attr=True))
    enc(f, "anndata", "0.1.0")
    for axis, names in (("obs", s.o["obs_names"]), ("var", s.o["var_names"])):
        g = f.create_group(axis)
        enc(g, "dataframe", "0.2.0")
        fixed(g, "_index", "_index", 6, nul, attr=True)
        fixed(g, "_index", names, 8, nul)
        enc(g["_index"], "string-array", "0.2.0")
    fixed(f["obs"], "column-order", ["type", "depth"], 5, nul, attr=True)
    f["var"].attrs.create("column-order", np.zeros(0, "f8"))  # an empty order: no strings to give it a type
    g = f.create_group("obs/type")
    enc(g, "categorical", "0.2.0")
    g.attrs["ordered"] = np.int8(1)
    codes = [i % 3 for i in range(n)]
    g.create_dataset("codes", data=np.array(codes, "i4"))
    fixed(g, "categories", ["lo", "mid", "high"], 8, nul)
    f.create_dataset("obs/depth", data=np.arange(n, dtype="i4"))
    s.o["obs"] = {"type": {"kind": "categorical", "values": [["lo", "mid", "high"][c] for c in codes],
                           "codes": codes, "categories": ["lo", "mid", "high"], "ordered": True},
                  "depth": {"kind": "int", "values": list(range(n))}}
    g = s.csr(x, dtypes=("i4", "i4"), chunks=(40,), compression="gzip")
    for k in ("encoding-type", "encoding-version", "shape"):
        del g.attrs[k]
    enc(g, "csr_matrix", "0.1.0")
    g.attrs["shape"] = np.array([37, 23], "i4")
    s.close()


def legacy():
    """anndata 0.6 and before, by hand: h5sparse attributes, compound obs, categories in uns."""
    x = base(600)
    n, m = x.shape
    cats = {"type": ["alpha", "beta", "gamma"], "single": ["one"]}
    for k, enc, index, group_raw in [("legacy-csr", "csr", "index", False), ("legacy-csc", "csc", "_index", True)]:
        s = Store(k, df=False, small=False, **({} if k == "legacy-csr" else {"libver": ("v108", "v108")}))
        f = s.f
        dt = [(index, "S6"), ("type", "i1"), ("single", "i1"), ("label", VLEN), ("count", "i4"),
              ("score", "f4"), ("flag", "?")]
        codes = [-1 if i % 7 == 3 else i % 3 for i in range(n)]
        obs = np.zeros(n, dtype=np.dtype(dt))
        obs[index] = [b"c%d" % i for i in range(n)]
        obs["type"], obs["count"] = codes, np.arange(n)
        obs["label"] = np.array(["l%d µ" % i for i in range(n)], dtype=object)
        obs["score"] = np.arange(n) / np.float32(8)
        obs["score"][4] = np.nan
        obs["flag"] = np.arange(n) % 2
        f.create_dataset("obs", data=obs)
        var = np.zeros(m, dtype=np.dtype([(index, "S6"), ("symbol", "S8")]))
        var[index] = [b"g%d" % i for i in range(m)]
        var["symbol"] = [b"sym%d" % i for i in range(m)]
        f.create_dataset("var", data=var)
        f.create_dataset("uns/type_categories", data=np.array(cats["type"], dtype=object), dtype=VLEN)
        f.create_dataset("uns/single_categories", data=np.array(cats["single"], dtype=object), dtype=VLEN)

        def put(path, matrix, vt="f32"):
            y = sp.csr_matrix(matrix) if enc == "csr" else sp.csc_matrix(matrix)
            g = f.create_group(path)
            g.attrs["h5sparse_format"] = enc
            g.attrs["h5sparse_shape"] = np.array(y.shape)
            for a in ("data", "indices", "indptr"):
                g.create_dataset(a, data=getattr(y, a), **(dict(chunks=True, maxshape=(None,), compression="gzip") if path == "X" else {}))
            return matrix_json(enc, vt, canonical_csr(enc, y.shape, y.indptr, y.indices, y.data))

        s.o["matrices"]["X"] = put("X", x)
        raw = base(601, n=n, m=29)
        s.o["matrices"]["raw/X"] = put("raw/X" if group_raw else "raw.X", raw)
        s.o["matrices"]["raw/X"]["n_vars"] = 29
        rv = np.zeros(29, dtype=np.dtype([(index, "S6")]))
        rv[index] = [b"r%d" % i for i in range(29)]
        f.create_dataset("raw/var" if group_raw else "raw.var", data=rv)
        s.o["raw_var_names"] = ["r%d" % i for i in range(29)]
        val = lambda kind, v: {"kind": kind, "values": v}  # noqa: E731
        s.o["obs"] = {
            "type": {"kind": "categorical", "values": [None if c < 0 else cats["type"][c] for c in codes],
                     "codes": codes, "categories": cats["type"], "ordered": False},
            "single": {"kind": "categorical", "values": ["one"] * n, "codes": [0] * n, "categories": ["one"],
                       "ordered": False},
            "label": val("string", ["l%d µ" % i for i in range(n)]),
            "count": val("int", list(range(n))),
            "score": val("float", numbers(obs["score"])),
            "flag": val("bool", [bool(i % 2) for i in range(n)])}
        s.o["var"] = {"symbol": val("string", ["sym%d" % i for i in range(m)])}
        s.close()


def tenx():
    n, m = 41, 29
    x = base(700, "i4", n, m)
    barcodes = ["".join("ACGT"[(i * 7 + j * j) % 4] for j in range(10)) + "%02d-1" % i for i in range(n)]
    ids = ["ENSG%011d" % (i * 13) for i in range(m)]
    names = ["SYM%d" % (i if i != 5 else 4) for i in range(m)]  # symbols repeat in real files

    def arrays(g, y, kw):
        g.create_dataset("data", data=y.data, **kw)
        g.create_dataset("indices", data=y.indices.astype("i8"), **kw)
        g.create_dataset("indptr", data=y.indptr.astype("i8"), **kw)
        g.create_dataset("shape", data=np.array(y.shape[::-1], "i4"))

    kw = dict(chunks=(80000,), maxshape=(None,), compression="gzip", shuffle=True)
    s = Store("tenx-v3", n, m, ext=".h5")
    f = s.f
    f.attrs["chemistry_description"] = "synthetic"
    f.attrs["filetype"] = "matrix"
    f.attrs["version"] = 2
    g = f.create_group("matrix")
    arrays(g, x, kw)
    g.create_dataset("barcodes", data=np.array(barcodes, "S18"), compression="gzip", chunks=(80000,), maxshape=(None,))
    h = g.create_group("features")
    kinds = ["Gene Expression"] * (m - 3) + ["Antibody Capture"] * 3
    for k, v in [("id", ids), ("name", names), ("feature_type", kinds), ("genome", ["GRCh38"] * (m - 3) + [""] * 3)]:
        h.create_dataset(k, data=np.array(v, "S"), chunks=(100000,), maxshape=(None,), compression="gzip")
    h.create_dataset("_all_tag_keys", data=np.array(["genome"], "S"))
    s.o.update(obs_names=barcodes, var_names=ids)
    s.o["matrices"]["X"] = matrix_json("csr", "i32", canonical_csr("csr", x.shape, x.indptr, x.indices, x.data))
    s.o["var"] = {"name": {"kind": "string", "values": names}, "feature_type": {"kind": "string", "values": kinds},
                  "genome": {"kind": "string", "values": ["GRCh38"] * (m - 3) + [""] * 3}}
    s.close()

    for file, genomes in [("tenx-v2", ["GRCh38"]), ("tenx-v2-two-genomes", ["GRCh38", "mm10"])]:
        f = h5py.File(out_path(file + ".h5"), "w", libver=("v108", "v108"))
        f.attrs["filetype"] = "matrix"
        for j, genome in enumerate(genomes):
            y = base(710 + j, "i4", n, m)
            g = f.create_group(genome)
            arrays(g, y, {})
            g.create_dataset("barcodes", data=np.array(barcodes, "S"))
            gi = ["%s_%s" % (genome, i) for i in ids]
            g.create_dataset("genes", data=np.array(gi, "S"))
            g.create_dataset("gene_names", data=np.array(names, "S"))
            o = {"n_obs": n, "n_vars": m,
                 "matrices": {"X": matrix_json("csr", "i32", canonical_csr("csr", y.shape, y.indptr, y.indices, y.data))},
                 "obs_names": barcodes, "var_names": gi, "obs": {},
                 "var": {"gene_names": {"kind": "string", "values": names}},
                 "writer": "by hand with h5py %s (oracle from the arrays written)" % h5py.__version__}
            dump(out_path(file + (".%s" % genome if len(genomes) > 1 else "") + ".oracle.json"), o)
        f.close()


def newest():
    """What only a real anndata of the newest version writes."""
    import anndata
    v = anndata.__version__
    n, m = 37, 23
    obs = pd.DataFrame({
        "int cats": pd.Categorical.from_codes(np.arange(n) % 3, [5, 10, 20]),
        "float cats": pd.Categorical.from_codes(np.where(np.arange(n) % 6 == 1, -1, np.arange(n) % 2), [0.5, 2.5]),
        "bool cats": pd.Categorical.from_codes(np.arange(n) % 2, [False, True]),
        "many cats": pd.Categorical.from_codes((np.arange(n) * 37) % 200, ["k%03d" % i for i in range(200)]),
        "float32": np.arange(n, dtype="f4") / 3,
    }, index=["c%d" % i for i in range(n)])
    var = pd.DataFrame(index=["g%d" % i for i in range(m)])
    write_anndata("anndata-%s-categories-no-x" % v, anndata.AnnData(None, obs=obs, var=var))


# ---------------------------------------------------------------------------------------------
# files that a reader must refuse

BAD = {}


def bad(name, what, when, **kw):
    if "columns" not in kw:
        kw["columns"] = False
    BAD[name + kw.get("ext", ".h5ad")] = {"what": what, "when": when}
    return Store(name, kw.pop("n", 20), kw.pop("m", 12), sub="bad", **kw)


def bads():
    n, m = 20, 12
    x = base(900, n=n, m=m, density=0.3)
    p, i, d = x.indptr, x.indices, x.data

    def sparse(name, what, when, p=p, i=i, d=d, shape=None, enc="csr", **kw):
        s = bad(name, what, when)
        s.sparse("X", p, i, d, enc, shape=shape, oracle=False, **kw)
        return s

    q = p.copy()
    q[5], q[6] = q[6], q[5] - 1
    sparse("indptr-falls", "indptr[6] is less than indptr[5]", "read", p=q).close(False)
    q = p.copy()
    q[-1] += 5
    sparse("indptr-last-beyond-data", "indptr ends at %d, data has %d values" % (q[-1], len(d)), "read", p=q).close(False)
    sparse("indptr-not-from-zero", "indptr starts at 2, not 0", "read", p=np.where(np.arange(n + 1) == 0, 2, p).astype("i4")).close(False)
    q = p.astype("i8")
    q[3] = -4
    sparse("indptr-negative", "indptr[3] is -4", "read", p=q).close(False)
    q = p.astype("i8")
    q[8] = 2 ** 62
    sparse("indptr-huge", "indptr[8] is 2^62", "read", p=q).close(False)
    sparse("indptr-too-short", "shape has 20 rows, indptr has 20 elements, not 21", "open", p=p[:-1]).close(False)
    sparse("indptr-too-long", "shape has 20 rows, indptr has 22 elements, not 21", "open", p=np.append(p, p[-1])).close(False)
    sparse("indptr-float", "indptr is float64", "open", p=p.astype("f8")).close(False)
    sparse("indptr-zeros-over-data", "indptr is all zeros, data has %d values" % len(d), "open", p=np.zeros_like(p)).close(False)
    for part, whole in (("indptr", p), ("indices", i), ("data", d)):
        # As a writer leaves it that was ended in the middle: of a chunked array some chunks are there.
        for how, written in (("never", 0), ("partly", len(whole) // 2)):
            what = "X/%s has chunks for %d of its %d elements" % (part, written, len(whole))
            s = sparse("%s-%s-written" % (part, how), what, "open")
            del s.f["X/" + part]
            made = s.f["X"].create_dataset(part, whole.shape, whole.dtype, chunks=(4,) if written else None)
            if written:
                made[:written] = whole[:written]
            s.close(False)
    sparse("indices-shorter-than-data", "indices has 3 elements less than data", "open", i=i[:-3]).close(False)
    sparse("indices-longer-than-data", "indices has 3 elements more than data", "open", i=np.append(i, [0, 1, 2]).astype("i4")).close(False)
    j = i.copy()
    j[p[4]] = 0
    j[p[5] - 1] = m
    sparse("index-beyond-n-vars", "a row has the index 12, n_vars is 12", "read", i=j).close(False)
    j = i.copy()
    j[p[3]] = -1
    sparse("index-negative", "a row has the index -1", "read", i=j).close(False)
    row = int(np.argmax(np.diff(p)))
    j = i.copy()
    j[p[row] + 1] = j[p[row]]
    sparse("index-duplicated", "row %d has the index %d twice, side by side" % (row, j[p[row]]), "read", i=j).close(False)
    j = i.copy()
    j[p[row + 0] + 2] = j[p[row]]
    sparse("index-duplicated-unsorted", "row %d, not sorted, has the index %d twice, apart" % (row, j[p[row]]), "read", i=j).close(False)
    c = sp.csc_matrix(x)
    j = c.indices.copy()
    j[c.indptr[2]] = n
    sparse("csc-index-beyond-n-obs", "CSC: column 2 has the row 20, n_obs is 20", "read", p=c.indptr, i=j, d=c.data, enc="csc").close(False)
    j = c.indices.copy()
    j[c.indptr[2] + 1] = j[c.indptr[2]]
    sparse("csc-row-duplicated", "CSC: column 2 has a row twice", "read", p=c.indptr, i=j, d=c.data, enc="csc").close(False)
    sparse("data-strings", "data holds strings", "open", d=np.array([b"x"] * len(d))).close(False)
    sparse("data-two-dimensional", "data has two dimensions", "open", d=np.stack([d, d])).close(False)
    sparse("data-complex", "data is complex64", "open", d=d.astype("c8")).close(False)

    s = bad("obs-shorter-than-x", "obs has 19 cells, X has 20 rows", "open", n=19)
    s.sparse("X", p, i, d, shape=(n, m), oracle=False)
    s.close(False)
    s = bad("var-longer-than-x", "var has 13 genes, X has 12 columns", "open", m=13)
    s.sparse("X", p, i, d, shape=(n, m), oracle=False)
    s.close(False)
    s = sparse("layer-other-shape", "layers/counts has 19 rows, X has 20", "open")
    s.csr(x[:19], "layers/counts", oracle=False)
    s.close(False)
    s = bad("x-encoding-unknown", "X has the encoding-type 'coo_matrix'", "open")
    s.csr(x, oracle=False)
    s.f["X"].attrs["encoding-type"] = "coo_matrix"
    s.close(False)
    s = bad("x-encoding-absent", "X is a group without encoding-type or h5sparse_format", "open")
    s.csr(x, oracle=False)
    del s.f["X"].attrs["encoding-type"]
    s.close(False)
    for k in ("indptr", "indices", "data"):
        s = bad("x-without-" + k, "X has no " + k, "open")
        s.csr(x, oracle=False)
        del s.f["X"][k]
        s.close(False)
    s = bad("x-without-shape", "X has no attribute shape", "open")
    s.csr(x, oracle=False)
    del s.f["X"].attrs["shape"]
    s.close(False)
    for k, v in [("negative", [-20, 12]), ("rank-1", [20]), ("rank-3", [20, 12, 1]), ("huge", [2 ** 60, 12])]:
        s = bad("shape-" + k, "the attribute shape of X is %s" % v, "open")
        s.csr(x, oracle=False)
        s.f["X"].attrs["shape"] = np.array(v, "i8")
        s.close(False)
    s = bad("shape-strings", "the attribute shape of X is text", "open")
    s.csr(x, oracle=False)
    s.f["X"].attrs["shape"] = "20x12"
    s.close(False)
    s = bad("dense-three-dimensional", "dense X has three dimensions", "open")
    s.dense(np.zeros((n, m, 2), "f4")[:, :, 0])
    del s.f["X"]
    encoding(s.f.create_dataset("X", data=np.zeros((n, m, 2), "f4")), "array", "0.2.0")
    s.close(False)
    s = bad("dense-strings", "dense X holds strings", "open")
    encoding(s.f.create_dataset("X", data=np.full((n, m), b"x")), "array", "0.2.0")
    s.close(False)

    s = bad("obs-absent", "the file has no obs", "open")
    s.csr(x, oracle=False)
    del s.f["obs"]
    s.close(False)
    s = bad("obs-index-absent", "obs names '_index' as its index, which is not there", "open")
    s.csr(x, oracle=False)
    del s.f["obs/_index"]
    s.close(False)
    s = bad("obs-index-unnamed", "obs has no attribute _index", "open")
    s.csr(x, oracle=False)
    del s.f["obs"].attrs["_index"]
    s.close(False)

    def column(name, what):
        s = bad(name, what, "column", columns=True)
        s.csr(x, oracle=False)
        return s

    s = column("column-absent", "column-order names 'ghost', which obs does not hold")
    s.order("obs", "ghost")
    s.close(False)
    s = column("column-too-short", "the obs column 'depth' has 19 values, n_obs is 20")
    del s.f["obs/depth"]
    s.array("obs/depth", np.arange(19))
    s.close(False)
    s = column("categories-absent", "the categorical obs column 'plate' has no categories")
    del s.f["obs/plate/categories"]
    s.close(False)
    s = column("codes-absent", "the categorical obs column 'plate' has no codes")
    del s.f["obs/plate/codes"]
    s.close(False)
    s = column("codes-beyond-categories", "a code of the obs column 'plate' is 3, it has 3 categories")
    s.f["obs/plate/codes"][6] = 3
    s.close(False)
    s = column("codes-below-minus-one", "a code of the obs column 'plate' is -2")
    s.f["obs/plate/codes"][6] = -2
    s.close(False)
    s = column("codes-float", "the codes of the obs column 'plate' are float64")
    del s.f["obs/plate/codes"]
    s.array("obs/plate/codes", np.zeros(n))
    s.close(False)
    s = column("codes-too-short", "the obs column 'plate' has 19 codes, n_obs is 20")
    del s.f["obs/plate/codes"]
    s.array("obs/plate/codes", np.zeros(19, "i1"))
    s.close(False)
    s = column("mask-too-short", "the mask of the nullable obs column 'ni' has 19 values, n_obs is 20")
    encoding(s.f.create_group("obs/ni"), "nullable-integer", "0.1.0")
    s.array("obs/ni/values", np.arange(n))
    s.array("obs/ni/mask", np.arange(19) == 2)
    s.order("obs", "ni")
    s.close(False)
    s = column("string-not-utf-8", "a value of the obs column 'latin' is not UTF-8")
    t = h5py.string_dtype("utf-8", 4)
    encoding(s.f.create_dataset("obs/latin", data=np.array([b"a\xe9"] * n, dtype=t), dtype=t), "string-array", "0.2.0")
    s.order("obs", "latin")
    s.close(False)

    # damage below AnnData
    with open(out_path("bad", "not-hdf5.h5ad"), "w") as f:
        f.write("cell,gene,count\nc0,g0,1\n")
    BAD["not-hdf5.h5ad"] = {"what": "a text file", "when": "open"}
    open(out_path("bad", "empty-file.h5ad"), "w").close()
    BAD["empty-file.h5ad"] = {"what": "a file of 0 bytes", "when": "open"}
    s = bad("hdf5-not-anndata", "HDF5 without obs, var or X", "open", df=False)
    s.f.create_dataset("results/table", data=np.arange(5))
    s.close(False)
    s = bad("truncated", "the second half of the file is gone", "open")
    s.csr(x, oracle=False)
    s.close(False)
    os.truncate(s.path, os.path.getsize(s.path) // 2)

    def damaged(name, what, dataset, chunk, damage, when="read", **kw):
        s = bad(name, what, when)
        g = s.csr(x, oracle=False, each={dataset: dict(kw, chunks=(16,))})
        info = g[dataset].id.get_chunk_info(chunk)
        s.close(False)
        with open(s.path, "r+b") as f:
            f.seek(info.byte_offset)
            raw = f.read(info.size)
            f.seek(info.byte_offset)
            f.write(damage(raw))

    flip = lambda b: b[:len(b) // 2] + bytes([b[len(b) // 2] ^ 0x40]) + b[len(b) // 2 + 1:]  # noqa: E731
    damaged("chunk-gzip-corrupt", "the second chunk of X/indices is no zlib stream", "indices", 1,
            lambda b: b"\xff" * len(b), compression="gzip")
    damaged("chunk-gzip-adler", "the last byte of the second chunk of X/data (its zlib checksum) was changed", "data", 1,
            lambda b: b[:-1] + bytes([b[-1] ^ 1]), compression="gzip")
    damaged("chunk-fletcher32-mismatch", "a bit of the second chunk of X/data was changed; its fletcher32 is old", "data", 1,
            flip, fletcher32=True)
    damaged("chunk-lzf-corrupt", "the second chunk of X/indices is no lzf stream", "indices", 1,
            lambda b: b"\xff" * len(b), compression="lzf")
    s = bad("chunk-decodes-short", "the second chunk of X/data decodes to 8 bytes, not 64 (the HDF5 library itself does not notice)", "read")
    import zlib
    g = s.csr(x, oracle=False, each={"data": dict(chunks=(16,), compression="gzip")})
    g["data"].id.write_direct_chunk((16,), zlib.compress(b"\0" * 8))
    s.close(False)
    s = bad("chunk-decodes-long", "the second chunk of X/data decodes to 4 MiB, not 64 bytes (the HDF5 library itself does not notice)", "read")
    g = s.csr(x, oracle=False, each={"data": dict(chunks=(16,), compression="gzip")})
    g["data"].id.write_direct_chunk((16,), zlib.compress(b"\0" * (4 << 20), 9))
    s.close(False)
    s = bad("filter-unknown", "X/data uses the HDF5 filter 31999, which nobody registered", "read")
    g = s.csr(x, oracle=False, each={"data": dict(chunks=(16,), compression="gzip")})
    del g["data"]
    pl = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    pl.set_obj_track_times(False)
    pl.set_chunk((16,))
    pl.set_filter(31999, h5py.h5z.FLAG_OPTIONAL, ())
    ds = h5py.h5d.create(g.id, b"data", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple(d.shape), dcpl=pl)
    for o in range(0, len(d), 16):
        ds.write_direct_chunk((o,), np.resize(d[o:o + 16], 16).tobytes())
    s.close(False)
    s = bad("link-dangling", "X is a soft link to nothing", "open")
    s.f["X"] = h5py.SoftLink("/layers/gone")
    s.close(False)
    s = bad("link-external", "X is an external link to a file that is not there", "open")
    s.f["X"] = h5py.ExternalLink("elsewhere.h5ad", "/X")
    s.close(False)
    s = bad("link-cycle", "X is a soft link to itself", "open")
    s.f["X"] = h5py.SoftLink("/X")
    s.close(False)
    s = bad("data-external-storage", "X/data lies in another file, which is not there", "read")
    g = s.csr(x, oracle=False)
    del g["data"]
    g.create_dataset("data", shape=d.shape, dtype="f4", external=[("gone.bin", 0, d.nbytes)])
    s.close(False)

    # other formats
    s = bad("loom", "a loom file: genes x cells; say to convert it", "open", df=False, ext=".loom")
    s.f.attrs["LOOM_SPEC_VERSION"] = "3.0.0"
    s.f.create_dataset("matrix", data=np.ascontiguousarray(x.toarray().T))
    s.f.create_dataset("row_attrs/Gene", data=np.array(["g%d" % k for k in range(m)], dtype="S"))
    s.f.create_dataset("col_attrs/CellID", data=np.array(["c%d" % k for k in range(n)], dtype="S"))
    for k in ("layers", "row_graphs", "col_graphs"):
        s.f.create_group(k)
    s.close(False)
    s = bad("tenx-shape-swapped", "a 10x file whose shape is [cells, genes]", "open", df=False, ext=".h5")
    g = s.f.create_group("matrix")
    for k, v in [("data", d), ("indices", i), ("indptr", p), ("shape", np.array([n, m], "i4")),
                 ("barcodes", np.array(["c%d" % k for k in range(n)], "S"))]:
        g.create_dataset(k, data=v)
    for k in ("id", "name"):
        g.create_dataset("features/" + k, data=np.array(["g%d" % k for k in range(m)], "S"))
    s.close(False)
    s = bad("legacy-categories-beyond", "legacy: a code of 'type' is beyond uns/type_categories", "column", df=False)
    obs = np.zeros(n, dtype=[("index", "S4"), ("type", "i1")])
    obs["index"], obs["type"] = [b"c%d" % k for k in range(n)], np.arange(n) % 3
    s.f.create_dataset("obs", data=obs)
    s.f.create_dataset("var", data=np.array([(b"g%d" % k,) for k in range(m)], dtype=[("index", "S4")]))
    s.f.create_dataset("uns/type_categories", data=np.array(["a", "b"], dtype=object), dtype=VLEN)
    g = s.f.create_group("X")
    g.attrs["h5sparse_format"], g.attrs["h5sparse_shape"] = "csr", np.array([n, m])
    for k, v in [("data", d), ("indices", i), ("indptr", p)]:
        g.create_dataset(k, data=v)
    s.close(False)

    dump_pretty(out_path("bad", "expected.json"), BAD)

    # odd, but a reader may read them: the oracle says as what
    odd = {}
    s = Store("indptr-last-short-of-data", n, m, sub="odd", columns=False)
    s.sparse("X", p, np.append(i, [1, 2, 3]).astype("i4"), np.append(d, [9, 9, 9]).astype("f4"), oracle=False)
    s.o["matrices"]["X"] = matrix_json("csr", "f32", (p, i, d))
    s.close()
    odd[s.name + ".h5ad"] = {"what": "data and indices have 3 elements past indptr's last, which no row uses",
                             "when": "open", "may": "refuse, or ignore the elements"}
    s = Store("codes-not-in-order-of-use", n, m, sub="odd", columns=False)
    s.csr(x)
    s.categorical("obs", "twice", np.arange(n) % 3, ["a", "b", "a"])
    s.close()
    odd[s.name + ".h5ad"] = {"what": "the categories of 'twice' repeat: a, b, a", "when": "column",
                             "may": "refuse, or keep the three categories"}
    s = Store("obs-names-repeat", n, m, sub="odd", columns=False)
    s.csr(x)
    s.f["obs/_index"][3] = "c2"
    s.o["obs_names"][3] = "c2"
    s.close()
    odd[s.name + ".h5ad"] = {"what": "two cells are named c2", "when": "open", "may": "read (anndata warns)"}
    s = Store("nullable-without-mask", n, m, sub="odd", columns=False)
    s.csr(x)
    encoding(s.f.create_group("obs/no-mask"), "nullable-integer", "0.1.0")
    s.array("obs/no-mask/values", np.arange(n))
    s.order("obs", "no-mask")
    s.o["obs"]["no-mask"] = {"kind": "nullable-int", "values": list(range(n))}
    s.close()
    odd[s.name + ".h5ad"] = {"what": "a nullable column has no mask; anndata 0.8 reads it, 0.13 does not", "when": "column",
                             "may": "refuse, or take no value as missing"}
    dump_pretty(out_path("odd", "expected.json"), odd)


def dump_pretty(path, value):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, ensure_ascii=False, indent=1, sort_keys=True)
        f.write("\n")


def main():
    global OUT
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--set", choices=["typical", "nullable", "variants"], required=True)
    ap.add_argument("--out", default=OUT)
    args = ap.parse_args()
    OUT = args.out
    if args.set == "typical":
        import anndata
        typical(".".join(anndata.__version__.split(".")[:3]))
    elif args.set == "nullable":
        nullable()
    else:
        for part in (x_dtypes, x_contents, x_storage, containers, columns, legacy, tenx, newest, bads):
            part()


if __name__ == "__main__":
    main()
