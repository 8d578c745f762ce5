#!/usr/bin/env bash
# MONAI's CacheDataset keeps for ever what a random transform made the first time, if a Lambda stands around it.
#
# Versions: monai 1.6.1, numpy 2.4.6, torch 2.13.0 (CPU).
# CacheDataset caches up to the first random transform, and Compose.set_random_state hands its seed to random transforms.
# Both look at the class of each entry of the list alone. A Lambda is not random, whatever function it holds: with
# RandScaleIntensity inside, an image has one and the same "augmentation" in every epoch, and a seed set on the Compose
# changes nothing without a cache either. The same transform named in the list itself does both right. No warning is given.
# Exit status 0: the behaviour is as described; 1: it has changed.
set -euo pipefail
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
python3 -m venv "$T/env"
"$T/env/bin/python" -m pip install --quiet torch==2.13.0
"$T/env/bin/python" -m pip install --quiet monai==1.6.1 numpy==2.4.6
cd "$T"
"$T/env/bin/python" -W ignore - <<'PY'
import sys

import torch
from monai.data import CacheDataset, Dataset
from monai.transforms import Compose, Lambda, RandScaleIntensity

IMAGES = [torch.ones(1, 2, 2)]
EPOCHS = 8


def named():
    return Compose([RandScaleIntensity(0.5, prob=1)])


def inside():
    return Compose([Lambda(RandScaleIntensity(0.5, prob=1))])


def different(make):
    """How many different images of EPOCHS come out of the cache."""
    data = CacheDataset(IMAGES, make(), progress=False)
    return len({float(data[0].max()) for _ in range(EPOCHS)})


def repeats(make):
    """Whether the same seed gives the same image."""
    data, seen = Dataset(IMAGES, make()), []
    for _ in range(2):
        data.transform.set_random_state(seed=3)
        seen.append(float(data[0].max()))
    return seen[0] == seen[1]


found = {make.__name__: (different(make), repeats(make)) for make in (named, inside)}
for name, (count, same) in found.items():
    print(f"{name:7} {count} of {EPOCHS} images of the cache differ; the same seed repeats: {same}")
sys.exit(found != {"named": (EPOCHS, True), "inside": (1, False)})
PY
echo "as described"
