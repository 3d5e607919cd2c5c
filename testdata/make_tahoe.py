"""Writes folders as Tahoe-100M is published: shards `data/train-NNNNN-of-NNNNN.parquet` of a row a cell
(`genes`, `expressions`, obs fields as columns), and `metadata/gene_metadata.parquet`.

    python3 make_tahoe.py fixtures DIR            the small ones of testdata/parquet, with their oracle
    python3 make_tahoe.py atlas FILE.h5ad DIR [--cells N] [--shard 28225] [--group 1000]
                                                  a large one, of an AnnData file, for benchmarks

Shards are written as Hugging Face's datasets writes them: snappy, dictionaries, row groups of 1,000 rows,
no page index. Needs pyarrow and numpy; for an atlas h5py and anndata.
"""

import argparse
import json
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

MARKER, MARKER_VALUE, FIRST_TOKEN = 1, -2.0, 3
FIELDS = ["drug", "sample", "BARCODE_SUB_LIB_ID", "cell_line_id", "moa-fine", "canonical_smiles",
          "pubchem_cid", "plate"]


def cells(indptr, tokens, values, obs):
    """A table of cells, each with its marker put before it."""
    n = len(indptr) - 1
    lengths = np.diff(indptr)
    offsets = np.concatenate([[0], np.cumsum(lengths + 1)]).astype(np.int32)
    heads = offsets[:-1]
    genes = np.empty(offsets[-1], np.int64)
    data = np.empty(offsets[-1], np.float32)
    rest = np.ones(offsets[-1], bool)
    rest[heads] = False
    genes[heads], data[heads] = MARKER, MARKER_VALUE
    genes[rest], data[rest] = tokens, values
    columns = {"genes": pa.ListArray.from_arrays(offsets, genes),
               "expressions": pa.ListArray.from_arrays(offsets, data)}
    for name in FIELDS:
        assert len(obs[name]) == n
        columns[name] = pa.array(obs[name], pa.string())
    return pa.table(columns)


def gene_metadata(names, symbols, tokens):
    return pa.table({"gene_symbol": symbols, "ensembl_id": names,
                     "token_id": pa.array(tokens, pa.int64())})


