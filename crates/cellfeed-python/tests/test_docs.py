"""The first program of the documentation runs as it stands there."""

import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("name", ["README.md", "docs/python.md"])
def test_the_quick_start_runs(name, tmp_path):
    path = ROOT / name
    if not path.exists():
        pytest.skip(f"{name} is not here; this is not the repository")
    text = path.read_text()
    command = re.search(r"^cellfeed (generate atlas\.h5ad [-\w ]+)", text[text.index("pip install") :], re.M)
    subprocess.run([sys.executable, "-m", "cellfeed", *command[1].split()], cwd=tmp_path, check=True)
    program = re.search(r"```python\n(.*?)```", text[text.index(command[0]) :], re.S)[1]
    assert "import cellfeed" in program and "optimizer.step()" in program
    # With what it came to, which it does not print everywhere.
    program += "\nassert loss.item() < 3.9, loss\n"
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
