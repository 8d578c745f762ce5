#!/usr/bin/env bash
# MONAI's Resize with anti_aliasing darkens the border of every image that it shrinks, also of a constant one.
#
# Versions: monai 1.6.1, torch 2.13.0 (CPU), numpy 2.4.6.
# The Gaussian before the interpolation takes zeros from outside of the image. An image of 1.0 everywhere that is shrunk
# from 512, 1024 or 2048 pixels to 224 comes out with 0.92, 0.89 and 0.87 along its edges, 0.84, 0.80 and 0.76 in its
# corners. scikit-image, after whose resize the option is made, mirrors the image by default: 1.0 everywhere.
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

changed = False
for size in (512, 1024, 2048):
    image = Resize((224, 224), mode="bilinear", anti_aliasing=True)(torch.ones(1, size, size))[0]
    center, edge, corner = (float(image[place]) for place in ((112, 112), (0, 112), (0, 0)))
    print(f"{size} to 224: center {center:.3f}, edge {edge:.3f}, corner {corner:.3f}")
    changed |= not (abs(center - 1) < 1e-3 and corner < edge < 0.99)
sys.exit(changed)
PY
echo "as described"
