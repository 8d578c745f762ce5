"""The wheel that pip builds holds the whole package, and works without the checkout."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from dira_monai import __version__

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built in a copy, so that no build folder stays in the checkout."""
    copy = tmp_path_factory.mktemp("source")
    shutil.copytree(ROOT / "dira_monai", copy / "dira_monai", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    build = "from setuptools import build_meta; build_meta.build_wheel('dist')"  # as pip calls it
    done = subprocess.run([sys.executable, "-c", build], cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return next((copy / "dist").iterdir())


def test_the_wheel_holds_every_file_of_the_package(wheel):
    assert wheel.name == f"dira_monai-{__version__}-py3-none-any.whl"
    files = {path for path in (ROOT / "dira_monai").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    with zipfile.ZipFile(wheel) as opened:
        packed = {name for name in opened.namelist() if ".dist-info/" not in name}
    assert packed == {path.relative_to(ROOT).as_posix() for path in files}


def test_the_wheel_runs_without_the_checkout(wheel, stranger, tmp_path):
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(tmp_path)
    done = stranger("-c", "import dira_monai; print(dira_monai.__file__, dira_monai.InputError)", cwd=tmp_path)
    assert done.stdout.split()[0] == str(tmp_path / "dira_monai/__init__.py"), done.stderr
    listed = stranger("-m", "dira_monai", "--help", cwd=tmp_path)
    assert "datalist" in listed.stderr
