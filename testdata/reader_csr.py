"""Reads a raw CSR store with numpy alone, as docs/csr-format.md says: the proof that the document is
enough. Slow, but for plain matrices.

    python3 reader_csr.py NAME.csr      prints the shape, the number of values and their sum
"""

import json
import pathlib
import sys

import numpy as np
import scipy.sparse as sp

TYPES = {"u8": "<u1", "u16": "<u2", "u32": "<u4", "u64": "<u8", "i8": "<i1", "i16": "<i2",
         "i32": "<i4", "i64": "<i8", "f16": "<f2", "f32": "<f4", "f64": "<f8"}
MODES = [None, "u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64", "f16", "f32", "f64"]


def read(folder, key="X"):
    """The matrix as scipy's CSR."""
    folder = pathlib.Path(folder)
    header = json.loads((folder / "header.json").read_text())
    assert header["format"] == "cellfeed-csr" and header["version"] == 1
    m = next(m for m in header["matrices"] if m["key"] == key)

    def column(name, kind):
        if m[name]["bytes"] == 0:
            return np.empty(0, TYPES[kind])
        return np.memmap(folder / m[name]["path"], TYPES[kind], "r")

    indptr = column("indptr", "u64")
    if m["layout"] == "plain":
        indices, data = column("indices", m["index_type"]), column("data", m["value_type"])
    else:
        offsets, rows = column("offsets", "u64"), column("rows", "u8")
        parts = [
            row(bytes(rows[offsets[r]:offsets[r + 1]]), int(indptr[r + 1] - indptr[r]))
            for r in range(header["n_obs"])
        ]
        indices = np.concatenate([genes for genes, _ in parts] or [np.empty(0, int)])
        data = np.concatenate([values for _, values in parts] or [np.empty(0)])
        data = data.astype(TYPES[m["value_type"]])
    shape = (header["n_obs"], m["n_vars"])
    return sp.csr_matrix((data, indices.astype(np.int64), indptr.astype(np.int64)), shape=shape)


def row(body, n):
    """Genes and values of a packed row. The checksum, the first four bytes, is not looked at."""
    mode, at = body[4], 5
    genes, values = [], []
    for start in range(0, n, 128):
        k = min(128, n - start)
        gaps, _, at = block(body, at, k)
        genes += gaps
        if mode == 0:
            counts, flag, at = block(body, at, k)
            values += [v + 1 - flag for v in counts]
    if mode:
        values = np.frombuffer(body, TYPES[MODES[mode]], n, at)
        at += n * values.itemsize
    assert at == len(body)
    return np.cumsum(np.array(genes, np.int64) + 1) - 1, np.asarray(values)


def block(body, at, k):
    """The numbers of a block, its flag, and where it ends."""
    width, flag, exceptions = body[at] & 0x7F, body[at] >> 7, body[at + 1]
    at += 2
    words = -(-(-(-k // 8) * width) // 16)
    lanes = np.frombuffer(body, "<u2", 8 * words, at).reshape(words, 8)
    at += 16 * words
    streams = [sum(int(w) << (16 * j) for j, w in enumerate(lanes[:, lane])) for lane in range(8)]
    numbers = [(streams[i % 8] >> (i // 8 * width)) & ((1 << width) - 1) for i in range(k)]
    for _ in range(exceptions):
        place, shift, high = body[at], 0, 0
        at += 1
        while True:
            byte = body[at]
            at += 1
            high |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        numbers[place] |= high << width
    return numbers, flag, at


if __name__ == "__main__":
    x = read(sys.argv[1])
    print(x.shape, x.nnz, x.data.sum(dtype=np.float64))
