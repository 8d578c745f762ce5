"""Volume fusion: shares drawn in boxes, and images mixed by them."""

import pytest
import torch
from random_images import random_images

from dira_monai.transforms.fusion import VolumeFusion
from dira_monai.transforms.masking import Masking
from dira_monai.transforms.painting import draw_boxes
from dira_monai.transforms.views import Views
from dira_monai.utils.errors import InputError
from dira_monai.utils.seeded_random import SampleRandom, sample_seeds

shapes = pytest.mark.parametrize("shape", [(12, 9), (8, 7, 6)])


def keep(images, draws):
    return images


def painted(shape, seeds, fusion):
    """Shares as the paper draws them, box after box with loops, from the same random numbers."""
    draws = SampleRandom(seeds)
    boxes = draw_boxes(draws, shape, fusion.count[1], fusion.size)
    number, value = draws.uniform(1)[:, 0], draws.uniform(fusion.count[1])
    share = torch.zeros(len(seeds), 1, *shape, dtype=torch.int64)
    for i in range(len(seeds)):
        used = fusion.count[0] + int(number[i] * (fusion.count[1] - fusion.count[0] + 1))
        for n in range(used):
            first, length = boxes.start[i, n].tolist(), boxes.length[i, n].tolist()
            place = tuple(slice(a, a + b) for a, b in zip(first, length, strict=True))
            share[(i, 0, *place)] = 1 + int(value[i, n] * fusion.shares)
    return share


@shapes
def test_later_boxes_count_and_images_are_mixed_with_the_one_before(shape):
    fusion, seeds, images = VolumeFusion(4, (3, 9), (0.2, 0.6)), sample_seeds(0, 0, 6), random_images(6, shape)
    found = fusion.fuse({"query": images}, SampleRandom(seeds))
    expected = painted(shape, seeds, fusion)
    assert torch.equal(found["share"], expected)
    for i in range(6):
        weight = expected[i] / 4
        torch.testing.assert_close(found["query"][i], weight * images[i - 1] + (1 - weight) * images[i])


@shapes
def test_shares_boxes_and_their_number_cover_their_ranges(shape):
    fusion = VolumeFusion(3, (1, 2), (0.5, 0.5))
    share = fusion.draw(shape, SampleRandom(sample_seeds(0, 0, 400)), torch.device("cpu"))
    assert share.unique().tolist() == [0, 1, 2, 3]
    counts = torch.tensor([len(s[s > 0].unique()) for s in share])
    assert set(counts.tolist()) == {1, 2}
    one = (share > 0).flatten(1).sum(1).min().item()
    assert one == torch.tensor(shape).mul(0.5).round().prod()  # half of each axis, where both boxes cover the same


@shapes
def test_views_are_fused_before_they_are_masked_and_the_target_is_not(shape):
    images, seeds = random_images(4, shape), sample_seeds(0, 0, 4)
    fusion, masking = VolumeFusion(4, (3, 9), (0.2, 0.6)), Masking(0.5, [2] * len(shape))
    fused = Views(keep, count=1, flip_axes=(), fusion=fusion)(images, seeds)
    both = Views(keep, count=1, flip_axes=(), fusion=fusion, masking=masking)(images, seeds)
    assert torch.equal(fused["target"], images)
    assert torch.equal(both["whole"], fused["query"])
    assert torch.equal(both["query"], fused["query"].masked_fill(both["mask"], 0))
    assert torch.equal(both["share"], fused["share"])


def test_an_image_alone_is_mixed_with_its_mirror_image():
    images, seeds = random_images(1, (8, 8)), sample_seeds(0, 0, 1)
    found = VolumeFusion(1, (2, 2)).fuse({"query": images}, SampleRandom(seeds))
    assert torch.equal(found["query"], torch.where(found["share"] > 0, images.flip(3), images))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"shares": 0}, "shares must be at least 1, got 0"),
        ({"count": (0, 3)}, r"the count of boxes must be two rising numbers from 1, got \[0, 3\]"),
        ({"count": (4, 3)}, r"the count of boxes must be two rising numbers from 1, got \[4, 3\]"),
        ({"size": (0.0, 0.5)}, r"the size of boxes must be two rising numbers in \(0, 1\], got \[0.0, 0.5\]"),
        ({"size": (0.6, 0.5)}, r"the size of boxes must be two rising numbers in \(0, 1\], got \[0.6, 0.5\]"),
    ],
)
def test_values_out_of_range_are_refused(options, sentence):
    with pytest.raises(InputError, match=sentence):
        VolumeFusion(**options)
