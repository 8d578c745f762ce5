#!/usr/bin/env bash
# MONAI's random bias field brightens the same corner of every image: 2.7 times there, 0.75 times in the opposite one.
#
# Versions: monai 1.6.1, torchio 1.2.1, torch 2.13.0 (CPU), numpy 2.4.6.
# RandBiasField multiplies by the exponential of polynomials with random coefficients, which it draws from 0 to 0.1
# unless told otherwise. Coefficients that are never negative all add up where the coordinates are all 1: of 200 random
# fields the brightest voxel was the last one, [-1, -1, -1], 200 times, and the first one was the darker of the two each
# time. A good engineer would expect a random field to have no preferred side, as TorchIO's, from -0.5 to 0.5, has none.
# A network learns from it where the bright corner is, and that patches of the lower right are brighter; the views of
# a contrastive pair share that. Nothing is said. coeff_range=(-0.1, 0.1) has no preferred corner.
# Exit status 0: the behaviour is as described; 1: it has changed.
set -euo pipefail
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
python3 -m venv "$T/env"
"$T/env/bin/python" -m pip install --quiet torch==2.13.0
"$T/env/bin/python" -m pip install --quiet torch==2.13.0 monai==1.6.1 torchio==1.2.1 numpy==2.4.6
cd "$T"
"$T/env/bin/python" -W ignore - <<'PY'
import sys

import torch
import torchio
from monai.transforms import RandBiasField

flat = torch.ones(1, 24, 24, 24)


def look(name, change, times=200):
    """How often the last voxel is the brightest, how often it is brighter than the first, and the means of both."""
    fields = torch.stack([torch.as_tensor(change(flat))[0] for _ in range(times)])
    last, first = fields[:, -1, -1, -1], fields[:, 0, 0, 0]
    top = int((last == fields.flatten(1).max(1).values).sum())
    brighter, ends = int((last > first).sum()), (float(first.mean()), float(last.mean()))
    print(f"{name}: last voxel brightest {top}, brighter than first {brighter} of {times};", end=" ")
    print("means of first and last voxel {:.2f} {:.2f}".format(*ends))
    return top, brighter, ends


torch.manual_seed(0)
usual = look("MONAI", RandBiasField(prob=1.0).set_random_state(0))
even = look("MONAI, coeff_range=(-0.1, 0.1)", RandBiasField(prob=1.0, coeff_range=(-0.1, 0.1)).set_random_state(0))
other = look("TorchIO", torchio.RandomBiasField())
kept = usual[:2] == (200, 200) and 0.7 < usual[2][0] < 0.8 and 2.6 < usual[2][1] < 3.0
sys.exit(not kept or any(top > 60 or not 60 < brighter < 140 for top, brighter, _ in (even, other)))
PY
echo "as described"
