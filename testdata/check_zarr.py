#!/usr/bin/env python3
"""Read every Zarr test store again with the newest anndata, and compare with its oracle.

    python check_zarr.py [zarr]

Of each bad store it says what anndata makes of it, for information; only its being listed in
expected.json is checked. Ends with status 1 if anything differs. The comparison is check.py's.
"""
import json
import os
import sys
import warnings

import anndata
import zarr

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = sys.argv[1] if len(sys.argv) > 1 else os.path.join(HERE, "zarr")
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


def main():
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
