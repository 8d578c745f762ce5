"""Values of the published implementations (folder ``golden``) and the rules that rebuild their inputs."""

import json
import math
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).parents[1] / "golden"
GOLDEN = json.loads((FOLDER / "golden.json").read_text())


def layout(name):
    """Keys and shapes of a published file, in order."""
    return [(key, tuple(shape)) for key, shape in json.loads((FOLDER / name).read_text())]


def normal(seed, shape):
    """``R(seed, shape)`` of the golden values: standard normal numbers, float32."""
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape).astype(np.float32))


def unit_rows(seed, shape):
    return torch.nn.functional.normalize(normal(seed, shape), dim=1)


def filled(keys, seed):
    """A state dict by the fill rule: tensor number i of ``keys``, pairs of key and shape, comes from seed + i."""
    return {key: _filled(key, tuple(shape), seed + i) for i, (key, shape) in enumerate(keys)}


def _filled(key, shape, seed):
    if key.endswith("num_batches_tracked"):
        return torch.tensor(0)
    r = normal(seed, shape)
    if key.endswith("running_var"):
        return 1 + 0.1 * r.abs()
    if len(shape) >= 2:
        return r / math.sqrt(math.prod(shape[1:]))
    return 1 + 0.1 * r if key.endswith("weight") else 0.1 * r


def assert_matches(tensor, summary, atol=1e-4):
    """Compare a tensor with the shape, mean, standard deviation and eight values of a golden summary."""
    assert list(tensor.shape) == summary["shape"]
    values = tensor.detach().flatten()[summary["flat_index"]].tolist()
    ours = [tensor.mean().item(), tensor.std().item(), *values]
    theirs = [summary["mean"], summary["std"], *summary["values"]]
    torch.testing.assert_close(torch.tensor(ours), torch.tensor(theirs), atol=atol, rtol=0)
