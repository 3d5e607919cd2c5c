"""Lets these tests run where the package is not built: this part of it is Python alone."""

import importlib.util
import pathlib
import sys
import types

if importlib.util.find_spec("cellfeed") is None:
    # A package with the folder's modules and nothing else, for worker processes too.
    folder = pathlib.Path(__file__).parents[2] / "python" / "cellfeed"
    bare = types.ModuleType("cellfeed")
    bare.__path__ = [str(folder)]
    sys.modules["cellfeed"] = bare
