#!/usr/bin/env python3
"""Write small AnnData Zarr stores, each with an oracle, for tests that need no Python.

    python make_zarr.py --set typical  --out zarr    in an environment per anndata version
    python make_zarr.py --set variants --out zarr    the newest anndata, zarr and annbatch

`make.sh` makes the environments and runs all of these. Everything is synthetic and seeded. The first
set must run on Python 3.8 and zarr 2. Counts, tables and oracles are those of make_h5ad.py.
"""
import argparse
import json
import os

import numpy as np
import pandas as pd
import scipy.sparse as sp
import zarr

import make_h5ad as h5
from make_h5ad import (base, canonical_csr, counts, dense_csr, dump, dump_pretty, matrix_json, oracle_of, out_path,
                       scalar, value_type)

ZARR = tuple(int(x) for x in zarr.__version__.split(".")[:2])


# ---------------------------------------------------------------------------------------------
# stores that anndata writes; the oracle is what the same anndata reads back

def anndata_version():
    import anndata
    return ".".join(anndata.__version__.split(".")[:3])


def read_back(name):
    import anndata
    path = out_path(name + ".zarr")
    back = getattr(anndata, "read_zarr", None) or anndata.io.read_zarr
    a = back(path)
    dump(out_path(name + ".oracle.json"), oracle_of(zarr.open(path, mode="r"), a,
                                                    "anndata %s, zarr %s" % (anndata_version(), zarr.__version__)))


def write_zarr(name, a, **kw):
    path = out_path(name + ".zarr")
    kw.pop("compression", None)  # of HDF5
    a.write_zarr(path, **kw)
    read_back(name)


def typical():
    """What make_h5ad.py writes, as Zarr: v2 by all, v3 by those that can."""
    import anndata
    version = anndata_version()
    v = tuple(int(x) for x in version.split(".")[:2])
    if v < (0, 12):
        h5.write_anndata = lambda name, a, **kw: write_zarr(name + "-v2", a, **kw)
        return h5.typical(version)

    def both(name, a, **kw):
        # v3 as it comes: sharded by 0.13, not by 0.12.
        anndata.settings.zarr_write_format = 3
        write_zarr(name + "-v3", a, **kw)
        # The other way, and v2, with less in it.
        less = anndata.AnnData(a.X, obs=a.obs.iloc[:, :1].copy(), var=a.var.iloc[:, :0].copy())
        if name.endswith(version):
            anndata.settings.auto_shard_zarr_v3 = v < (0, 13)
            write_zarr(name + ("-v3-sharded" if v < (0, 13) else "-v3-unsharded"), less)
            anndata.settings.reset("auto_shard_zarr_v3")
            anndata.settings.zarr_write_format = 2
            write_zarr(name + "-v2", less)

    h5.write_anndata = both
    h5.typical(version)


# ---------------------------------------------------------------------------------------------
# stores written by hand with zarr-python; the oracle comes from the arrays that were written

