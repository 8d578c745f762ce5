import math

import numpy as np
import pytest
import torch
from random_images import random_images, streams

from dira_monai.transforms import intensity as intensity
from dira_monai.transforms.intensity import (
    GaussianBlur,
    GaussianNoise,
    IntensityJitter,
    NonlinearIntensity,
    bezier_table,
)


@pytest.fixture(params=[(7, 5), (4, 5, 3)])
def shape(request):
    return request.param


def untouched(changed, images):
    return (changed == images).flatten(1).all(1)


def only_value(samples):
    """The one value that each row of (B, n) is made of."""
    torch.testing.assert_close(samples, samples[:, :1].expand_as(samples), rtol=1e-3, atol=1e-3)
    return samples.mean(1)


def assert_uniform(values, low, high):
    width, n = high - low, len(values)
    assert low - 1e-4 < values.min() < low + 0.02 * width
    assert high - 0.02 * width < values.max() < high + 1e-4
    assert abs(values.mean() - (low + high) / 2) < 4 * width / math.sqrt(12 * n)
    assert abs(values.std() - width / math.sqrt(12)) < 0.05 * width


@pytest.mark.parametrize(
    "change",
    [
        IntensityJitter(0.4, 0.4, gamma=0.5, probability=0.0),
        IntensityJitter(0.0, 0.0, gamma=0.0, probability=1.0),
        GaussianBlur(probability=0.0),
        GaussianNoise(probability=0.0),
        GaussianNoise(sigma=0.0, probability=1.0),
    ],
)
def test_nothing_to_do_changes_no_bit(change, shape):
    images = random_images(20, shape)
    assert untouched(change(images, streams(20)), images).all()


@pytest.mark.parametrize(
    "change",
    [
        IntensityJitter(gamma=0.5, probability=0.3),
        GaussianBlur((1.0, 2.0), probability=0.3),
        GaussianNoise(probability=0.3),
    ],
)
def test_probability_is_the_share_of_changed_samples(change, shape):
    images = random_images(2000, shape)
    share = 1 - untouched(change(images, streams(2000)), images).float().mean()
    assert abs(share - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 2000)


def test_brightness_is_one_uniform_factor(shape):
    images = random_images(2000, shape, low=0.3, high=0.5)
    changed = IntensityJitter(brightness=0.4, contrast=0.0, probability=1.0)(images, streams(2000))
    assert_uniform(only_value((changed / images).flatten(1)), 0.6, 1.4)


def test_contrast_is_a_uniform_factor_around_the_mean_of_the_image(shape):
    images = (
        random_images(2000, shape, low=0.3, high=0.5)
        + 0.2 * torch.arange(2000).reshape(-1, 1, *[1] * len(shape)) / 2000
    )
    changed = IntensityJitter(brightness=0.0, contrast=0.4, probability=1.0)(images, streams(2000)).flatten(1)
    mean = images.flatten(1).mean(1)
    torch.testing.assert_close(changed.mean(1), mean)
    ends = images.flatten(1).argmax(1, keepdim=True), images.flatten(1).argmin(1, keepdim=True)
    before, after = ((i.gather(1, ends[0]) - i.gather(1, ends[1]))[:, 0] for i in (images.flatten(1), changed))
    factor = after / before
    assert_uniform(factor, 0.6, 1.4)
    torch.testing.assert_close(changed, mean[:, None] + factor[:, None] * (images.flatten(1) - mean[:, None]))


def test_brightness_and_contrast_are_drawn_independently(shape):
    images = random_images(2000, shape, low=0.4, high=0.5)
    changed = IntensityJitter(0.3, 0.3, probability=1.0)(images, streams(2000)).flatten(1)
    brightness = changed.mean(1) / images.flatten(1).mean(1)
    contrast = changed.std(1) / images.flatten(1).std(1) / brightness
    assert_uniform(brightness, 0.7, 1.3)
    assert_uniform(contrast, 0.7, 1.3)
    assert abs(torch.corrcoef(torch.stack([brightness, contrast]))[0, 1]) < 4 / math.sqrt(2000)


