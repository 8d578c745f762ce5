#!/usr/bin/env bash
# batchgeneratorsv2's additive brightness makes every image brighter: uniform between mean and deviation, not Gaussian.
#
# Versions: batchgeneratorsv2 0.3.6, batchgenerators 0.25.5, torch 2.13.0 (CPU), numpy 2.4.6.
# The documentation of BrightnessAdditiveTransform(mu, sigma) says that the shift comes from a Gaussian of this mean and
# deviation. With synchronize_channels=True, as it is by itself, mu and sigma are taken for the ends of a range: for
# mu=0, sigma=0.5 the shifts lie between 0 and 0.5, mean 0.25, deviation 0.14, and none of 2000 is below 0. With
# synchronize_channels=False the same numbers give a Gaussian of mean 0 and deviation 0.5, as in batchgenerators, which
# it replaces. A standardized scan has mean 0 at inference and 0.25 on average in training, and darker scans are never
# shown. Nothing is said. (Where sigma is smaller than mu, an AssertionError speaks of a list.) With
# synchronize_channels=False, the same thing for scans of one channel, it does what is documented.
# Exit status 0: the behaviour is as described; 1: it has changed.
set -euo pipefail
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
python3 -m venv "$T/env"
"$T/env/bin/python" -m pip install --quiet torch==2.13.0
"$T/env/bin/python" -m pip install --quiet torch==2.13.0 batchgeneratorsv2==0.3.6 batchgenerators==0.25.5 numpy==2.4.6
cd "$T"
"$T/env/bin/python" -W ignore - <<'PY'
import sys

import numpy as np
import torch
from batchgenerators.augmentations.color_augmentations import augment_brightness_additive
from batchgeneratorsv2.transforms.intensity.brightness import BrightnessAdditiveTransform

MU, SIGMA, TIMES = 0.0, 0.5, 2000
np.random.seed(0)
torch.manual_seed(0)


def shifts(change):
    drawn = np.array([float(change().mean()) for _ in range(TIMES)])
    return round(drawn.mean(), 3), round(drawn.std(), 3), float((drawn < 0).mean())


usual = BrightnessAdditiveTransform(MU, SIGMA)
single = BrightnessAdditiveTransform(MU, SIGMA, synchronize_channels=False)
seen = {
    "as it is": shifts(lambda: usual(image=torch.zeros(1, 4, 4, 4))["image"]),
    "synchronize_channels=False": shifts(lambda: single(image=torch.zeros(1, 4, 4, 4))["image"]),
    "batchgenerators": shifts(lambda: augment_brightness_additive(np.zeros((1, 4, 4, 4)), MU, SIGMA, False)),
}
for name, (mean, deviation, below) in seen.items():
    print(f"{name}: mean {mean}, deviation {deviation}, below 0: {below:.0%}")
print("documented:", " ".join(line.strip() for line in (usual.__doc__ or "").splitlines() if "Gaussian" in line))


def near(values, wanted, reach=0.04):
    return all(abs(value - want) <= reach for value, want in zip(values, wanted, strict=True))


uniform = near(seen["as it is"], (0.25, 0.144, 0)) and seen["as it is"][2] == 0
sys.exit(not uniform or not all(near(seen[name], (0, 0.5, 0.5)) for name in list(seen)[1:]))
PY
echo "as described"
