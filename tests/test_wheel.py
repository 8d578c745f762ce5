"""The wheel that pip builds holds the whole package, and works without the checkout."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from running import load

from dira_monai import __version__

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built in a copy, so that no build folder stays in the checkout."""
    copy = tmp_path_factory.mktemp("source")
    for folder in ("dira_monai", "bundles"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    (copy / "bundles/dira_pretrain_2d/models/model.pt").write_text("a run of the user")
    build = "from setuptools import build_meta; build_meta.build_wheel('dist')"  # as pip calls it
    done = subprocess.run([sys.executable, "-c", build], cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return next((copy / "dist").iterdir())


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The folder that pip installs the wheel to."""
    folder = tmp_path_factory.mktemp("installed")
    words = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", folder, wheel]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def typed(installed, stranger, tmp_path):
    """Runs a command line of the installed console script in an empty folder, without the checkout."""

    def run(*words, **options):
        done = stranger(installed / "bin/dira-monai", *words, cwd=tmp_path, path=[installed], **options)
        assert done.returncode == 0, done.stderr
        return done

    return run


def shipped():
    """The files of the bundles without what runs leave in them, by their paths in the repository."""
    files = [path.relative_to(ROOT) for path in (ROOT / "bundles").rglob("*") if path.is_file()]
    kinds = {"LICENSE", "configs", "docs"}
    return {path.as_posix() for path in files if path.parts[2] in kinds or path.name == ".gitkeep"}


def test_the_wheel_holds_every_file_of_the_package_and_the_bundles(wheel):
    assert wheel.name == f"dira_monai-{__version__}-py3-none-any.whl"
    files = {path for path in (ROOT / "dira_monai").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    with zipfile.ZipFile(wheel) as opened:
        packed = {name for name in opened.namelist() if ".dist-info/" not in name}
    bundles = {name.replace("bundles/", "dira_monai/_bundles/", 1) for name in shipped()}
    assert packed == {path.relative_to(ROOT).as_posix() for path in files} | bundles


def test_the_wheel_runs_without_the_checkout(installed, stranger, typed):
    code = "import dira_monai; print(dira_monai.__file__, dira_monai.InputError)"
    done = stranger("-c", code, path=[installed], fresh=True)
    assert done.stdout.split()[0] == str(installed / "dira_monai/__init__.py"), done.stderr
    assert "datalist" in typed("--help", fresh=True).stderr


def test_the_wheel_gives_its_bundles(typed, tmp_path):
    typed("bundles", "copies")
    copies = {f"bundles/{p.relative_to(tmp_path / 'copies')}" for p in (tmp_path / "copies").rglob("*") if p.is_file()}
    assert copies == shipped()
    assert all((tmp_path / "copies" / name[8:]).read_bytes() == (ROOT / name).read_bytes() for name in copies)


def test_the_wheel_pre_trains_on_a_folder(typed, tmp_path):
    typed("phantom", "scans", "--kind", "xray", "--count", "4")
    small = {
        "patch_size": "[64, 64]",
        "network_def#backbone": "resnet10",
        "batch_size": 2,
        "epoch_length": 2,
        "max_epochs": 1,
        "val_samples": 2,
        "queue_size": 8,
        "discriminator_channels": 4,
    }
    typed("pretrain", "scans/images", "--run", "run", *(f"--{name}={value}" for name, value in small.items()))
    assert len(load(tmp_path / "run/models/model.pt")) > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "scans"]