def test_gamma_is_one_log_uniform_exponent(shape):
    images = random_images(2000, shape, low=0.2, high=0.8)
    changed = IntensityJitter(0.0, 0.0, gamma=0.5, probability=1.0)(images, streams(2000))
    exponent = only_value((changed.log() / images.log()).flatten(1))
    assert_uniform(exponent.log(), -math.log(1.5), math.log(1.5))


def test_jitter_clips_before_the_mean_is_taken():
    images = torch.tensor([0.0, 1.0]).repeat(200, 1, 1, 1)
    changed = IntensityJitter(0.4, 0.0, probability=1.0)(images, streams(200))[:, 0, 0]
    assert changed[:, 0].eq(0).all()
    assert 0.05 < changed[:, 1].eq(1).float().mean() < 0.95
    assert changed.max() == 1
    both = IntensityJitter(0.4, 0.4, probability=1.0)(images, streams(200))[:, 0, 0]
    assert both.sum(1).max() < 1 + 1e-6  # a bright image has the mean 1/2, not half of the factor
    stretched = IntensityJitter(0.0, 0.4, probability=1.0)(images, streams(200))
    assert stretched.min() == 0
    assert stretched.max() == 1


@pytest.mark.parametrize("sigma", [0.6, 1.5])
def test_blur_equals_numpy_up_to_the_border(shape, sigma):
    images = random_images(2, shape, 2)
    radius = math.ceil(3 * sigma)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    expected = images.numpy().astype(np.float64)
    for axis in range(2, images.ndim):
        expected = np.apply_along_axis(
            lambda line: np.convolve(np.pad(line, radius, "edge"), kernel, "valid"), axis, expected
        )
    changed = GaussianBlur((sigma, sigma), probability=1.0)(images, streams(2))
    torch.testing.assert_close(changed, torch.from_numpy(expected).float())
    constant = torch.full_like(images, 0.7)
    torch.testing.assert_close(GaussianBlur(probability=1.0)(constant, streams(2)), constant)


