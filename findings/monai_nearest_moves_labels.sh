#!/usr/bin/env bash
# MONAI's Resize moves label maps against their images: mode "nearest" by up to half a voxel of the result.
#
# Versions: monai 1.6.1, torch 2.13.0 (CPU), numpy 2.4.6.
# torch's "nearest" takes the voxel at floor(i * scale), which is that of the left border of a result voxel, while the
# linear modes take its center. So a disc in a label map lies 0.25 to 0.5 pixels away from the same disc in the image,
# along each axis, whatever the size of the file. "nearest-exact" stays in place, but for even factors of shrinking: it
# takes the upper of the two voxels in the middle, so that for a factor of 2 the disc lies a quarter of a pixel away.
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
from monai.transforms import Resize


def center(image):
    return float((image[0].sum(1) * torch.arange(224)).sum() / image.sum())


changed = False
for size in (300, 448, 1024):
    x = torch.arange(size) - (size - 1) / 2 - 0.3
    disc = (x[:, None] ** 2 + x**2 < (size / 8) ** 2).float()[None]
    image = center(Resize((224, 224), mode="bilinear", anti_aliasing=True)(disc))
    moved = {mode: center(Resize((224, 224), mode=mode)(disc)) - image for mode in ("nearest", "nearest-exact")}
    print(f"{size} to 224: " + ", ".join(f"{mode} {shift:+.2f} pixels" for mode, shift in moved.items()))
    even = size == 448
    changed |= not abs(moved["nearest"] - (0.25 if even else 0.45)) < 0.1
    changed |= not abs(moved["nearest-exact"] - (-0.25 if even else 0)) < 0.1
sys.exit(changed)
PY
echo "as described"
