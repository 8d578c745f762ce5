#!/usr/bin/env bash
# MONAI's mean Dice is 0.0, not "not defined", where no image has the class: the score of a total failure.
#
# Versions: monai 1.6.1, torch 2.13.0 (CPU), numpy 2.4.6.
# DiceMetric and the handler MeanDice leave out images without the class (ignore_empty is True), and say nan for each of
# them. But the mean over no image at all is 0.0 instead of nan, whether the prediction is empty too, and so perfect, or
# marks every voxel. A validation set of patients without a lesion therefore reads as if nothing had been learned, and
# the epoch with the best score is chosen among zeros. The number of images that counted, get_not_nans=True, tells them
# apart.
# Exit status 0: the behaviour is as described; 1: it has changed.
set -euo pipefail
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
python3 -m venv "$T/env"
"$T/env/bin/python" -m pip install --quiet torch==2.13.0
"$T/env/bin/python" -m pip install --quiet monai==1.6.1 numpy==2.4.6 pytorch-ignite==0.5.5
cd "$T"
"$T/env/bin/python" -W ignore - <<'PY'
import sys

import torch
from ignite.engine import Engine
from monai.handlers import MeanDice
from monai.metrics import DiceMetric

healthy = torch.zeros(2, 8, 8)
healthy[0] = 1  # background and lesion, one-hot: no voxel is a lesion
changed = False
for name, marked in (("nothing marked", healthy), ("all marked", healthy.flip(0))):
    metric = DiceMetric(include_background=False, get_not_nans=True)
    single = metric([marked, marked], [healthy, healthy]).flatten().tolist()
    mean, counted = metric.aggregate()
    engine = Engine(lambda engine, batch: batch)
    MeanDice(include_background=False).attach(engine, "dice")
    score = engine.run([([marked], [healthy])] * 2).metrics["dice"]
    print(f"{name}: of each image {single}, DiceMetric {mean.item()} of {counted.item():.0f} images, MeanDice {score}")
    changed |= not all(value != value for value in single) or (mean.item(), counted.item(), score) != (0, 0, 0)
sys.exit(changed)
PY
echo "as described"