def test_blur_turns_an_impulse_into_a_gaussian_of_uniform_sigma(spatial_dims):
    n = 15
    images = torch.zeros(300, 1, *[n] * spatial_dims)
    images[(slice(None), 0, *[n // 2] * spatial_dims)] = 1
    changed = GaussianBlur((1.0, 2.0), probability=1.0)(images, streams(300))[:, 0]
    torch.testing.assert_close(changed.flatten(1).sum(1), torch.ones(300))
    squares = (torch.arange(n) - n // 2).float().square()
    sigma = []
    for axis in range(spatial_dims):
        profile = changed.movedim(axis + 1, 1).flatten(2).sum(2)
        sigma.append((profile @ squares).sqrt())
    torch.testing.assert_close(sigma[0], sigma[-1])  # the same along each axis
    assert abs(sigma[0].mean() - 1.5) < 4 / math.sqrt(12 * 300)
    assert 1 - 1e-2 < sigma[0].min() < 1.03
    assert 1.93 < sigma[0].max() < 2.0  # the tails beyond three sigma are left out


@pytest.mark.parametrize("shape", [(60, 50), (15, 20, 10)])
def test_noise_is_normal_and_its_sigma_uniform(shape):
    images = torch.full((200, 1, *shape), 0.5)
    noise = GaussianNoise(sigma=0.08, probability=1.0)(images, streams(200)).sub(0.5).flatten(1)
    sigma = noise.std(1)
    assert sigma.max() < 0.08 * (1 + 4 / math.sqrt(2 * 3000))
    assert abs(sigma.mean() - 0.04) < 4 * 0.08 / math.sqrt(12 * 200)
    assert abs(sigma.std() - 0.08 / math.sqrt(12)) < 0.003
    z = noise / sigma[:, None]
    assert z.mean().abs() < 4 / math.sqrt(z.numel())
    assert abs(z.pow(4).mean() - 3) < 0.05
    noisy = GaussianNoise(sigma=0.5, probability=1.0)(torch.tensor([0.0, 1.0]).repeat(50, 1, 10), streams(50))
    assert (noisy.min(), noisy.max()) == (0, 1)  # clipped


def bezier(x, y, inverted):
    """A curve of 100,000 points in float64 as numpy.interp wants it: rising x."""
    t = np.linspace(0, 1, 100_000)
    basis = np.stack([3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3])
    curve_x, curve_y = ([*points, 1.0] @ basis for points in (x, y))
    return curve_x, curve_y[::-1] if inverted else curve_y


def test_bezier_table_equals_the_published_interpolation():
    draws = streams(60)
    x, y, inverted = draws.uniform(2), draws.uniform(2), draws.bernoulli(0.5)
    tables = bezier_table(x, y, inverted)
    assert tables.shape == (60, 256)
    for table, a, b, falls in zip(tables, x.tolist(), y.tolist(), inverted.tolist(), strict=True):
        expected = np.interp(np.linspace(0, 1, 256), *bezier(a, b, falls))
        assert np.abs(table.numpy() - expected).max() < 1e-4


@pytest.mark.parametrize(("inverted", "sign"), [(False, 1), (True, -1)])
def test_bezier_tables_are_monotone_from_end_to_end(inverted, sign):
    draws = streams(500)
    tables = bezier_table(draws.uniform(2), draws.uniform(2), torch.full([500], inverted))
    ends = torch.tensor([1.0, 0.0] if inverted else [0.0, 1.0]).expand(500, 2)
    torch.testing.assert_close(tables[:, [0, -1]], ends, rtol=0, atol=1e-6)
    assert (sign * tables.diff()).min() > -1e-5
    assert tables.min() > -1e-6
    assert tables.max() < 1 + 1e-6


def test_bezier_of_equal_coordinates_is_a_straight_line():
    line = torch.linspace(0, 1, 64)
    x, inverted = torch.tensor([[0.2, 0.9], [0.3, 0.7]]), torch.tensor([False, True])
    tables = bezier_table(x, x, inverted, entries=64)  # the falling one only for points that mirror each other
    torch.testing.assert_close(tables, torch.stack([line, 1 - line]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(16, 16), (4, 8, 8)])
def test_gray_levels_follow_the_published_interpolation(shape, monkeypatch):
    curves = []

    def record(*arguments):
        curves.extend(zip(*(a.tolist() for a in arguments), strict=True))
        return bezier_table(*arguments)

    monkeypatch.setattr(intensity, "bezier_table", record)
    levels = torch.arange(256).float() / 255  # all that an image of 8 bits has
    images = levels[torch.randperm(256, generator=torch.Generator().manual_seed(0))].reshape(1, 1, *shape)
    changed = NonlinearIntensity()(images.repeat(20, 1, *[1] * len(shape)), streams(20))
    for result, curve in zip(changed, curves, strict=True):
        expected = np.interp(images[0].numpy(), *bezier(*curve))
        assert np.abs(result.numpy() - expected).max() < 1e-3


def test_intensities_between_the_entries_are_interpolated(shape, monkeypatch):
    def squares(x, y, inverted):
        return torch.linspace(0, 1, 256).square().expand(len(x), -1)

    monkeypatch.setattr(intensity, "bezier_table", squares)
    images = random_images(3, shape, low=-0.1, high=1.1)
    changed = NonlinearIntensity()(images, streams(3))
    torch.testing.assert_close(changed, images.clamp(0, 1).square(), rtol=0, atol=(0.5 / 255) ** 2 + 1e-6)


@pytest.mark.parametrize("inverted", [0.0, 0.3, 1.0])
def test_inverted_is_the_share_of_falling_curves(inverted):
    images = torch.tensor([0.0, 1.0]).repeat(1000, 1, 1)
    changed = NonlinearIntensity(inverted)(images, streams(1000))[:, 0]
    falls = changed[:, 0] > changed[:, 1]
    torch.testing.assert_close(changed, torch.stack([falls, ~falls], 1).float(), rtol=0, atol=1e-5)
    assert abs(falls.float().mean() - inverted) <= 4 * math.sqrt(inverted * (1 - inverted) / 1000)
