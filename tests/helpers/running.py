"""Running bundles as a user does, and comparing what they leave."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import torch

HELPERS = str(Path(__file__).parent)
FLOAT64 = f"{HELPERS}/float64"  # a config as run and command take them: without .json
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # more threads wait: the tensors are tiny


def load_script(path):
    """A script that is in no package, as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def command_of(bundle, files, options):
    """The command line that a user types behind ``python``."""
    configs = [str(bundle / "configs" / f"{f}.json") for f in files]
    words = ["-m", "monai.bundle", "run", "--config_file", str(configs) if len(configs) > 1 else configs[0]]
    for key, value in options.items():
        words += [f"--{key}", value if isinstance(value, str) else repr(value)]
    return words


def execute(words, cwd="/", **environment):
    """What ``python WORDS`` came to in a new interpreter, which takes seconds to import MONAI."""
    words = [sys.executable, *words]
    return subprocess.run(
        words, capture_output=True, text=True, timeout=240, env=os.environ | environment, cwd=cwd, check=False
    )


def causes(error):
    """The messages of an exception and of all that it came from: MONAI wraps what its parts raise."""
    messages = []
    while error is not None:
        messages.append(str(error))
        error = error.__cause__ or error.__context__
    return "\n".join(messages)


def load(path):
    return torch.load(path, weights_only=True)


def assert_equal_states(first, second):
    """Two nested states, equal to the last bit."""
    assert type(first) is type(second)
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_equal_states(first[key], second[key])
    elif isinstance(first, list | tuple):
        assert len(first) == len(second)
        for a, b in zip(first, second, strict=True):
            assert_equal_states(a, b)
    else:
        assert first == second
