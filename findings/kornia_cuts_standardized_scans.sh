#!/usr/bin/env bash
# kornia's changes of brightness, contrast and gamma cut a standardized scan to [0, 1]: two thirds of it become flat.
#
# Versions: kornia 0.9.0, torch 2.13.0 (CPU).
# Scans are mostly brought to mean 0 and deviation 1, half of their voxels below 0. RandomBrightness, RandomContrast,
# RandomGamma, ColorJitter and ColorJiggle take float images for ones in [0, 1] and clamp what they give, so that both
# views of a contrastive pair lose all that is below 0 and above 1, even where they change by a factor of 1.
# RandomGaussianBlur and RandomGaussianNoise in the same chain clamp nothing. Nothing is said. RandomBrightness and
# RandomContrast have clip_output=False, the others do not. Scale to [0, 1] before, standardize after.
# Exit status 0: the behaviour is as described; 1: it has changed.
set -euo pipefail
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
python3 -m venv "$T/env"
"$T/env/bin/python" -m pip install --quiet torch==2.13.0
"$T/env/bin/python" -m pip install --quiet torch==2.13.0 kornia==0.9.0
cd "$T"
"$T/env/bin/python" -W ignore - <<'PY'
import sys

import kornia.augmentation as K
import torch

scan = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
same = (1.0, 1.0)
chains = {
    "RandomBrightness": K.RandomBrightness(same, p=1.0),
    "RandomContrast": K.RandomContrast(same, p=1.0),
    "RandomGamma": K.RandomGamma(same, same, p=1.0),
    "ColorJitter": K.ColorJitter(same, same, p=1.0),
    "ColorJiggle": K.ColorJiggle(same, same, p=1.0),
    "RandomBrightness, clip_output=False": K.RandomBrightness(same, clip_output=False, p=1.0),
    "RandomContrast, clip_output=False": K.RandomContrast(same, clip_output=False, p=1.0),
    "RandomGaussianNoise": K.RandomGaussianNoise(std=0.0, p=1.0),
    "RandomGaussianBlur": K.RandomGaussianBlur((3, 3), (0.1, 0.1), p=1.0),
}
flat = {}
for name, change in chains.items():
    changed = change(scan)
    flat[name] = round(float(((changed == 0) | (changed == 1)).float().mean()), 2)
    print(f"{name}: values from {float(changed.min()):.2f} to {float(changed.max()):.2f}, 0 or 1: {flat[name]:.0%}")
sys.exit(list(flat.values()) != [0.66] * 5 + [0] * 4)
PY
echo "as described"
