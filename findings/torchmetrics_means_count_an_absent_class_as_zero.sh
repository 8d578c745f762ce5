#!/usr/bin/env bash
# A mean AUC of torchmetrics counts a class that no test image has as 0: a model without error has 0.667 of three classes.
#
# Versions: torchmetrics 1.9.0, torch 2.13.0 (CPU).
# MultilabelAUROC and MultilabelAveragePrecision mean over the classes by themselves (average="macro"). A rare finding
# that is missing from a test set, a fold or a site has no AUC; torchmetrics gives it 0.0, as if every image were ranked
# wrong, and the mean sinks by a third of three classes, a fourteenth of fourteen. A warning speaks of a "true positive
# value". The same model in another split has another mean. average="weighted" leaves the class out.
# Exit status 0: the behaviour is as described; 1: it has changed.
set -euo pipefail
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
python3 -m venv "$T/env"
"$T/env/bin/python" -m pip install --quiet torch==2.13.0
"$T/env/bin/python" -m pip install --quiet torch==2.13.0 torchmetrics==1.9.0
cd "$T"
"$T/env/bin/python" -W ignore - <<'PY'
import sys

import torch
from torchmetrics.classification import MultilabelAUROC, MultilabelAveragePrecision

truth = torch.tensor([[0, 1, 0], [1, 0, 0], [1, 1, 0], [0, 0, 0]])  # nobody has the third
scores = torch.tensor([[0.1, 0.9, 0.2], [0.8, 0.2, 0.1], [0.7, 0.8, 0.3], [0.2, 0.1, 0.4]])
seen = {}
for metric in (MultilabelAUROC, MultilabelAveragePrecision):
    for average in ("none", "macro", "weighted"):
        value = metric(num_labels=3, average=average)(scores, truth)
        seen[metric.__name__, average] = (value.abs() * 1000).round().int().tolist()
        print(metric.__name__, average, value.tolist())
right = [1000, 1000, 0], 667, 1000
sys.exit(list(seen.values()) != [*right, *right])
PY
echo "as described"
