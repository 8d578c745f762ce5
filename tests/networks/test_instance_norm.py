"""Instance norm in channels-last memory: torch's numbers, no copy into another layout."""

import pytest
import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from torch import nn

from dira_monai.networks.instance_norm import CHANNELS_LAST, use_channels_last

KINDS = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
SHAPES = {2: (3, 5, 8, 6), 3: (3, 5, 4, 6, 5)}


def run(norm, images, slope):
    images = images.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    output = norm(images)
    gradients = torch.autograd.grad(output, [images, *norm.parameters()], slope)
    return [output, *gradients]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("affine", [True, False])
def test_numbers_are_those_of_torch_in_float64(dims, affine):
    torch.manual_seed(0)
    norm = KINDS[dims](5, affine=affine).double()
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    images, slope = (torch.randn(SHAPES[dims]).double().to(memory_format=CHANNELS_LAST[dims]) for _ in range(2))
    expected = run(norm, images, slope)
    use_channels_last(norm)
    found = run(norm, images, slope)
    for values, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(values, wanted)
    assert found[0].is_contiguous(memory_format=CHANNELS_LAST[dims])
    assert found[1].is_contiguous(memory_format=CHANNELS_LAST[dims])


@pytest.mark.parametrize("dims", [2, 3])
def test_little_contrast_on_a_high_level_keeps_its_digits(dims):
    torch.manual_seed(0)
    images = torch.randn(2, 8, *[24] * dims).mul(0.1).add(100).to(memory_format=CHANNELS_LAST[dims])
    norm = KINDS[dims](8)
    use_channels_last(norm)
    expected = F.instance_norm(images.double())
    error = (norm(images) - expected).abs().max()
    assert error < 3 * (F.instance_norm(images) - expected).abs().max()  # group norm of torch 2.13 is off by 120


def test_samples_do_not_depend_on_their_batch():
    images = torch.rand(4, 8, 8, 8, 8).to(memory_format=torch.channels_last_3d)
    norm = nn.InstanceNorm3d(8, affine=True)
    use_channels_last(norm)
    assert torch.equal(norm(images)[2:3], norm(images[2:3]))


def test_other_layouts_and_running_statistics_stay_with_torch():
    norm, running = nn.InstanceNorm3d(2, affine=True), nn.InstanceNorm3d(2, track_running_stats=True)
    images = torch.rand(1, 2, 3, 4, 5)
    expected = norm(images)
    use_channels_last(norm, running)
    assert torch.equal(norm(images), expected)
    assert type(running) is nn.InstanceNorm3d


@pytest.mark.parametrize("dims", [2, 3])
def test_bf16_comes_out_as_bf16_near_float32(dims):
    images = torch.rand(2, 4, *[8] * dims).to(memory_format=CHANNELS_LAST[dims])
    norm = KINDS[dims](4, affine=True)
    use_channels_last(norm)
    found = norm(images.bfloat16())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), norm(images), rtol=0, atol=0.05)


@pytest.mark.parametrize("dims", [2, 3])
def test_images_with_metadata_keep_it(dims):
    images = MetaTensor(torch.rand(2, 4, *[8] * dims), meta={"place": 1}).to(memory_format=CHANNELS_LAST[dims])
    norm = KINDS[dims](4, affine=True)
    expected = norm(images.as_tensor())
    use_channels_last(norm)
    found = norm(images)
    assert found.meta["place"] == 1
    torch.testing.assert_close(found.as_tensor(), expected)
