#!/usr/bin/env bash
# MONAI's CheckpointLoader(strict_shape=False) loads no tensor of a renamed checkpoint and logs "Restored all variables".
#
# Versions: monai 1.6.1, pytorch-ignite 0.5.5, torch 2.13.0 (CPU).
# The documentation of `strict_shape` speaks of shapes alone. But with strict_shape=False the loader keeps the tensors
# whose names and shapes fit, replaces the others by the network's own, and then loads: names under a common prefix
# ("model.", as wrappers write them) all miss, the network stays random, even with strict=True, and the log of the
# handler says that all variables were restored. With strict_shape=True the same file raises a RuntimeError.
# Exit status 0: the behaviour is as described; 1: it has changed.
set -euo pipefail
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
python3 -m venv "$T/env"
"$T/env/bin/python" -m pip install --quiet torch==2.13.0
"$T/env/bin/python" -m pip install --quiet monai==1.6.1 pytorch-ignite==0.5.5
cd "$T"
"$T/env/bin/python" -W ignore - <<'PY'
import io
import logging
import sys

import torch
from ignite.engine import Engine
from monai.handlers import CheckpointLoader

network = torch.nn.Linear(2, 3)
before = {name: value.clone() for name, value in network.state_dict().items()}
torch.save({f"model.{name}": value + 1 for name, value in before.items()}, "weights.pt")


def load(strict_shape):
    log = io.StringIO()
    logging.basicConfig(level=logging.INFO, stream=log, force=True)
    engine = Engine(lambda engine, batch: None)
    loader = CheckpointLoader("weights.pt", {"network": network}, strict=True, strict_shape=strict_shape)
    loader.attach(engine)
    try:
        engine.run([0])
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return log.getvalue()


lenient, strict = load(False), load(True)
unchanged = all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
print(lenient.strip())
print("network unchanged:", unchanged)
print("with strict_shape=True:", strict)
sys.exit(not (unchanged and "Restored all variables from weights.pt" in lenient and strict.startswith("Error(s) in loading")))
PY
echo "as described"
