"""Writes stores of our own Parquet layout with pyarrow, as docs/parquet-format.md says, and bad ones: the
proof that the document is enough to write by.

    python3 make_parquet.py DIR        the small ones of testdata/parquet, with their oracle

Needs pyarrow, numpy and xxhash.
"""

import io
import json
import pathlib
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash


def embed(file, table):
    """Puts a Parquet file at the end of what is written so far."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    data = buffer.getvalue()
    offset = file.tell()
    file.write(data)
    return {"offset": offset, "bytes": len(data), "xxh3": xxhash.xxh3_64(data).hexdigest()}


def column(file, name, kind, categories=None, ordered=None):
    entry = {"name": name, "column": name, "kind": kind, "unsigned": name == "big"}
    if categories is not None:
        entry |= {"categories": embed(file, pa.table({"categories": categories})),
                  "ordered": ordered}
    return entry


def store(path, table, layout, value_type, n_vars, obs, var, nnz, change=lambda head: None,
          damage=lambda text: text, **options):
    """A file of a table with the columns `indices` and `data` and the obs columns; `obs` and `var` are
    (name, kind, categories, ordered) each, `var` with its table."""
    group = options.pop("row_group_size", 20)
    # What goes into the file beside the columns must go through pyarrow's stream, which counts.
    with open(path, "wb") as out, pa.PythonFile(out, mode="w") as file:
        writer = pq.ParquetWriter(file, table.schema, **options)
        writer.write_table(table, row_group_size=group)
        head = {
            "version": 1, "writer": f"pyarrow {pa.__version__}", "n_obs": table.num_rows,
            "matrices": [{
                "key": "X", "layout": layout, "indices": "indices", "data": "data",
                "n_vars": n_vars, "nnz": nnz, "index_type": "u16", "value_type": value_type}],
            "obs": {"n_rows": table.num_rows, "index": column(file, "cell", "string"),
                    "columns": [column(file, *c) for c in obs]},
            "var": {"n_rows": n_vars, "file": embed(file, var[0]),
                    "index": column(file, "gene", "string"),
                    "columns": [column(file, *c) for c in var[1]]},
            "a member of another version": 1,
        }
        change(head)
        text = json.dumps(head)
        writer.add_key_value_metadata({
            "cellfeed": damage(text), "cellfeed.xxh3": xxhash.xxh3_64(text.encode()).hexdigest()})
        writer.close()


def main(target):
    target.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(20250602)
    n_obs, n_vars = 53, 40
    rows = []
    for row in range(n_obs):
        n = {0: 0, 7: n_vars, n_obs - 1: 0}.get(row, int(rng.integers(0, 20)))
        genes = rng.choice(n_vars, n, replace=False)
        rows.append((genes, rng.integers(0, 5, n) + rng.choice([0, 0.5], n)))
    ordered = [(g[np.argsort(g)], v[np.argsort(g)]) for g, v in rows]
    nnz = sum(len(g) for g, _ in rows)
    stages = ["late", "early", "never", "middle"]
    values = {
        "cell": [f"cell-{r}µ" for r in range(n_obs)],
        "stage": [None if r % 6 == 5 else stages[r * 5 % 3] for r in range(n_obs)],
        "code": [r * 7 % 2 for r in range(n_obs)],
        "word": [None if r % 4 == 3 else f"w{r % 5}" for r in range(n_obs)],
        "count": [None if r % 9 == 0 else r - 20 for r in range(n_obs)],
        "big": [2**63 + r for r in range(n_obs)],
        "score": [[0.25, float("nan"), float("-inf"), None][r % 4] for r in range(n_obs)],
        "kept": [[True, False, None][r % 3] for r in range(n_obs)],
    }
    types = {"code": pa.int32(), "count": pa.int16(), "big": pa.uint64(), "score": pa.float32()}
    obs = [("stage", "categorical", stages, True), ("code", "categorical", ["a", "a"], False),
           ("word", "string"), ("count", "integer"), ("big", "integer"), ("score", "float"),
           ("kept", "boolean")]
    names = [f"gene-{g}" for g in range(n_vars)]
    lengths = [None if g % 7 == 0 else 1000 + g for g in range(n_vars)]
    var = (pa.table({"gene": names, "length": lengths}), [("length", "integer")])

    def table(genes, data):
        columns = {"indices": genes, "data": data}
        for name, found in values.items():
            columns[name] = pa.array(found, types.get(name))
        return pa.table(columns)

    def lists(rows, index_type, list_of=pa.list_):
        return (pa.array([list(map(int, g)) for g, _ in rows], list_of(index_type)),
                pa.array([list(map(float, v)) for _, v in rows], list_of(pa.float32())))

    def blobs(rows, index="<u2", value="<f4"):
        return (pa.array([g.astype(index).tobytes() for g, _ in rows], pa.binary()),
                pa.array([v.astype(value).tobytes() for _, v in rows], pa.binary()))

    write = lambda name, t, layout, **options: store(
        target / f"{name}.parquet", t, layout, "f32", n_vars, obs, var, nnz, **options)
    # As pyarrow writes by default: dictionaries, snappy, no page index; rows in no order.
    write("own-lists", table(*lists(rows, pa.uint16())), "list")
    # Large lists of 64-bit genes in pages of version 2, with a page index and other page limits.
    write("own-lists-v2", table(*lists(ordered, pa.int64(), pa.large_list)), "list",
          data_page_version="2.0", compression="zstd", write_page_index=True, data_page_size=64,
          write_batch_size=4, write_statistics=False)
    write("own-blobs", table(*blobs(ordered)), "blob", use_dictionary=["stage", "word"],
          compression="lz4", write_page_index=True, data_page_size=100, write_batch_size=3,
          write_statistics=False)
    write("own-blobs-no-index", table(*blobs(ordered)), "blob", use_dictionary=False,
          compression="none", data_page_size=100, write_batch_size=3, write_statistics=False)
    write_oracle(target / "own.oracle.json", n_obs, n_vars, ordered, values, obs, names, lengths)
    bad(target / "bad-own", lists, blobs)


def write_oracle(path, n_obs, n_vars, rows, values, obs, names, lengths):
    kinds = {"integer": "nullable-int", "boolean": "nullable-bool"}

    def one(found, kind, categories=None, ordered=None):
        text = [str(v) if isinstance(v, float) and v not in (0.25,) else v for v in found]
        entry = {"kind": kinds.get(kind, kind), "values": text}
        if categories is not None:
            codes = [-1 if c is None else c if isinstance(c, int) else categories.index(c)
                     for c in found]
            entry |= {"values": [None if c < 0 else categories[c] for c in codes],
                      "codes": codes, "categories": categories, "ordered": ordered}
        return entry

    oracle = {
        "n_obs": n_obs, "n_vars": n_vars,
        "matrices": {"X": {
            "encoding": "csr", "value_type": "f32",
            "indptr": [0] + [int(n) for n in np.cumsum([len(g) for g, _ in rows])],
            "indices": [int(g) for genes, _ in rows for g in genes],
            "data": [float(v) for _, data in rows for v in data]}},
        "obs_names": values["cell"], "var_names": names,
        "obs": {name: one(values[name], *rest) for name, *rest in obs},
        "var": {"length": one(lengths, "integer")},
        "writer": f"pyarrow {pa.__version__}",
    }
    path.write_text(json.dumps(oracle, ensure_ascii=False) + "\n")


def bad(target, lists, blobs):
    """Stores of six cells that must be refused: when opened, or when a row is read."""
    target.mkdir(parents=True, exist_ok=True)
    good = [(np.arange(r, r + 3), np.ones(3)) for r in range(6)]
    expected = {}

    def case(name, words, row=None, kind="corrupt", arrays=None, layout="list", **options):
        genes, data = arrays or lists(good, pa.uint16())
        table = pa.table({"indices": genes, "data": data, "cell": list("abcdef")})
        var = (pa.table({"gene": [f"g{i}" for i in range(9)]}), [])
        store(target / f"{name}.parquet", table, layout, "f32", 9, [], var, 18,
              **{"row_group_size": 4} | options)
        expected[f"{name}.parquet"] = {"words": words, "row": row, "kind": kind}

    def with_row(row, genes, values=(1, 1, 1)):
        rows = list(good)
        rows[row] = (np.array(genes), np.array(values))
        return rows

    def with_null(side):
        both = [a.to_pylist() for a in lists(good, pa.uint16())]
        both[side][4][1] = None
        return [pa.array(b, pa.list_(t)) for b, t in zip(both, (pa.uint16(), pa.float32()))]

    u16 = pa.uint16()
    case("gene-past-the-last", ["9", "n_vars"], 4, arrays=lists(with_row(4, [1, 2, 9]), u16))
    case("gene-twice", ["twice"], 4, arrays=lists(with_row(4, [1, 2, 1]), u16))
    case("gene-twice-blob", ["twice"], 4, arrays=blobs(with_row(4, [1, 2, 2])), layout="blob",
         use_dictionary=False)
    case("null-gene", ["null"], 4, arrays=with_null(0))
    case("null-value", ["null"], 4, arrays=with_null(1))
    other = with_row(4, [1, 2, 3], [1, 1])
    other[5] = (other[5][0], np.ones(4))
    case("other-lengths", ["gene indices"], 4, arrays=lists(other, u16))
    case("fewer-values", ["17 at most"], arrays=lists(with_row(4, [1, 2, 3], [1, 1]), u16))
    odd = blobs(good)[0].to_pylist()
    odd[4] = odd[4][:5]
    case("odd-bytes", ["whole number"], 4, arrays=(pa.array(odd, pa.binary()), blobs(good)[1]),
         layout="blob", use_dictionary=False)
    case("blobs-by-dictionary", ["plain"], 4, "unsupported", blobs(good), "blob")
    case("gzip", ["gzip"], 4, "unsupported", compression="gzip")
    case("newer", ["version 2"], kind="unsupported", change=lambda h: h.update(version=2))
    case("other-rows", ["another tool"], change=lambda h: h.update(n_obs=7))
    case("no-column", ["another tool"], change=lambda h: h["matrices"][0].update(data="x"))
    case("other-type", ["f64"], change=lambda h: h["matrices"][0].update(value_type="f64"))
    case("damaged-genes", ["checksum"],
         change=lambda h: h["var"]["file"].update(xxh3="0" * 16))
    case("damaged-metadata", ["checksum"], damage=lambda text: text.replace("18", "17"))
    case("genes-outside", ["outside"],
         change=lambda h: h["var"]["file"].update(offset=2**40))
    (target / "expected.json").write_text(json.dumps(expected) + "\n")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
