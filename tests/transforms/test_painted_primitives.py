"""Primitives in the views: on the images or on plain gray, told by ``share``, whatever the batch."""

import numpy as np
import pytest
import torch
from random_images import random_images

from dira_monai.phantoms.primitives import SHAPES, draw_primitives
from dira_monai.transforms.primitives import Primitives
from dira_monai.transforms.views import Views
from dira_monai.utils.errors import InputError
from dira_monai.utils.seeded_random import SampleRandom, sample_seeds

shapes = pytest.mark.parametrize("shape", [(24, 20), (12, 16, 10)])


@shapes
@pytest.mark.parametrize("background", [True, False])
def test_each_image_has_those_of_its_seed(shape, background):
    images, seeds = random_images(3, shape), sample_seeds(0, 0, 3)
    primitives = Primitives((2, 5), (0.1, 0.3), background)
    found = primitives.fuse({"query": images}, SampleRandom(seeds))
    for i, seed in enumerate(seeds.tolist()):
        behind = images[i].numpy() if background else None
        image, classes = draw_primitives(seed % 2**64, (1, *shape), (2, 5), (0.1, 0.3), behind)
        np.testing.assert_array_equal(found["query"][i].numpy(), image)
        np.testing.assert_array_equal(found["share"][i, 0].numpy(), classes)
    last = primitives.fuse({"query": images[2:]}, SampleRandom(seeds[2:]))
    assert torch.equal(last["query"], found["query"][2:])


@shapes
def test_views_keep_the_target_without_primitives(shape):
    images, seeds = random_images(4, shape), sample_seeds(0, 0, 4)
    found = Views(lambda images, draws: images, count=1, flip_axes=(), fusion=Primitives())(images, seeds)
    assert torch.equal(found["target"], images)
    assert not torch.equal(found["query"], images)
    assert (found["share"].dtype, found["share"].shape) == (torch.int64, (4, 1, *shape))
    assert 0 <= found["share"].min() < found["share"].max() <= len(SHAPES)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"count": (0, 3)}, r"the count of primitives must be two rising numbers from 1, got \[0, 3\]"),
        ({"count": (4, 3)}, r"the count of primitives must be two rising numbers from 1, got \[4, 3\]"),
        ({"size": (0.0, 0.5)}, r"the size of primitives must be two rising numbers in \(0, 1\], got \[0.0, 0.5\]"),
        ({"size": (0.6, 0.5)}, r"the size of primitives must be two rising numbers in \(0, 1\], got \[0.6, 0.5\]"),
    ],
)
def test_values_out_of_range_are_refused(options, sentence):
    with pytest.raises(InputError, match=sentence):
        Primitives(**options)