def fields(rows, plates):
    """Obs fields of made-up cells."""
    drugs = ["DMSO_TF", "naïve µ-drug", "Trametinib", "Bortezomib"]
    drug = [drugs[r // 7 % 4] for r in rows]
    return {
        "drug": drug,
        "sample": [f"smp_{1500 + r // 11}" for r in rows],
        "BARCODE_SUB_LIB_ID": [f"01_{r % 97:03}_{r:06}-lib_{r % 3}" for r in rows],
        "cell_line_id": [f"CVCL_{r * 7919 % 13:04}" for r in rows],
        "moa-fine": [None if r % 5 == 0 else "unclear" for r in rows],
        "canonical_smiles": ["CC(=O)N" + "C" * (r % 4) for r in rows],
        "pubchem_cid": [str(11707110 + r // 7 % 4) for r in rows],
        "plate": [f"plate{1 + r * plates // max(rows.stop, 1)}" for r in rows],
    }


def fixtures(target):
    """One small data set in several ways of writing it, with one oracle."""
    rng = np.random.default_rng(20250601)
    n_obs, n_vars = 61, 90
    # Tokens as the real table has them: in order, with gaps; but the table's rows in no order.
    tokens = np.sort(rng.choice(np.arange(FIRST_TOKEN, 200), n_vars, replace=False))
    tokens = rng.permutation(tokens)
    names = [f"ENSG{i:011}" for i in range(n_vars)]
    symbols = [f"G{i}" if i % 9 else "" for i in range(n_vars)]
    indptr, columns, values = [0], [], []
    for row in range(n_obs):
        n = {0: 0, 5: n_vars, n_obs - 1: 1}.get(row, int(rng.integers(0, 40)))
        found = rng.choice(n_vars, n, replace=False)
        # Every third cell in the order of tokens, the others in none.
        columns.append(found[np.argsort(tokens[found])] if row % 3 == 0 else found)
        values.append(rng.integers(1, 9, n).astype(np.float32))
        indptr.append(indptr[-1] + n)
    flat = np.concatenate(columns)
    obs = fields(range(n_obs), 3)
    target.mkdir(parents=True, exist_ok=True)
    table = cells(np.array(indptr), tokens[flat], np.concatenate(values), obs)
    write_oracle(target / "tahoe.oracle.json", n_obs, indptr, columns, values, obs, names, symbols,
                 tokens)
    genes = gene_metadata(names, symbols, tokens)
    for folder in [target, target / "tahoe" / "metadata"]:
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(genes, folder / "gene_metadata.parquet")
    data = target / "tahoe" / "data"
    data.mkdir(exist_ok=True)
    for shard, (start, stop) in enumerate([(0, 25), (25, 26), (26, 61)]):
        pq.write_table(table.slice(start, stop - start), data / f"train-{shard:05}-of-00003.parquet",
                       row_group_size=10)
    # Small pages and a dictionary that ends, in one row group, without an index.
    pq.write_table(table, target / "tahoe-small-pages.parquet", data_page_size=64, write_batch_size=13,
                   dictionary_pagesize_limit=200, write_statistics=False)
    # Version 2 of pages, with a page index and checksums.
    pq.write_table(table, target / "tahoe-v2.parquet", data_page_version="2.0", compression="zstd",
                   write_page_index=True, write_page_checksum=True, data_page_size=300,
                   write_batch_size=3, row_group_size=40)
    # No dictionaries, no compression, 32-bit genes.
    plain = table.set_column(0, "genes", table["genes"].cast(pa.list_(pa.int32())))
    pq.write_table(plain, target / "tahoe-plain.parquet", use_dictionary=False, compression="none",
                   write_page_index=True, data_page_size=100, write_batch_size=4,
                   write_statistics=False)
    bad(target / "bad", table, tokens)


def write_oracle(path, n_obs, indptr, columns, values, obs, names, symbols, tokens):
    order = [np.argsort(c) for c in columns]
    text = lambda v: {"kind": "string", "values": list(v)}
    oracle = {
        "n_obs": n_obs, "n_vars": len(names),
        "matrices": {"X": {
            "encoding": "csr", "value_type": "f32", "indptr": indptr,
            "indices": [int(c) for cs, o in zip(columns, order) for c in cs[o]],
            "data": [float(v) for vs, o in zip(values, order) for v in vs[o]]}},
        "obs_names": obs["BARCODE_SUB_LIB_ID"], "var_names": names,
        "obs": {f: text(obs[f]) for f in FIELDS if f != "BARCODE_SUB_LIB_ID"},
        "var": {"gene_symbol": text(symbols),
                "token_id": {"kind": "int", "values": [int(t) for t in tokens]}},
        "writer": f"pyarrow {pa.__version__}",
    }
    path.write_text(json.dumps(oracle, ensure_ascii=False) + "\n")


def bad(target, table, tokens):
    """Files that must be refused, and where: row, and words of the message."""
    target.mkdir(parents=True, exist_ok=True)
    genes, values = table["genes"].to_pylist(), table["expressions"].to_pylist()
    missing = next(t for t in range(FIRST_TOKEN, 200) if t not in set(tokens))
    expected = {}

    def case(name, row, words, change):
        g, v = [list(x) for x in genes], [list(x) for x in values]
        change(g, v)
        out = table.set_column(0, "genes", pa.array(g, pa.list_(pa.int64())))
        out = out.set_column(1, "expressions", pa.array(v, pa.list_(pa.float32())))
        out = out.slice(0, 30).select(["genes", "expressions", "plate"])
        pq.write_table(out, target / f"{name}.parquet", row_group_size=10)
        expected[f"{name}.parquet"] = {"row": row, "words": words}

    def set_to(row, place, gene, value):
        def change(g, v):
            if gene is not ...:
                g[row][place] = gene
            if value is not ...:
                v[row][place] = value
        return change

    def whole(row, gene, value):
        def change(g, v):
            g[row], v[row] = gene, value
        return change

    case("null-gene", 12, ["null"], set_to(12, 2, None, ...))
    case("null-value", 12, ["null"], set_to(12, 2, ..., None))
    case("null-cell", 13, ["null"], whole(13, None, None))
    case("empty-cell", 13, ["marker"], whole(13, [], []))
    case("no-marker", 17, ["marker"], set_to(17, 0, int(tokens[0]), 1.0))
    case("marker-of-another-value", 17, ["marker"], set_to(17, 0, ..., 1.0))
    case("marker-twice", 5, ["marker"], set_to(5, 3, MARKER, ...))
    case("unknown-token", 5, ["token"], set_to(5, 3, int(missing), ...))
    case("token-past-the-table", 5, ["token"], set_to(5, 3, 10**12, ...))
    case("token-below-zero", 5, ["token"], set_to(5, 3, -7, ...))
    case("gene-twice", 5, ["twice"], lambda g, v: g[5].__setitem__(3, g[5][4]))
    case("fewer-values", None, ["genes", "expressions"], lambda g, v: v[5].pop())

    def shifted(g, v):
        v[5].pop()
        v[6].append(1.0)

    case("other-lengths", 5, ["gene indices"], shifted)
    (target / "expected.json").write_text(json.dumps(expected) + "\n")


def atlas(source, target, n, shard_rows, group):
    """A large folder from the X of an AnnData file; obs columns become fields as far as they are there."""
    import anndata
    import h5py
    with h5py.File(source) as file:
        x = file["X"]
        n_all, n_vars = (int(v) for v in x.attrs["shape"])
        n = min(n or n_all, n_all)
        indptr = x["indptr"][: n + 1].astype(np.int64)
        obs = anndata.io.read_elem(file["obs"]).iloc[:n]
        names = list(anndata.io.read_elem(file["var"]).index)
        data = target / "data"
        data.mkdir(parents=True, exist_ok=True)
        (target / "metadata").mkdir(exist_ok=True)
        pq.write_table(gene_metadata(names, names, np.arange(n_vars) + FIRST_TOKEN),
                       target / "metadata" / "gene_metadata.parquet")
        shards = -(-n // shard_rows)
        for shard in range(shards):
            rows = range(shard * shard_rows, min((shard + 1) * shard_rows, n))
            ends = indptr[rows.start : rows.stop + 1]
            span = slice(int(ends[0]), int(ends[-1]))
            made_up = fields(range(rows.start, rows.stop), 14)
            own = {f: list(obs[f].astype(str)[rows.start : rows.stop]) for f in FIELDS if f in obs}
            table = cells(ends - ends[0], x["indices"][span].astype(np.int64) + FIRST_TOKEN,
                          x["data"][span].astype(np.float32), made_up | own)
            pq.write_table(table, data / f"train-{shard:05}-of-{shards:05}.parquet",
                           row_group_size=group)
            print(f"{shard + 1} of {shards} shards", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    small = commands.add_parser("fixtures")
    small.add_argument("dir", type=pathlib.Path)
    large = commands.add_parser("atlas")
    large.add_argument("h5ad")
    large.add_argument("dir", type=pathlib.Path)
    large.add_argument("--cells", type=int)
    large.add_argument("--shard", type=int, default=28_225)
    large.add_argument("--group", type=int, default=1_000)
    a = parser.parse_args()
    if a.command == "fixtures":
        fixtures(a.dir)
    else:
        atlas(a.h5ad, a.dir, a.cells, a.shard, a.group)
