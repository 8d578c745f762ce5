#!/usr/bin/env bash
# batchgeneratorsv2 writes distortions into the tensor that it is given: a kept original is distorted as well.
#
# Versions: batchgeneratorsv2 0.3.6, torch 2.13.0 (CPU), numpy 2.4.6.
# Ten of eleven transforms of intensity (noise, brightness, contrast, gamma, inversion, blur, lower resolution, median,
# sharpening) return the tensor of the caller, changed. Behind a step that makes a new tensor, as spatial transforms and
# nnU-Net's own pipeline begin with, nothing is lost. Elsewhere two things go wrong without a word: a network that is
# to restore the original from the distorted image gets one tensor for both, error 0 with the identity; and an image
# that is kept in memory gets the noise of every epoch, deviation 0.3, 0.42, 0.52 ... Mirroring and Rician noise give a
# new tensor; the documentation speaks of neither.
# Besides, noise_variance=(0.25, 0.25) is taken for the deviation: the noise has variance 0.0625, in both packages.
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
from batchgenerators.augmentations.noise_augmentations import augment_gaussian_noise
from batchgeneratorsv2.transforms.intensity.brightness import BrightnessAdditiveTransform, MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.intensity.inversion import InvertImageTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.noise.median_filter import MedianFilterTransform
from batchgeneratorsv2.transforms.noise.rician import RicianNoiseTransform
from batchgeneratorsv2.transforms.noise.sharpen import SharpeningTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform

torch.manual_seed(0)
np.random.seed(0)
TRANSFORMS = {
    "noise": GaussianNoiseTransform((0.2, 0.2)),
    "multiplied": MultiplicativeBrightnessTransform(BGContrast((0.7, 0.7)), False),
    "added": BrightnessAdditiveTransform(0, 0.5, synchronize_channels=False),
    "contrast": ContrastTransform(BGContrast((0.5, 0.5)), True, False),
    "gamma": GammaTransform(BGContrast((1.5, 1.5)), 0, False, 1, 1),
    "inversion": InvertImageTransform(1, False, 1),
    "blur": GaussianBlurTransform((1, 1)),
    "lower resolution": SimulateLowResolutionTransform((0.5, 0.5), False, False, None, None, 1),
    "median": MedianFilterTransform((2, 3)),
    "sharpening": SharpeningTransform((1, 1)),
    "mirroring": MirrorTransform((0, 1, 2)),
    "Rician noise": RicianNoiseTransform((0, 0.1)),
}
writes = []
for name, transform in TRANSFORMS.items():
    original = torch.rand(1, 16, 16, 16)
    before = original.clone()
    distorted = transform(image=original)["image"]
    print(f"{name}: error of the identity {float((distorted - original).abs().mean()):.3f}, "
          f"original changed by {float((original - before).abs().mean()):.3f}")
    if distorted.data_ptr() == original.data_ptr() and not torch.equal(original, before):
        writes.append(name)

kept, noise, epochs = torch.zeros(1, 32, 32, 32), GaussianNoiseTransform((0.3, 0.3)), []
for _ in range(3):
    noise(image=kept)
    epochs.append(round(float(kept.std()), 2))
print("deviation of the kept image after each epoch:", epochs)

quarter = float(GaussianNoiseTransform((0.25, 0.25))(image=torch.zeros(1, 64, 64, 64))["image"].var())
older = float(augment_gaussian_noise(np.zeros((1, 64, 64, 64)), (0.25, 0.25)).var())
print(f"variance of noise_variance=(0.25, 0.25): {quarter:.4f}, batchgenerators {older:.4f}")
same = writes == list(TRANSFORMS)[:10] and np.allclose(epochs, [0.3, 0.42, 0.52], atol=0.02)
sys.exit(not (same and abs(quarter - 0.0625) < 0.001 and abs(older - 0.0625) < 0.001))
PY
echo "as described"
