"""What testdata/reader_parquet.py reads of a file that the writer's test wrote, beside what it was given.

    python3 check_written.py FILE.parquet FACTS.json ...

Exits with the first difference.
"""

import json
import math
import os
import pathlib
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "testdata"))
import reader_parquet as reader  # noqa: E402


def fail(*what):
    sys.exit(" ".join(map(str, what)))


def number(value):
    names = {"NaN": math.nan, "inf": math.inf, "-inf": -math.inf}
    return names[value] if isinstance(value, str) else float(value)


def same(want, got):
    if want is None or got is None:
        return want is got
    if isinstance(got, bool) or isinstance(got, str):
        return want == got
    if isinstance(got, int):
        return int(want) == got
    want = number(want)
    return want == got and math.copysign(1, want) == math.copysign(1, got) or (
        math.isnan(want) and math.isnan(got))


def frame(path, name, entry, want, names):
    index, columns = reader.table(path, entry)
    if names != index:
        fail(name, "index", index[:5])
    if [c for c, _ in want] != list(columns):
        fail(name, "columns", list(columns))
    for column, values in want:
        got = columns[column]
        got = got[0] if isinstance(got, tuple) else got
        if len(got) != len(values):
            fail(name, column, len(got), "values")
        for row, (a, b) in enumerate(zip(values, got)):
            if not same(a, b):
                fail(f"{name}/{column}, row {row}: {a!r} and {b!r}")


def main(path, facts):
    facts = json.load(open(facts, encoding="utf-8"))
    head = reader.header(path)
    if [m["key"] for m in head["matrices"]] != facts["keys"]:
        fail("matrices", head["matrices"])
    for key, want in facts["matrices"].items():
        got = reader.matrix(path, key)
        if got.shape != (facts["n_obs"], want["n_vars"]):
            fail(key, "shape", got.shape)
        if list(got.indptr) != want["indptr"] or list(got.indices) != want["indices"]:
            fail(key, "indptr or indices")
        data = np.array([number(v) for v in want["data"]], dtype=np.float64)
        if not np.array_equal(got.data.astype(np.float64), data, equal_nan=True):
            fail(key, "values")
    frame(path, "obs", head["obs"], facts["obs"], facts["obs_names"])
    frame(path, "var", head["var"], facts["var"], facts["var_names"])
    if facts["raw_var"]:
        frame(path, "raw/var", head["raw_var"], facts["raw_var"], facts["raw_var_names"])


if __name__ == "__main__":
    arguments = iter(sys.argv[1:])
    for path in arguments:
        try:
            main(path, next(arguments))
        except SystemExit as e:
            sys.exit(f"{path}: {e}")
    # Without the interpreter's goodbyes: in some of pyarrow's threads they end in an abort.
    os._exit(0)
