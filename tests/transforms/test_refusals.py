"""What no transform takes, in one sentence."""

import re

import pytest
import torch
from random_images import random_images, streams

from dira_monai.transforms.color import ColorJitter, Grayscale
from dira_monai.transforms.compose import Compose, OneOf
from dira_monai.transforms.grid_views import GridViews
from dira_monai.transforms.masking import Masking
from dira_monai.transforms.painting import InPainting
from dira_monai.transforms.shuffling import BlockShuffling
from dira_monai.transforms.spatial import RandomResizedCrop, RandomRotation
from dira_monai.transforms.views import Views
from dira_monai.utils.errors import InputError

KEEP = Compose([])
SHARES = [(0.5,), (0.2, 0.2, 0.2), (0.6, 0.5), (-0.1, 0.5)]
SCALES = [(0, 1), (-0.1, 1), (0.5, 0.2), (0.5, 1.5)]
FEW = "probabilities must be one for each of 2 distortions and sum to at most 1"
RISING = "scale must be two rising numbers in (0, 1], got ["
REFUSED = [
    *((ColorJitter, {"hue": hue}, f"hue must lie in [0, 0.5] turns, got {hue}") for hue in (-0.1, 0.6)),
    (RandomRotation, {"padding_mode": "black"}, "padding_mode must be zeros, border or reflection, got 'black'"),
    (RandomRotation, {"planes": [(1, 1)]}, "planes must be pairs of different axes, got [[1, 1]]"),
    (RandomRotation, {"planes": [(0, 1, 2)]}, "planes must be pairs"),
    (InPainting, {"count": 1, "size": (0.1, 0.2), "fill": "black"}, "fill must be one of zero, noise, constant, got"),
    (BlockShuffling, {"behavior": "fixed"}, "behavior must be corrected or reference, got 'fixed'"),
    *((OneOf, {"distortions": [KEEP] * 2, "probabilities": shares}, FEW) for shares in SHARES),
    *((Masking, {"ratio": ratio}, f"masking ratio must lie between 0 and 1, got {ratio}") for ratio in (0.0, 1.0)),
    (Masking, {"block_size": (4, 0)}, "block_size must be at least 1 voxel along each axis, got [4, 0]"),
    *((RandomResizedCrop, {"patch_size": (4, 4), "scale": scale}, RISING) for scale in SCALES),
    (Views, {"crop": KEEP, "target_flip": "none"}, "target_flip must be corrected or reference, got 'none'"),
    (Views, {"crop": KEEP, "count": 0}, "the number of views must be at least 1, got 0"),
    (Views, {"crop": KEEP, "local_count": 2}, "2 small views need a local_crop"),
    (GridViews, {"patch_size": (4, 4), "grid": (2, 2, 1)}, "grid [2, 2, 1] must have one entry for each axis of"),
    (GridViews, {"patch_size": (4, 4), "grid": (1, 1)}, "grid [1, 1] must have entries of at least 1 and at least two"),
    (GridViews, {"patch_size": (4, 4), "grid": (0, 4)}, "grid [0, 4] must have entries of at least 1"),
]


@pytest.mark.parametrize(("kind", "options", "sentence"), REFUSED)
def test_values_out_of_range_are_refused(kind, options, sentence):
    with pytest.raises(InputError, match=re.escape(sentence)):
        kind(**options)


@pytest.mark.parametrize(
    ("change", "channels", "sentence"),
    [
        (ColorJitter(), 2, "images of 1 or 3 channels, got 2"),
        (Grayscale(), 2, "images of 1 or 3 channels, got 2"),
        (RandomRotation(planes=[(0, 2)]), 3, "planes [[0, 2]] must name axes below 2"),
        (Masking(block_size=(4, 4, 4)), 1, "block_size [4, 4, 4] must have 2 entries, one for each axis"),
        (Masking(block_size=(8, 9)), 1, "block_size [8, 9] leaves one block of images of [8, 8] voxels"),
    ],
)
def test_images_that_do_not_fit_are_refused(change, channels, sentence):
    with pytest.raises(InputError, match=re.escape(sentence)):
        change(random_images(1, (8, 8), channels), streams(1))


def test_a_region_that_is_not_the_grid_is_refused():
    with pytest.raises(InputError, match=r"region_size must be grid \[2, 3\] times .* \[8, 12\], got \[8, 8\]"):
        GridViews((4, 4), (2, 3))(torch.rand(1, 1, 8, 8), streams(1).seeds)
