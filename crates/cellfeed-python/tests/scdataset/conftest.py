"""Lets these tests run where the package is not built: this part of it is Python alone."""

import atexit
import importlib.util
import pathlib
import shutil
import sys
import tempfile

if importlib.util.find_spec("cellfeed") is None:
    # A package of nothing else, in a folder, so that spawned processes find it too.
    folder = pathlib.Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    (folder / "cellfeed").mkdir()
    (folder / "cellfeed" / "__init__.py").touch()
    source = pathlib.Path(__file__).parents[2] / "python" / "cellfeed" / "scdataset"
    (folder / "cellfeed" / "scdataset").symlink_to(source)
    sys.path.insert(0, str(folder))
