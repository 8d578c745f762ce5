"""Settings and fixtures of all tests, for the processes that run them."""

import importlib
import os
import sys
from functools import cache, partial
from pathlib import Path

import finetune_bundle
import monai.bundle
import monai.networks.nets.basic_unet
import pretrain_bundle
import pytest
import torch
from monai.bundle.config_item import ComponentLocator
from programs import run_python
from running import execute

from dira_monai.__main__ import main

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
monai.networks.nets.basic_unet.print = lambda *words: None  # MONAI 1.6.0 prints a line a network, 1.6.1 does not
look_through_modules = cache(partial(ComponentLocator._find_classes_or_functions, None))
# MONAI looks through all of its modules for each parser of a configuration, which takes long where it is called often
ComponentLocator._find_classes_or_functions = lambda self, names: look_through_modules(tuple(names))


@pytest.fixture(params=[2, 3])
def spatial_dims(request):
    """Of a test that holds in 2D and in 3D."""
    return request.param


@pytest.fixture
def seeded():
    """A test that draws by torch draws the same in any order of tests."""
    torch.manual_seed(0)


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Runs a command line in the test's folder; exit status, output and errors."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["dira_monai", *words])
        try:
            main()
            status = 0
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def pretrain_scans(tmp_path_factory):
    """Folders of unlabeled images by their number of axes."""
    return {d: pretrain_bundle.write_scans(tmp_path_factory.mktemp(f"scans{d}"), d) for d in (2, 3)}


@pytest.fixture(scope="session")
def finetune_scans(tmp_path_factory):
    """Folders of labeled images by their number of axes."""
    return {d: finetune_bundle.write_data(tmp_path_factory.mktemp(f"labeled{d}"), d) for d in (2, 3)}


@pytest.fixture(scope="session")
def stranger(tmp_path_factory):
    """Runs Python as someone who has all packages but this one; the folder to begin in is empty.

    A ``fresh`` interpreter starts for what the import of MONAI could change.
    """
    links = tmp_path_factory.mktemp("packages")
    for place in (Path(p) for p in reversed(sys.path) if p.endswith("site-packages")):
        for path in place.iterdir():
            if "dira_monai" not in path.name and not path.name.endswith(".pth"):
                (links / path.name).unlink(missing_ok=True)
                (links / path.name).symlink_to(path)
    home = tmp_path_factory.mktemp("home")

    def run(*words, cwd=home, path=(), fresh=False):
        environment = {"PYTHONPATH": os.pathsep.join(map(str, [*path, links])), "HOME": str(home)}
        if fresh:
            return execute(["-S", *words], cwd, **environment)  # -S: no .pth file brings an editable install along
        return run_python(words, cwd=cwd, bare=True, **environment)

    for fresh in (False, True):
        assert "No module named 'dira_monai'" in run("-c", "import dira_monai", fresh=fresh).stderr
    return run


@pytest.fixture
def alone(monkeypatch):
    """Runs configurations as who has MONAI alone: whatever imports this package fails."""
    for name in [name for name in sys.modules if name.split(".")[0] == "dira_monai"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "dira_monai", None)
    with pytest.raises(ImportError):
        importlib.import_module("dira_monai.handlers")
    return lambda **options: monai.bundle.run(**options)


@pytest.fixture(scope="session", params=finetune_bundle.KINDS, ids=lambda kind: f"{kind[0]}_{kind[1]}d")
def finetuned(request, finetune_scans, tmp_path_factory):
    """A finished small fine-tuning: its kind, folder and options."""
    folder = tmp_path_factory.mktemp("tuned")
    options = finetune_bundle.overrides(request.param, finetune_scans, folder, finetune_bundle.SHIPPED)
    finetune_bundle.train(request.param, options)
    return request.param, folder, options
