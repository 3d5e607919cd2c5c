"""Zarr stores that a reader must refuse, and odd ones; `expected.json` says what is wrong with each.

All are v3 with X/data and X/indices in one shard of inner chunks of 16 values, unless said otherwise,
and have little else in them. Part of make_zarr.py.
"""
import json
import os
import shutil
import struct

import google_crc32c
import numpy as np
import scipy.sparse as sp
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, ZstdCodec

from make_h5ad import base, dump_pretty, matrix_json, out_path
from make_zarr import ZStore, encoding, sharded

N, M = 20, 12
BAD = {}
RAW, ZSTD = BytesCodec(), ZstdCodec(level=1)
EMPTY = 2 ** 64 - 1


def bad(name, what, when, **kw):
    BAD[name + ".zarr"] = {"what": what, "when": when}
    return ZStore(name, kw.pop("n", N), kw.pop("m", M), sub="bad", **kw)


def shard_of(length):
    return sharded(16, [RAW, ZSTD], -(-length // 16) * 16)


def change(path, edit):
    """Rewrites a file of a store by a function of its bytes."""
    with open(path, "rb") as f:
        raw = f.read()
    with open(path, "wb") as f:
        f.write(edit(raw))


def change_json(path, edit):
    def edited(raw):
        value = json.loads(raw)
        edit(value)
        return json.dumps(value).encode()
    change(path, edited)


def with_index(raw, edit, chunks, crc=True):
    """A shard with its index of (offset, length) pairs edited, and the index's checksum made anew."""
    at = len(raw) - 16 * chunks - 4
    index = [list(struct.unpack_from("<QQ", raw, at + 16 * i)) for i in range(chunks)]
    edit(index)
    packed = b"".join(struct.pack("<QQ", *entry) for entry in index)
    return raw[:at] + packed + (struct.pack("<I", google_crc32c.value(packed)) if crc else raw[-4:])


def with_chunk(raw, k, edit, chunks):
    """A shard whose k-th inner chunk is another, put behind the others."""
    at = len(raw) - 16 * chunks - 4
    start, size = struct.unpack_from("<QQ", raw, at + 16 * k)
    new = edit(raw[start:start + size])

    def move(index):
        index[k] = [at, len(new)]
    return with_index(raw[:at] + new + raw[at:], move, chunks)


def bads():
    x = base(900, n=N, m=M, density=0.3)
    p, i, d = x.indptr, x.indices, x.data
    chunks = -(-len(d) // 16)
    shard = shard_of(len(d))

    def sparse(name, what, when, p=p, i=i, d=d, edit=None, layout=None, enc="csr", shape=None, **kw):
        s = bad(name, what, when, **kw)
        s.sparse("X", p, i, d, enc, shape or (N, M), **(shard if layout is None else layout))
        s.close(edit)
        return s

    def edited(name, what, when, file, edit, **kw):
        sparse(name, what, when, edit=lambda path: change(os.path.join(path, file), edit), **kw)

    def described(name, what, when, file, edit, **kw):
        sparse(name, what, when, edit=lambda path: change_json(os.path.join(path, file, "zarr.json"), edit), **kw)

    # --- folders that are no AnnData
    for name, what, file, text in [
            ("not-zarr", "a folder with a text file", "cells.csv", "cell,gene,count\n"),
            ("root-not-json", "zarr.json is no JSON", "zarr.json", "{\"zarr_format\": 3, \"node_type\": "),
            ("root-is-array", "the root is an array", "zarr.json", None),
            ("zarr-format-4", "zarr_format is 4", "zarr.json",
             "{\"zarr_format\": 4, \"node_type\": \"group\", \"attributes\": {}}"),
            ("root-empty", "a group without obs, var or X", "zarr.json",
             "{\"zarr_format\": 3, \"node_type\": \"group\", \"attributes\": {}}")]:
        BAD[name + ".zarr"] = {"what": what, "when": "open"}
        path = out_path("bad", name + ".zarr", file)
        if text is None:
            import zarr
            zarr.create_array(os.path.dirname(path), data=np.arange(5), chunks=(5,), overwrite=True)
        else:
            with open(path, "w") as f:
                f.write(text)

    # --- shards
    edited("shard-truncated", "the second half of the shard of X/data is gone", "read", "X/data/c/0",
           lambda b: b[:len(b) // 2])
    edited("shard-shorter-than-index", "the shard of X/data has 10 bytes", "read", "X/data/c/0", lambda b: b[:10])
    edited("shard-empty", "the shard of X/indices has no bytes", "read", "X/indices/c/0", lambda b: b"")
    edited("shard-index-crc", "a bit of the shard index of X/data was changed; its crc32c is old", "read", "X/data/c/0",
           lambda b: with_index(b, lambda index: index[1].__setitem__(0, index[1][0] ^ 1), chunks, crc=False))
    edited("shard-index-crc-itself", "the crc32c of the shard index of X/indices was changed", "read",
           "X/indices/c/0", lambda b: b[:-1] + bytes([b[-1] ^ 1]))
    for name, what, entry in [
            ("outside", "says that the second inner chunk begins 4 KiB past the end", [1 << 20, 40]),
            ("beyond-end", "says that the second inner chunk ends past the end", [30, 1 << 20]),
            ("overflow", "has an offset and a length whose sum is above 2^64", [EMPTY - 4, 40]),
            ("huge", "says that the second inner chunk has 2^60 bytes", [0, 1 << 60]),
            ("half-empty", "has the mark of absence as an offset, and a length", [EMPTY, 40]),
            ("no-bytes", "says that the second inner chunk has no bytes", [0, 0])]:
        edited("shard-index-" + name, "the shard index of X/data " + what, "read", "X/data/c/0",
               lambda b, entry=entry: with_index(b, lambda index: index.__setitem__(1, entry), chunks))
    edited("shard-index-absent-indices", "the shard index of X/indices has no second inner chunk: 16 genes numbered 0",
           "read", "X/indices/c/0", lambda b: with_index(b, lambda index: index.__setitem__(1, [EMPTY] * 2), chunks))
    sparse("shard-missing", "X/indices has no shard file: every gene is numbered 0", "read",
           edit=lambda path: os.remove(os.path.join(path, "X/indices/c/0")))
    sparse("shard-is-folder", "the shard of X/data is a folder", "read",
           edit=lambda path: (os.remove(os.path.join(path, "X/data/c/0")), out_path(path, "X/data/c/0", "x"),
                              open(os.path.join(path, "X/data/c/0", "x"), "w").close()))
    sparse("indptr-missing", "indptr has no chunk: every offset is 0", "read",
           edit=lambda path: shutil.rmtree(os.path.join(path, "X/indptr/c")))

    # --- inner chunks and chunks
    flip = lambda b: b[:len(b) // 2] + bytes([b[len(b) // 2] ^ 0x40]) + b[len(b) // 2 + 1:]  # noqa: E731
    from numcodecs import Zstd
    edited("chunk-zstd-corrupt", "the second inner chunk of X/indices is no zstd frame", "read", "X/indices/c/0",
           lambda b: with_chunk(b, 1, lambda c: b"\xff" * len(c), chunks))
    edited("chunk-decodes-short", "the second inner chunk of X/data decodes to 8 bytes, not 64", "read", "X/data/c/0",
           lambda b: with_chunk(b, 1, lambda c: bytes(Zstd(1).encode(b"\1" * 8)), chunks))
    edited("chunk-decodes-long", "the second inner chunk of X/data decodes to 4 MiB, not 64 bytes", "read", "X/data/c/0",
           lambda b: with_chunk(b, 1, lambda c: bytes(Zstd(9).encode(b"\0" * (4 << 20))), chunks))
    crc = sharded(16, [RAW, Crc32cCodec()], chunks * 16)
    edited("chunk-crc32c-mismatch", "a bit of the second inner chunk of X/data was changed; its crc32c is old", "read",
           "X/data/c/0", lambda b: with_chunk(b, 1, flip, chunks), layout=crc)
    gzip = dict(chunks=(len(d),), compressors=[GzipCodec(level=5)])
    edited("chunk-gzip-corrupt", "not sharded; X/data is no gzip stream", "read", "X/data/c/0",
           lambda b: b"\xff" * len(b), layout=gzip)
    edited("chunk-truncated", "not sharded; the second half of the chunk of X/data is gone", "read", "X/data/c/0",
           lambda b: b[:len(b) // 2], layout=gzip)
    blosc = dict(chunks=(len(d),), compressors=[BloscCodec(cname="lz4", clevel=5, shuffle="shuffle", typesize=4)])
    edited("chunk-blosc-huge", "not sharded; the blosc header of X/data says that it decodes to 2 GiB - 17", "read",
           "X/data/c/0", lambda b: b[:4] + struct.pack("<I", 2 ** 31 - 17) + b[8:], layout=blosc)
    edited("chunk-blosc-corrupt", "not sharded; behind the blosc header of X/indices is 0xff", "read", "X/indices/c/0",
           lambda b: b[:16] + b"\xff" * (len(b) - 16), layout=blosc)
    edited("chunk-blosc-short", "not sharded; 10 bytes are left of a blosc chunk of X/data", "read", "X/data/c/0",
           lambda b: b[:10], layout=blosc)
    plain = dict(chunks=(len(d),), compressors=None)
    edited("chunk-plain-short", "not sharded, not compressed; the chunk of X/data lacks 4 bytes", "read", "X/data/c/0",
           lambda b: b[:-4], layout=plain)
    sparse("chunk-missing", "not sharded; X/indices has no chunk: every gene is numbered 0", "read", layout=plain,
           edit=lambda path: os.remove(os.path.join(path, "X/indices/c/0")))
    import numcodecs
    edited("v2-lz4-huge", "v2; the lz4 header of X/data says that it decodes to 2 GiB - 1", "read", "X/data/0",
           lambda b: struct.pack("<I", 2 ** 31 - 1) + b[4:], fmt=2,
           layout=dict(chunks=(len(d),), compressors=numcodecs.LZ4()))

    # --- what arrays say of themselves
    def set_to(*path):
        *names, last, value = path

        def edit(meta):
            for name in names:
                meta = meta[name]
            meta[last] = value
        return edit

    described("array-shape-huge", "X/data and X/indices say that they have 2^60 values, in chunks of 2^60", "open",
              "X/data", lambda m: (set_to("shape", [2 ** 60])(m), set_to("chunk_grid", "configuration", "chunk_shape",
                                                                       [2 ** 60])(m)))
    described("chunk-shape-zero", "X/data has chunks of 0 values", "open", "X/data",
              set_to("chunk_grid", "configuration", "chunk_shape", [0]))
    described("chunk-shape-rank-2", "X/data has one dimension, its chunks two", "open", "X/data",
              set_to("chunk_grid", "configuration", "chunk_shape", [16, 1]))
    described("inner-does-not-divide", "inner chunks of X/data have 15 values, shards %d" % (chunks * 16), "open",
              "X/data", set_to("codecs", 0, "configuration", "chunk_shape", [15]))
    described("inner-shape-zero", "inner chunks of X/data have 0 values", "open", "X/data",
              set_to("codecs", 0, "configuration", "chunk_shape", [0]))
    described("dtype-unknown", "X/data has the data type 'float31'", "open", "X/data", set_to("data_type", "float31"))
    described("codec-unknown", "inner chunks of X/data have the codec 'squeeze'", "read", "X/data",
              set_to("codecs", 0, "configuration", "codecs", 1, {"name": "squeeze", "configuration": {}}))
    described("node-type-odd", "X/indices has the node type 'table'", "open", "X/indices", set_to("node_type", "table"))

    # --- X
    def x_attributes(name, what, **attributes):
        def edit(meta):
            for key, value in attributes.items():
                key = key.replace("_", "-") if key.startswith("encoding") else key
                if value is None:
                    del meta["attributes"][key]
                else:
                    meta["attributes"][key] = value
        described(name, what, "open", "X", edit)

    x_attributes("x-encoding-unknown", "X has the encoding-type 'coo_matrix'", encoding_type="coo_matrix")
    x_attributes("x-encoding-absent", "X is a group without encoding-type", encoding_type=None)
    x_attributes("x-without-shape", "X has no attribute shape", shape=None)
    x_attributes("shape-negative", "the attribute shape of X is [-20, 12]", shape=[-20, 12])
    x_attributes("shape-rank-3", "the attribute shape of X is [20, 12, 1]", shape=[20, 12, 1])
    x_attributes("shape-huge", "the attribute shape of X is [2^60, 12]", shape=[2 ** 60, 12])
    x_attributes("shape-strings", "the attribute shape of X is text", shape="20x12")
    for k in ("indptr", "data"):
        sparse("x-without-" + k, "X has no " + k, "open",
               edit=lambda path, k=k: shutil.rmtree(os.path.join(path, "X", k)))
    sparse("indices-shorter-than-data", "indices has 3 values less than data", "open", i=i[:-3])
    sparse("indptr-too-short", "X has 20 rows, indptr has 20 values, not 21", "open", p=p[:-1])
    sparse("indptr-too-long", "X has 20 rows, indptr has 22 values, not 21", "open", p=np.append(p, p[-1]))
    sparse("indptr-float", "indptr is float64", "open", p=p.astype("f8"))
    q = p.copy()
    q[5], q[6] = q[6], q[5] - 1
    sparse("indptr-falls", "indptr[6] is less than indptr[5]", "read", p=q)
    q = p.copy()
    q[-1] += 5
    sparse("indptr-last-beyond-data", "indptr ends at %d, data has %d values" % (q[-1], len(d)), "read", p=q)
    sparse("indptr-not-from-zero", "indptr starts at 2, not 0", "read", p=np.where(np.arange(N + 1) == 0, 2, p))
    q = p.astype("i8")
    q[3] = -4
    sparse("indptr-negative", "indptr[3] is -4", "read", p=q)
    q = p.astype("i8")
    q[8] = 2 ** 62
    sparse("indptr-huge", "indptr[8] is 2^62", "read", p=q)
    j = i.copy()
    j[p[5] - 1] = M
    sparse("index-beyond-n-vars", "a row has the index 12, n_vars is 12", "read", i=j)
    j = i.copy()
    j[p[3]] = -1
    sparse("index-negative", "a row has the index -1", "read", i=j)
    row = int(np.argmax(np.diff(p)))
    j = i.copy()
    j[p[row] + 1] = j[p[row]]
    sparse("index-duplicated", "row %d has the index %d twice, side by side" % (row, j[p[row]]), "read", i=j)
    j = i.copy()
    j[p[row] + 2] = j[p[row]]
    sparse("index-duplicated-unsorted", "row %d, not sorted, has the index %d twice, apart" % (row, j[p[row]]), "read",
           i=j)
    c = sp.csc_matrix(x)
    j = c.indices.copy()
    j[c.indptr[2]] = N
    sparse("csc-index-beyond-n-obs", "CSC: column 2 has the row 20, n_obs is 20", "read", c.indptr, j, c.data, enc="csc")
    sparse("data-two-dimensional", "data has two dimensions", "open", d=np.stack([d, d]),
           layout={}, edit=None)
    sparse("data-complex", "data is complex64", "open", d=d.astype("c8"), layout={})
    s = bad("dense-three-dimensional", "dense X has three dimensions", "open")
    s.array("X", np.ones((N, M, 2), "f4"))
    s.close()
    s = bad("dense-strings", "dense X holds strings", "open")
    encoding(s.array("X", ["x"] * N), "array", "0.2.0")
    s.close()

    # --- obs
    sparse("obs-shorter-than-x", "obs has 19 cells, X has 20 rows", "open", n=19)
    sparse("var-longer-than-x", "var has 13 genes, X has 12 columns", "open", m=13)
    sparse("obs-absent", "the store has no obs", "open", edit=lambda path: shutil.rmtree(os.path.join(path, "obs")))
    sparse("obs-index-absent", "obs names '_index' as its index, which is not there", "open",
           edit=lambda path: shutil.rmtree(os.path.join(path, "obs/_index")))

    def column(name, what):
        s = bad(name, what, "column", column=True)
        s.sparse("X", p, i, d, shape=(N, M), **shard)
        return s

    s = column("column-absent", "column-order names 'ghost', which obs does not hold")
    s.columns["obs"].append("ghost")
    s.close()
    s = column("column-escapes", "column-order names '../var/_index'")
    s.columns["obs"].append("../var/_index")
    s.close()
    s = column("column-too-short", "the obs column 'depth' has 19 values, n_obs is 20")
    s.column("obs", "depth", np.arange(19))
    s.close()
    s = column("codes-beyond-categories", "a code of the obs column 'plate' is 3, it has 3 categories")
    s.f["obs/plate/codes"][6] = 3
    s.close()
    s = column("codes-too-short", "the obs column 'plate' has 20 codes, then 19")
    BAD["codes-too-short.zarr"]["what"] = "the obs column 'plate' has 19 codes, n_obs is 20"
    s.close(lambda path: change_json(os.path.join(path, "obs/plate/codes/zarr.json"), set_to("shape", [19])))
    s = column("categories-absent", "the categorical obs column 'plate' has no categories")
    s.close(lambda path: shutil.rmtree(os.path.join(path, "obs/plate/categories")))
    s = column("mask-too-short", "the mask of the nullable obs column 'ni' has 19 values, n_obs is 20")
    encoding(s.f.create_group("obs/ni"), "nullable-integer", "0.1.0")
    s.array("obs/ni/values", np.arange(N))
    s.array("obs/ni/mask", np.arange(19) == 2)
    s.columns["obs"].append("ni")
    s.close()

    def texts(name, what, edit):
        s = column(name, what)
        s.column("obs", "text", ["t%d" % k for k in range(N)], compressors=None)
        s.close(lambda path: change(os.path.join(path, "obs/text/c/0"), edit))

    texts("text-not-utf-8", "a value of the obs column 'text' is not UTF-8", lambda b: b[:8] + b"\xff\xfe" + b[10:])
    texts("text-count-huge", "the chunk of the obs column 'text' says that it has 2^31 - 1 values",
          lambda b: struct.pack("<I", 2 ** 31 - 1) + b[4:])
    texts("text-count-short", "the chunk of the obs column 'text' says that it has 3 values, not 20",
          lambda b: struct.pack("<I", 3) + b[4:])
    texts("text-length-outside", "a value of the obs column 'text' says that it has 2^31 - 1 bytes",
          lambda b: b[:4] + struct.pack("<I", 2 ** 31 - 1) + b[8:])
    dump_pretty(out_path("bad", "expected.json"), BAD)

    # --- odd, but a reader may read them: the oracle says as what
    odd = {}
    s = ZStore("shard-missing-data", N, M, sub="odd")
    s.sparse("X", p, i, d, shape=(N, M), **shard)
    s.o["matrices"]["X"] = matrix_json("csr", "f32", (p, i, np.zeros_like(d)))
    s.close(lambda path: os.remove(os.path.join(path, "X/data/c/0")))
    odd[s.name + ".zarr"] = {"what": "X/data has no shard file: by the specification every value is 0", "when": "read",
                             "may": "refuse, or read zeros"}
    s = ZStore("consolidated-stale", N, M, sub="odd")
    s.sparse("X", p, i, d, shape=(N, M), **shard)
    s.o["matrices"]["X"] = matrix_json("csr", "f32", (p, i, d))
    s.column("obs", "depth", np.arange(N) * 7)
    s.close()
    shutil.rmtree(os.path.join(s.path, "obs/depth"))
    odd[s.name + ".zarr"] = {"what": "consolidated metadata has the obs column 'depth', whose array is gone",
                             "when": "column", "may": "refuse the column, or read zeros"}
    s.o["obs"]["depth"]["values"] = [0] * N
    from make_h5ad import dump
    dump(out_path("odd", s.name + ".oracle.json"), s.o)
    dump_pretty(out_path("odd", "expected.json"), odd)
