#!/bin/sh
# Make testdata/h5ad and testdata/zarr anew: one environment per anndata version, all under $VENVS.
# Needs python3.7, 3.8, 3.9, 3.11 and 3.12 on PATH (or named by PY37 ... PY312) and PyPI.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/h5ad}
zarr=${2:-$here/zarr}
VENVS=${VENVS:-$(mktemp -d)}
export PYTHONDONTWRITEBYTECODE=1

env_of() { # name python packages...
    name=$1 python=$2
    shift 2
    if [ ! -x "$VENVS/$name/bin/python" ]; then
        "$python" -m venv "$VENVS/$name"
        "$VENVS/$name/bin/pip" install -q --disable-pip-version-check --only-binary=:all: "$@"
    fi
}

write() { # name set [format]
    echo "$1: $2"
    "$VENVS/$1/bin/python" -W ignore "$here/make_${3:-h5ad}.py" --set "$2" --out "$new"
}

env_of a06 "${PY37:-python3.7}" anndata==0.6.22.post1 h5py==2.10.0 numpy==1.19.5 pandas==0.25.3 scipy==1.5.4
env_of a07 "${PY38:-python3.8}" anndata==0.7.8 h5py==3.7.0 numpy==1.23.5 pandas==1.4.4 scipy==1.9.3 zarr==2.16.1 numcodecs==0.12.1
env_of a08 "${PY39:-python3.9}" anndata==0.8.0 h5py==3.8.0 numpy==1.23.5 pandas==1.5.3 scipy==1.10.1 zarr==2.18.2 numcodecs==0.12.1
env_of a010 "${PY311:-python3.11}" anndata==0.10.9 h5py==3.16.0 numpy==1.26.4 pandas==2.2.3 scipy==1.17.1 zarr==2.18.7 numcodecs==0.15.2
env_of a011 "${PY311:-python3.11}" anndata==0.11.4 h5py==3.16.0 numpy==2.4.6 pandas==2.3.3 scipy==1.17.1 zarr==2.18.7 numcodecs==0.15.2
env_of a012 "${PY312:-python3.12}" anndata==0.12.19 mudata==0.4.1 h5py==3.16.0 numpy==2.5.5 pandas==2.3.3 scipy==1.18.1 zarr==3.4.2 numcodecs==0.17.1
env_of a013 "${PY312:-python3.12}" anndata==0.13.4 hdf5plugin==7.1.0 h5py==3.16.0 numpy==2.5.5 pandas==3.1.1 scipy==1.18.1 \
    zarr==3.4.2 numcodecs==0.17.1 annbatch==0.3.1 google-crc32c==1.9.0

new=$(mktemp -d)
for v in a06 a07 a08 a010 a011 a012 a013; do write $v typical; done
write a012 nullable
write a013 variants
(cd "$new" && find . -type f | sed 's|^\./||' | LC_ALL=C sort | xargs sha256sum) >"$new.sums"
mv "$new.sums" "$new/SHA256SUMS"
chmod -R u=rwX,go=rX "$new"
"$VENVS/a013/bin/python" "$here/check.py" "$new"
rm -rf "$out"
mv "$new" "$out"

new=$(mktemp -d)
for v in a07 a08 a010 a011 a012 a013; do write $v typical zarr; done
write a013 variants zarr
chmod -R u=rwX,go=rX "$new"
"$VENVS/a013/bin/python" -W ignore "$here/check_zarr.py" "$new"
rm -rf "$zarr"
mv "$new" "$zarr"
