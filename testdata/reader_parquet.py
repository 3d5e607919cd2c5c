"""Reads a Cellfeed Parquet store with pyarrow alone, as docs/parquet-format.md says: the proof that the
document is enough.

    python3 reader_parquet.py NAME.parquet      prints the shape, the number of values and their sum
"""

import io
import json
import os
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp

TYPES = {"u8": "<u1", "u16": "<u2", "u32": "<u4", "u64": "<u8", "i8": "<i1", "i16": "<i2",
         "i32": "<i4", "i64": "<i8", "f16": "<f2", "f32": "<f4", "f64": "<f8"}


def header(path):
    text = pq.read_metadata(path).metadata[b"cellfeed"]
    head = json.loads(text)
    assert head["version"] == 1
    return head


def matrix(path, key="X"):
    """The matrix as scipy's CSR."""
    head = header(path)
    m = next(m for m in head["matrices"] if m["key"] == key)
    columns = pq.read_table(path, columns=[m["indices"], m["data"]])
    parts = []
    for name, kind in ((m["indices"], m["index_type"]), (m["data"], m["value_type"])):
        column = columns[name].combine_chunks()
        if m["layout"] == "blob":
            rows = [np.frombuffer(v.as_py(), TYPES[kind]) for v in column]
            values = np.concatenate(rows or [np.empty(0, TYPES[kind])])
            lengths = [len(r) for r in rows]
        else:
            values = column.flatten().to_numpy(zero_copy_only=False)
            lengths = column.value_lengths().to_numpy(zero_copy_only=False)
        parts.append((values.astype(TYPES[kind]), lengths))
    (indices, lengths), (data, other) = parts
    assert list(lengths) == list(other)
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    assert indptr[-1] == m["nnz"]
    shape = (head["n_obs"], m["n_vars"])
    if data.dtype == np.float16:  # which scipy does not have
        data = data.astype(np.float32)
    return sp.csr_matrix((data, indices.astype(np.int64), indptr), shape=shape)


def embedded(path, extent):
    with open(path, "rb") as file:
        file.seek(extent["offset"])
        return pq.read_table(io.BytesIO(file.read(extent["bytes"])))


def table(path, entry):
    """Names of the rows, and columns by name as lists; of categories, as (labels, categories)."""
    whole = embedded(path, entry["file"]) if entry.get("file") else pq.read_table(path)
    assert whole.num_rows == entry["n_rows"] or not whole.num_columns

    def values(column):
        found = whole[column["column"]].to_pylist()
        if column["kind"] != "categorical":
            return found
        categories = embedded(path, column["categories"]).column(0).to_pylist()
        if pa.types.is_integer(whole.schema.field(column["column"]).type):
            found = [None if code is None else categories[code] for code in found]
        assert {v for v in found if v is not None} <= set(categories)
        return found, categories

    index = values(entry["index"]) if entry.get("index") else []
    return index, {c["name"]: values(c) for c in entry["columns"]}


if __name__ == "__main__":
    x = matrix(sys.argv[1])
    print(*x.shape, x.nnz, x.sum(), flush=True)
    # Without the interpreter's goodbyes: in some of pyarrow's threads they end in an abort.
    os._exit(0)
