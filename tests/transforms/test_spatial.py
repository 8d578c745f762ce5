import itertools
import math

import pytest
import torch
from random_images import random_images, streams

from dira_monai.transforms.spatial import ElasticDeformation, RandomResizedCrop, flip_where, resample, resample_along


@pytest.fixture(params=[(12, 9), (8, 10, 6)])
def shape(request):
    return request.param


def ramps(count, shape):
    """Images whose channel a holds each voxel's own coordinate along axis a."""
    mesh = torch.stack(torch.meshgrid(*[torch.arange(n) for n in shape], indexing="ij")).float()
    return mesh.repeat(count, 1, *[1] * len(shape))


def crop_rows(crop, count, shape):
    """Where the crops read: for each axis the coordinates of the patch's positions, (B, n), of an image of ramps."""
    patches = crop(ramps(count, shape), streams(count))
    rows = []
    for axis in range(len(shape)):
        lines = patches[:, axis].movedim(axis + 1, 1).flatten(2)
        torch.testing.assert_close(lines, lines[..., :1].expand_as(lines), rtol=0, atol=1e-5)  # no other axis matters
        rows.append(lines[..., 0])
    return rows


def crop_boxes(rows, shape):
    """First edge and length of each sample's box along each axis, both (B, d), in voxels of the image."""
    starts, lengths = [], []
    for row in rows:
        n = row.shape[1]
        step = row[:, n // 2] - row[:, n // 2 - 1]  # the middle of a patch is never beyond the image
        starts.append(row[:, n // 2] + 0.5 - (n // 2 + 0.5) * step)
        lengths.append(n * step)
    return torch.stack(starts, 1), torch.stack(lengths, 1)


def test_resample_reads_a_ramp_at_the_positions(shape):
    upper = torch.tensor(shape).reshape(1, -1, *[1] * len(shape)) - 1
    positions = streams(3).uniform(len(shape), *[5] * len(shape)) * upper
    torch.testing.assert_close(resample(ramps(3, shape), positions), positions, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("padding_mode", "expected"), [("border", [0.0, 4.0]), ("reflection", [1.0, 3.0])])
def test_resample_outside_of_the_image(padding_mode, expected):
    positions = torch.tensor([[-1.0, 5.0], [0.0, 0.0]]).reshape(1, 2, 2, 1)
    read = resample(ramps(1, (5, 2)), positions, padding_mode)[0, 0, :, 0]
    torch.testing.assert_close(read, torch.tensor(expected))
    flat = random_images(1, (1, 4))
    torch.testing.assert_close(resample(flat, ramps(1, (1, 4)), padding_mode), flat)


@pytest.mark.parametrize("shape", [(12, 9), (8, 10, 6), (1, 5), (7, 1, 4)])
def test_one_axis_after_the_other_equals_all_at_once(shape):
    images = random_images(3, shape, 2)
    rows = [streams(3, seed=axis).uniform(6 + axis, low=-2, high=n + 1) for axis, n in enumerate(shape)]
    read = images
    for axis, row in enumerate(rows):
        read = resample_along(read, row, axis + 2)
    mesh = [torch.stack(torch.meshgrid(*(row[b] for row in rows), indexing="ij")) for b in range(3)]
    torch.testing.assert_close(read, resample(images, torch.stack(mesh)), rtol=0, atol=1e-5)
    views = RandomResizedCrop.read(images, [torch.cat([row, row.flip(0)]) for row in rows])
    torch.testing.assert_close(views[:3], read, rtol=0, atol=1e-6)
    for axis, row in enumerate(rows):
        images = resample_along(images, row.flip(0), axis + 2)
    torch.testing.assert_close(views[3:], images, rtol=0, atol=1e-6)


def test_flip_where_flips_each_sample_along_its_own_axes(spatial_dims):
    flipped = torch.tensor(list(itertools.product([False, True], repeat=spatial_dims)))
    images = torch.rand(len(flipped), 2, *(2, 3, 4)[:spatial_dims], generator=torch.Generator().manual_seed(0))
    for image, axes, result in zip(images, flipped, flip_where(images, flipped), strict=True):
        expected = image.numpy()
        for axis in axes.nonzero()[:, 0].tolist():
            expected = expected.swapaxes(0, axis + 1)[::-1].swapaxes(0, axis + 1)
        assert result.numpy().tolist() == expected.tolist()


@pytest.mark.parametrize("length", [4, 16])
def test_crop_of_a_ramp_is_the_ramp_of_its_box(shape, length):
    rows = crop_rows(RandomResizedCrop([length] * len(shape)), 50, shape)
    start, size = crop_boxes(rows, shape)
    assert start.min() >= -1e-4
    assert (start + size - torch.tensor(shape)).max() <= 1e-4
    for axis, row in enumerate(rows):
        centers = start[:, axis, None] + (torch.arange(length) + 0.5) / length * size[:, axis, None] - 0.5
        torch.testing.assert_close(row, centers.clamp(0, shape[axis] - 1), rtol=0, atol=1e-4)


@pytest.mark.parametrize("aspect", [1.0, 1.5])
def test_crop_covers_a_uniform_share_and_keeps_the_aspect(shape, aspect):
    crop = RandomResizedCrop([4] * len(shape), scale=(0.2, 0.5), aspect=aspect)
    _, size = crop_boxes(crop_rows(crop, 2000, shape), shape)
    sides = size / torch.tensor(shape)
    share = sides.prod(1)
    assert 0.2 - 1e-4 < share.min() < 0.21
    assert 0.49 < share.max() < 0.5 + 1e-4
    assert abs(share.mean() - 0.35) < 4 * 0.3 / math.sqrt(12 * 2000)
    stretch = (sides[:, 0] / sides[:, 1]).log()  # triangular distribution, whose variance is a sixth
    assert stretch.abs().max() < math.log(aspect) + 1e-3
    assert abs(stretch.mean()) < 4 * math.log(aspect) / math.sqrt(6 * 2000) + 1e-5
    assert abs(stretch.std() - math.log(aspect) / math.sqrt(6)) < 0.01


def test_crop_lies_anywhere_in_the_image(shape):
    crop = RandomResizedCrop([4] * len(shape), scale=(0.2, 0.5))
    start, size = crop_boxes(crop_rows(crop, 2000, shape), shape)
    place = start / (torch.tensor(shape) - size)  # uniform in [0, 1], each axis by itself
    torch.testing.assert_close(place.mean(0), torch.full([len(shape)], 0.5), rtol=0, atol=4 / math.sqrt(12 * 2000))
    torch.testing.assert_close(place.var(0), torch.full([len(shape)], 1 / 12), rtol=0, atol=0.008)
    both = torch.cat([place, size.prod(1, keepdim=True)], 1)
    assert (torch.corrcoef(both.T) - torch.eye(len(shape) + 1)).abs().max() < 4.5 / math.sqrt(2000)


def test_crop_cuts_a_box_longer_than_the_image(shape):
    start, size = crop_boxes(crop_rows(RandomResizedCrop([8] * len(shape), (1, 1), aspect=4), 50, shape), shape)
    sides = size / torch.tensor(shape)
    torch.testing.assert_close(sides.max(1).values, torch.ones(50), rtol=0, atol=1e-4)
    assert sides.min() < 0.8
    assert start.min() >= -1e-4


def displacements(deformation, count, shape, margin):
    """The field of displacements away from the borders, where a deformed ramp shows it, (B, d, *inside)."""
    images = ramps(count, shape)
    inside = (slice(None), slice(None), *[slice(margin, n - margin) for n in shape])
    return (deformation(images, streams(count)) - images)[inside]


def fields(deformation, samples, shape, count=1):
    """Fields in voxels, (B, count, *shape)."""
    order = (0, *range(2, 2 + len(shape)), 1)
    return deformation._field(streams(samples), [1.0] * count, shape, order, torch.device("cpu")).movedim(-1, 1)


@pytest.mark.parametrize(("shape", "smoothness"), [((48, 40), 2.0), ((20, 24, 22), 1.5)])
@pytest.mark.parametrize("magnitude", [0.4, 1.0])
def test_elastic_displacement_has_the_magnitude_and_the_smoothness(shape, smoothness, magnitude):
    field = displacements(ElasticDeformation(magnitude, smoothness), 24, shape, margin=5)
    for axis in range(len(shape)):
        rms = field[:, axis].square().mean().sqrt()
        torch.testing.assert_close(rms, torch.tensor(magnitude), rtol=0.06, atol=0)
    for lag in (1, 2, 3):
        near = (field[..., lag:] * field[..., :-lag]).mean() / field.square().mean()
        expected = torch.tensor(math.exp(-((lag / smoothness) ** 2) / 4))  # of white noise smoothed by a Gaussian
        torch.testing.assert_close(near, expected, rtol=0, atol=0.07)


@pytest.mark.parametrize("shape", [(24, 20), (12, 10, 14)])
def test_elastic_field_has_no_mean_and_no_seam(shape):
    deformation = ElasticDeformation(2.0, 1.5)
    field = fields(deformation, 8, shape)
    torch.testing.assert_close(field.flatten(2).mean(2), torch.zeros(8, 1), rtol=0, atol=1e-6)
    across = (field[..., 0] - field[..., -1]).square().mean()  # the last voxel meets the first one again
    torch.testing.assert_close(across, (field[..., 1] - field[..., 0]).square().mean(), rtol=0.5, atol=0)
    moved = displacements(ElasticDeformation(0.4, 1.5), 40, shape, margin=3)
    correlation = torch.corrcoef(moved.transpose(0, 1).flatten(1)) - torch.eye(len(shape))
    assert correlation.abs().max() < 0.07  # independent along the axes


@pytest.mark.parametrize(
    ("shape", "axes"), [((12, 9), (0,)), ((12, 9), (1,)), ((8, 10, 6), (0, 1)), ((8, 10, 6), (2,)), ((8, 10, 6), None)]
)
def test_elastic_deformation_moves_only_along_the_named_axes(shape, axes):
    images = ramps(2, shape)
    moved = ElasticDeformation(1.0, 2.0, axes)(images, streams(2)) - images
    for axis in range(len(shape)):
        largest = moved[:, axis].abs().max()
        assert (largest > 0.3) if axes is None or axis in axes else (largest < 1e-5)


def test_deformation_within_slices_equals_that_of_the_volume():
    images = torch.rand(2, 2, 9, 8, 5, generator=torch.Generator().manual_seed(0))
    deformation = ElasticDeformation(1.0, 2.0, (0, 1))
    field = fields(deformation, 2, images.shape[2:], 2).flip(1)  # the last axis is drawn first
    field = torch.cat([field, torch.zeros(2, 1, 9, 8, 5)], 1)
    expected = resample(images, ramps(2, (9, 8, 5)) + field, "reflection")
    torch.testing.assert_close(deformation(images, streams(2)), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(40, 33), (24, 17, 20)])
def test_the_elastic_field_is_white_noise_smoothed_by_a_gaussian(shape):
    field = fields(ElasticDeformation(1.0, 4.0), 200, shape)[:, 0].double()
    power = torch.fft.fftn(field, dim=tuple(range(1, field.ndim))).abs().square().mean(0)
    frequencies = torch.meshgrid(*(torch.fft.fftfreq(n).double() for n in shape), indexing="ij")
    expected = torch.exp(-4 * (math.pi * 4) ** 2 * sum(f.square() for f in frequencies))
    expected.flatten()[0] = 0
    expected *= math.prod(shape) ** 2 / expected.sum()  # Parseval, of a field whose mean square is 1
    seen = expected > 1e-3 * expected.max()
    torch.testing.assert_close(power[seen], expected[seen], rtol=0.4, atol=0)
    assert power[~seen].max() < 3e-3 * power.max()


def test_a_crop_of_everything_and_a_deformation_of_magnitude_zero_change_nothing(shape):
    images = random_images(2, shape, 2)
    for change in (RandomResizedCrop(shape, scale=(1, 1), aspect=1), ElasticDeformation(0.0)):
        torch.testing.assert_close(change(images, streams(2)), images, rtol=0, atol=1e-5)


def test_elastic_deformation_mirrors_what_lies_outside(shape):
    images = 1 + ramps(20, shape)
    deformed = ElasticDeformation(1.0, 1.5)(images, streams(20))
    assert deformed.min() >= 1  # no zeros come in
    assert (deformed[:, 0, 0] == 1).float().mean() < 0.01  # the border voxel is not repeated: it would be half the time