class ZStore:
    """A store in the layout of anndata 0.12, with the parts that a caller wants otherwise."""

    def __init__(self, name, n=37, m=23, sub="", fmt=3, column=False, frames=True, consolidated=True):
        self.name, self.n, self.m, self.sub, self.fmt, self.consolidated = name, n, m, sub, fmt, consolidated
        self.path = out_path(*[p for p in (sub, name + ".zarr") if p])
        self.f = zarr.open_group(self.path, mode="w", zarr_format=fmt)
        self.columns = {"obs": [], "var": []}
        self.o = {"n_obs": n, "n_vars": m, "matrices": {}, "obs_names": ["c%d" % i for i in range(n)],
                  "var_names": ["g%d" % i for i in range(m)], "obs": {}, "var": {}}
        encoding(self.f, "anndata", "0.1.0")
        if frames:
            for axis in ("obs", "var"):
                g = self.f.create_group(axis)
                encoding(g, "dataframe", "0.2.0")
                g.attrs["_index"] = "_index"
                self.array(axis + "/_index", self.o[axis + "_names"])
            if column:
                self.categorical("obs", "plate", [-1 if i % 10 == 7 else i * 3 // max(n, 1) for i in range(n)],
                                 ["p0", "p1", "p2"])

    def array(self, path, values, note=True, **kw):
        """An array with AnnData's attributes; `kw` goes to create_array. One chunk, unless it says else."""
        text = isinstance(values, list) and (not values or isinstance(values[0], str))
        if text:
            values = np.array(values, dtype=object)
            kw.setdefault("dtype", str)
        else:
            values = np.asarray(values)
            kw.setdefault("dtype", values.dtype)
        kw.setdefault("chunks", tuple(max(1, n) for n in values.shape))
        a = self.f.create_array(path, shape=values.shape, **kw)
        if values.size:
            a[...] = values
        if note:
            encoding(a, "string-array" if text else "array", "0.2.0")
        return a

    def column(self, axis, name, values, kind=None, **kw):
        self.columns[axis].append(name)
        self.array(axis + "/" + name, values, **kw)
        if kind is None:
            kind = {"i": "int", "u": "int", "f": "float", "b": "bool"}.get(np.asarray(values).dtype.kind, "string")
        self.o[axis][name] = {"kind": kind, "values": [scalar(x) for x in values]}

    def categorical(self, axis, name, codes, categories, ordered=False, codes_dtype="i1"):
        self.columns[axis].append(name)
        g = self.f.create_group(axis + "/" + name)
        encoding(g, "categorical", "0.2.0")
        g.attrs["ordered"] = bool(ordered)
        self.array(axis + "/" + name + "/codes", np.asarray(codes, dtype=codes_dtype))
        self.array(axis + "/" + name + "/categories", categories)
        cats, codes = [scalar(c) for c in categories], [int(c) for c in codes]
        self.o[axis][name] = {"kind": "categorical", "values": [None if c < 0 else cats[c] for c in codes],
                              "codes": codes, "categories": cats, "ordered": bool(ordered)}

    def sparse(self, path, indptr, indices, data, enc="csr", shape=None, each=None, **kw):
        """`kw` is for data and indices; `each` replaces it for one of the three arrays."""
        shape = shape or (self.n, self.m)
        g = self.f.create_group(path)
        encoding(g, enc + "_matrix", "0.1.0")
        g.attrs["shape"] = list(shape)
        for k, v in (("data", data), ("indices", indices), ("indptr", indptr)):
            args = dict((each or {}).get(k, {} if k == "indptr" else kw))
            self.array(path + "/" + k, v, note=False, **args)
        if not self.sub:
            self.o["matrices"][path] = matrix_json(enc, value_type(np.asarray(data).dtype),
                                                   canonical_csr(enc, shape, indptr, indices, data))
        return g

    def csr(self, x, path="X", dtypes=("i4", "i4"), **kw):
        return self.sparse(path, x.indptr.astype(dtypes[0]), x.indices.astype(dtypes[1]), x.data, shape=x.shape, **kw)

    def dense(self, a, path="X", oracle=None, **kw):
        array = self.array(path, a, **kw)
        a = a if oracle is None else oracle
        self.o["matrices"][path] = matrix_json("dense", value_type(a.dtype), dense_csr(a))
        return array

    def layers(self):
        encoding(self.f.create_group("layers"), "dict", "0.1.0")

    def close(self, edit=None):
        """Writes column orders and consolidated metadata; `edit` is run on the folder before the latter."""
        for axis, names in self.columns.items():
            if axis in self.f and "column-order" not in self.f[axis].attrs:
                self.f[axis].attrs["column-order"] = names
        if edit:
            edit(self.path)
        if self.consolidated and self.sub == "bad" and self.fmt == 3:
            consolidate(self.path)
        elif self.consolidated:
            import warnings
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that v3's is not in the specification yet
                zarr.consolidate_metadata(self.path)
        if self.sub != "bad":
            self.o["writer"] = "by hand with zarr %s (oracle from the arrays written)" % zarr.__version__
            dump(out_path(*[p for p in (self.sub, self.name + ".oracle.json") if p]), self.o)


def consolidate(path):
    """Puts all metadata into the root's, also what zarr-python refuses."""
    metadata = {}
    for folder, _, files in sorted(os.walk(path)):
        if folder != path and "zarr.json" in files:
            with open(os.path.join(folder, "zarr.json")) as f:
                metadata[os.path.relpath(folder, path)] = json.load(f)
    with open(os.path.join(path, "zarr.json")) as f:
        root = json.load(f)
    root["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": metadata}
    with open(os.path.join(path, "zarr.json"), "w") as f:
        json.dump(root, f)


def encoding(e, kind, version):
    e.attrs.update({"encoding-type": kind, "encoding-version": version})


def sharded(inner, codecs, shard, index_crc=True, location="end", order="morton"):
    """Arguments of create_array for shards, every codec spelt out."""
    from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec
    inner, shard = (x if isinstance(x, tuple) else (x,) for x in (inner, shard))
    index = [BytesCodec(), Crc32cCodec()] if index_crc else [BytesCodec()]
    return {"chunks": shard, "filters": None, "compressors": None,
            "serializer": ShardingCodec(chunk_shape=inner, codecs=codecs, index_codecs=index, index_location=location,
                                        subchunk_write_order=order)}


def layouts():
    from zarr.codecs import BloscCodec, BytesCodec, GzipCodec, TransposeCodec, ZstdCodec
    raw = BytesCodec()
    lz4 = BloscCodec(cname="lz4", clevel=3, shuffle="shuffle", typesize=4)
    zstd = ZstdCodec(level=3)

    s = ZStore("v3-csr-plain", column=True)
    s.csr(base(200), compressors=None)
    s.close()
    s = ZStore("v3-csr-chunks", column=True)
    s.csr(base(201), chunks=(41,), compressors=[zstd], each={"indptr": dict(chunks=(10,), compressors=[zstd])})
    s.close()
    s = ZStore("v3-csr-sharded", column=True)
    shards = sharded(16, [raw, lz4], 64)
    s.csr(base(202), **shards, each={"indptr": sharded(8, [raw, lz4], 24)})
    s.close()
    # 5 values in each row, so that inner chunks begin with a row
    s = ZStore("v3-csr-sharded-row-aligned", n=96)
    rng = np.random.RandomState(203)
    cols = np.sort(np.argsort(rng.rand(96, 23), axis=1)[:, :5], axis=1)
    s.sparse("X", np.arange(97, dtype="i4") * 5, cols.ravel().astype("u2"), rng.geometric(0.6, 480).astype("f4"),
             **sharded(80, [raw, zstd], 240))
    s.close()
    s = ZStore("v3-csr-sharded-index-at-start")
    s.csr(base(204), **sharded(16, [raw, zstd], 64, location="start", order="lexicographic"))
    s.close()
    s = ZStore("v3-csr-sharded-index-without-crc")
    s.csr(base(205), **sharded(16, [raw, GzipCodec(level=4)], 256, index_crc=False))
    s.close()
    # explicit zeros whose inner chunks, and one shard, are not written
    s = ZStore("v3-csr-explicit-zeros-not-written")
    x = base(206)
    x.data[16:48] = 0
    x.data[64:128] = 0
    s.csr(x, **sharded(16, [raw, zstd], 64))
    s.close()
    s = ZStore("v3-csc-sharded")
    c = sp.csc_matrix(base(207))
    s.sparse("X", c.indptr, c.indices, c.data, "csc", **sharded(16, [raw, zstd], 64))
    s.close()
    a = base(208).toarray()
    s = ZStore("v3-dense-chunks")
    s.dense(a, chunks=(10, 12), compressors=[zstd])
    s.close()
    s = ZStore("v3-dense-sharded")
    s.dense(a, **sharded((4, 23), [raw, lz4], (20, 23)))
    s.layers()
    s.dense(a, "layers/tiles", **sharded((5, 6), [raw, zstd], (20, 12)))
    s.close()
    # chunks and inner chunks that are not there have the fill value
    s = ZStore("v3-dense-not-written")
    b = a.copy()
    b[4:12] = 0
    b[20:] = 0
    s.dense(b, chunks=(10, 23), compressors=[zstd])
    s.layers()
    s.dense(b, "layers/sharded", **sharded((4, 23), [raw, zstd], (20, 23)))
    s.dense(np.where(b == 0, np.float32(2.5), b), "layers/filled", fill_value=2.5, chunks=(20, 23))
    s.close()
    s = ZStore("v3-not-consolidated", column=True, consolidated=False)
    s.csr(base(210))
    s.close()
    s = ZStore("v2-not-consolidated", column=True, consolidated=False, fmt=2)
    s.csr(base(211))
    s.close()
    s = ZStore("v2-csr-chunks", column=True, fmt=2)
    s.csr(base(212), chunks=(41,))
    s.close()
    s = ZStore("v2-dense-keys-with-slash", fmt=2)
    s.dense(a, chunks=(20, 12), chunk_key_encoding={"name": "v2", "separator": "/"})
    s.layers()
    s.dense(a, "layers/by-columns", order="F")
    s.dense(a.astype(">f8"), "layers/big-endian")
    s.close()
    s = ZStore("v3-dense-odd-metadata")
    s.dense(a, chunks=(20, 12), chunk_key_encoding={"name": "v2", "separator": "."})
    s.layers()
    s.dense(a, "layers/big-endian", serializer=BytesCodec(endian="big"))
    s.dense(a, "layers/by-columns", filters=[TransposeCodec(order=(1, 0))])
    s.dense(a, "layers/keys-with-dot", chunks=(20, 12), chunk_key_encoding={"name": "default", "separator": "."})
    s.close()


def codecs():
    """A dense layer for each codec: two files each."""
    from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, ZstdCodec
    a = base(230).toarray()
    raw = BytesCodec()
    compressors = {
        "blosc-lz4": [BloscCodec(cname="lz4", clevel=3, shuffle="shuffle", typesize=4)],
        "blosc-lz4hc": [BloscCodec(cname="lz4hc", clevel=5, shuffle="noshuffle", typesize=4)],
        "blosc-zstd-bitshuffle": [BloscCodec(cname="zstd", clevel=5, shuffle="bitshuffle", typesize=4)],
        "blosc-zlib": [BloscCodec(cname="zlib", clevel=5, shuffle="shuffle", typesize=4)],
        "blosc-blosclz": [BloscCodec(cname="blosclz", clevel=5, shuffle="shuffle", typesize=4)],
        "blosc-stored": [BloscCodec(cname="lz4", clevel=0, shuffle="shuffle", typesize=4)],
        "zstd": [ZstdCodec(level=3)],
        "zstd-checksum": [ZstdCodec(level=3, checksum=True)],
        "gzip": [GzipCodec(level=6)],
        "crc32c": [Crc32cCodec()],
        "zstd-crc32c": [ZstdCodec(level=1), Crc32cCodec()],
    }
    s = ZStore("v3-codecs")
    s.dense(a, compressors=None)
    s.layers()
    for name, chain in compressors.items():
        s.dense(a, "layers/" + name, compressors=chain)
    s.close()
    s = ZStore("v3-codecs-sharded")
    s.dense(a, **sharded((8, 23), [raw], (40, 23)))
    s.layers()
    for name, chain in compressors.items():
        s.dense(a, "layers/" + name, **sharded((8, 23), [raw, *chain], (40, 23)))
    s.close()
    import numcodecs
    s = ZStore("v2-codecs", fmt=2)
    s.dense(a, compressors=None)
    s.layers()
    for name, codec in {
        "blosc-lz4": numcodecs.Blosc("lz4", 5, 1), "blosc-zstd": numcodecs.Blosc("zstd", 3, 2),
        "zstd": numcodecs.Zstd(3), "gzip": numcodecs.GZip(5), "zlib": numcodecs.Zlib(5), "lz4": numcodecs.LZ4(),
    }.items():
        s.dense(a, "layers/" + name, compressors=codec)
    s.close()


def types():
    s = ZStore("v3-layers-of-all-value-types")
    s.csr(base(240))
    s.layers()
    for i, t in enumerate("u1 i1 u2 i2 u4 i4 u8 i8 f2 f4 f8 b1".split()):
        x = base(241 + i, {"f2": "f4", "b1": "u1"}.get(t, t), density=0.1).toarray()
        s.dense(np.minimum(x, 60000).astype(t) if t == "f2" else x.astype(t), "layers/" + value_type(t))
    s.close()
    s = ZStore("v3-layers-of-index-types")
    s.layers()
    for j, (p, i) in enumerate([("i8", "i8"), ("i4", "u2"), ("u8", "u4"), ("i4", "u1")]):
        s.csr(base(130, density=0.1), "layers/indptr-%s-indices-%s" % (value_type(p), value_type(i)) if j else "X",
              dtypes=(p, i))
    s.close()
    s = ZStore("v3-csr-u64-beyond-f64")
    x = base(120, "u8")
    x.data[[0, 5, 9]] = np.array([2 ** 53 + 1, 2 ** 63 + 5, 2 ** 64 - 1], dtype="u8")
    s.csr(x)
    s.close()
    s = ZStore("v3-csr-f32-nan-inf")
    x = base(121)
    x.data[[0, 5, 9, 11]] = [np.nan, np.inf, -np.inf, -0.0]
    s.csr(x)
    s.close()
    s = ZStore("v3-csr-unsorted-rows")
    x = base(122)
    for r in range(37):
        x.indices[x.indptr[r]:x.indptr[r + 1]] = x.indices[x.indptr[r]:x.indptr[r + 1]][::-1].copy()
    s.csr(x, **sharded(16, [zarr.codecs.BytesCodec()], 64))
    s.close()


def ends():
    """The small ends."""
    for name, n, m in [("no-rows", 0, 5), ("no-genes", 5, 0), ("no-rows-no-genes", 0, 0), ("no-nonzeros", 5, 3)]:
        s = ZStore("v3-csr-" + name, n=n, m=m)
        s.csr(sp.csr_matrix((n, m), dtype="f4"))
        s.close()
    s = ZStore("v3-dense-no-rows", n=0, m=5)
    s.dense(np.zeros((0, 5), "f4"))
    s.close()
    s = ZStore("v3-csr-one-cell-one-gene", n=1, m=1)
    s.csr(sp.csr_matrix(np.ones((1, 1), "f4")))
    s.close()
    s = ZStore("v3-x-absent", column=True)
    s.close()
    s = ZStore("v3-x-null")
    encoding(s.array("X", np.zeros((), "f4"), note=False), "null", "0.1.0")
    s.close()


def tables():
    s = ZStore("v3-obs-more-kinds")
    s.csr(base(260))
    n = s.n
    s.categorical("obs", "by-int", np.arange(n) % 3, np.array([30, 10, 20]))
    s.categorical("obs", "by-float", np.arange(n) % 2, np.array([0.5, 1.5]), codes_dtype="i2")
    s.categorical("obs", "by-bool", np.arange(n) % 2, np.array([False, True]), ordered=True, codes_dtype="i4")
    s.categorical("obs", "many", np.arange(n) * 5 % 200, ["k%03d" % i for i in range(200)], codes_dtype="i2")
    s.column("obs", "u64", np.arange(n).astype("u8") + 2 ** 63)
    s.column("obs", "f32", (np.arange(n) / 4).astype("f4"))
    s.column("obs", "i8", (np.arange(n) - 20).astype("i1"))
    s.column("obs", "sharded", np.arange(n) * 7, **sharded(8, [zarr.codecs.BytesCodec()], 24))
    s.column("obs", "text chunks", ["é%d" % i for i in range(n)], chunks=(20,))
    s.column("obs", "empty texts", [""] * n)
    s.columns["obs"].append("matrix")
    s.array("obs/matrix", np.zeros((n, 2)))
    s.o["obs"]["matrix"] = {"kind": "unreadable", "values": []}
    s.close()
    # as anndata 0.6 wrote: obs and var are structured arrays
    s = ZStore("v2-obs-structured", fmt=2, frames=False)
    s.csr(base(261))
    del s.f.attrs["encoding-type"], s.f.attrs["encoding-version"]
    for k in ("encoding-type", "encoding-version"):
        del s.f["X"].attrs[k]
    obs = np.zeros(37, dtype=[("index", "S4"), ("depth", "i8"), ("score", "f4")])
    obs["index"], obs["depth"], obs["score"] = [b"c%d" % i for i in range(37)], np.arange(37) * 3, np.arange(37) / 8
    var = np.array([(b"g%d" % i,) for i in range(23)], dtype=[("index", "S4")])
    s.f.attrs.clear()
    s.f["X"].attrs.clear()
    s.f["X"].attrs.update({"h5sparse_format": "csr", "h5sparse_shape": [37, 23]})
    for axis, table in (("obs", obs), ("var", var)):
        s.f.create_array(axis, data=table, chunks=table.shape)
    s.o["obs"] = {"depth": {"kind": "int", "values": [int(x) for x in obs["depth"]]},
                  "score": {"kind": "float", "values": [float(x) for x in obs["score"]]}}
    s.close()


def annbatch_collection():
    """Two datasets as annbatch keeps them; the oracle is of both, one after the other."""
    import anndata
    import annbatch
    from importlib.metadata import version
    from annbatch.io import V1_ENCODING, write_sharded
    name = "annbatch-collection"
    path = out_path(name + ".zarr")
    root = zarr.open_group(path, mode="w", zarr_format=3)
    parts = []
    for k, n in enumerate((40, 25)):
        rng = np.random.RandomState(270 + k)
        obs = pd.DataFrame({"plate": pd.Categorical.from_codes(rng.randint(0, 3, n), ["p0", "p1", "p2"]),
                            "depth": rng.randint(0, 99, n)}, index=["c%d-%d" % (k, i) for i in range(n)])
        a = anndata.AnnData(counts(rng, n, 23), obs=obs, var=pd.DataFrame(index=["g%d" % i for i in range(23)]))
        group = root.create_group("dataset_%d" % k)
        write_sharded(root, a, n_obs_per_chunk=8, shard_size=16, key="dataset_%d" % k)
        parts.append(anndata.io.read_elem(root["dataset_%d" % k]))
    root.attrs.update(V1_ENCODING)
    # What the collection itself says that it holds.
    assert len(list(annbatch.DatasetCollection(path, mode="r"))) == 2
    whole = anndata.concat(parts, merge="same")
    o = oracle_of(zarr.open(path, mode="r")["dataset_0"], whole,
                  "annbatch %s, anndata %s, zarr %s" % (annbatch.__version__ if hasattr(annbatch, "__version__")
                                                        else version("annbatch"), version("anndata"), zarr.__version__))
    dump(out_path(name + ".oracle.json"), o)


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--set", choices=["typical", "variants"], required=True)
    ap.add_argument("--out", default="zarr")
    args = ap.parse_args()
    h5.OUT = args.out
    if args.set == "typical":
        typical()
    else:
        from make_zarr_bad import bads
        for part in (layouts, codecs, types, ends, tables, annbatch_collection, bads):
            part()


if __name__ == "__main__":
    main()
