"""What values voxels get: jitter, blur, noise and Models Genesis' non-linear intensity, for images in [0, 1]."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .draws import Draws


def column(values: Tensor, images: Tensor) -> Tensor:
    """One value a sample, shape (B,), ready to meet images (B, C, *spatial)."""
    return values.to(images.device, non_blocking=True).reshape(-1, *[1] * (images.ndim - 1))


class Jitter:
    """Random brightness, contrast and gamma, in this order, clipped to [0, 1].

    The color jitter of MoCo-v2 and DiRA, of which saturation and hue do nothing on grey images. torchvision draws the
    order anew each time; here it is fixed.

    Attributes:
        brightness: factor drawn from 1 - brightness .. 1 + brightness.
        contrast: factor of the distance from the image's mean, drawn likewise.
        gamma: exponent drawn log-uniformly from 1 / (1 + gamma) .. 1 + gamma.
        probability: share of the samples that are changed at all.
    """

    def __init__(
        self, brightness: float = 0.4, contrast: float = 0.4, gamma: float = 0.0, probability: float = 0.8
    ) -> None:
        self.brightness = brightness
        self.contrast = contrast
        self.gamma = gamma
        self.probability = probability

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """Changed images, same shape."""
        on = draws.chance(self.probability).float()
        brightness = 1 + on * self.brightness * draws.uniform(low=-1, high=1)
        contrast = 1 + on * self.contrast * draws.uniform(low=-1, high=1)
        gamma = torch.exp(on * math.log1p(self.gamma) * draws.uniform(low=-1, high=1))
        changed = (images * column(brightness, images)).clamp_(0, 1)
        mean = changed.flatten(1).mean(1, dtype=torch.float64)  # in float32 the last bit depends on the batch size
        rest = (mean * (1 - contrast.to(images.device, non_blocking=True))).float()
        changed = changed.mul_(column(contrast, images)).add_(column(rest, images)).clamp_(0, 1)
        return changed if self.gamma == 0 else changed.double().pow(column(gamma, images)).float()  # likewise


class GaussianBlur:
    """Images smoothed by a Gaussian whose sigma is drawn for each sample; the border voxel is repeated outside.

    Attributes:
        sigma: smallest and largest sigma, voxels.
        probability: share of the samples that are blurred.
    """

    def __init__(self, sigma: Sequence[float] = (0.1, 2.0), probability: float = 0.5) -> None:
        self.sigma = sigma
        self.probability = probability

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """Blurred images, same shape."""
        on = draws.chance(self.probability)
        sigma = draws.uniform(low=self.sigma[0], high=self.sigma[1]).clamp(min=1e-3)
        rows = on.nonzero()[:, 0]  # on the CPU: no wait for the device
        if len(rows) == 0:
            return images
        radius = math.ceil(3 * self.sigma[1])
        weights = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma[rows, None]).square())
        weights = weights / weights.sum(1, keepdim=True)
        chosen = rows.to(images.device, non_blocking=True)
        blurred = images[chosen]
        for axis in range(2, images.ndim):
            matrix = _convolution(weights, images.shape[axis]).to(images.device, non_blocking=True)
            blurred = _apply_along(blurred, matrix, axis)
        return images.index_copy(0, chosen, blurred)


def _convolution(weights: Tensor, length: int) -> Tensor:
    """The matrices (B, length, length) that convolve lines with kernels (B, 2r + 1), the border repeated outside."""
    radius = weights.shape[1] // 2
    source = (torch.arange(length)[:, None] + torch.arange(-radius, radius + 1)).clamp(0, length - 1)
    matrix = torch.zeros(len(weights), length, length)
    return matrix.scatter_add(2, source.expand(len(weights), -1, -1), weights[:, None].expand(-1, length, -1))


def _apply_along(images: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """Matrices (B, n, n), one a sample, applied to the lines along one axis of images (B, C, *spatial)."""
    if axis == images.ndim - 1:
        return (images.flatten(1, -2) @ matrix.transpose(1, 2)).reshape(images.shape)
    return (matrix[:, None] @ images.flatten(1, axis - 1).flatten(3)).reshape(images.shape)


class GaussianNoise:
    """Images with white noise, whose standard deviation is drawn for each sample, clipped to [0, 1].

    Attributes:
        sigma: largest standard deviation, in units of the intensity range.
        probability: share of the samples that get noise.
    """

    def __init__(self, sigma: float = 0.05, probability: float = 0.5) -> None:
        self.sigma = sigma
        self.probability = probability

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """Noisy images, same shape."""
        sigma = draws.chance(self.probability) * draws.uniform(high=self.sigma)
        noise = draws.normal(*images.shape[1:], device=images.device)
        return (images + column(sigma, images) * noise).clamp(0, 1)


class NonlinearIntensity:
    """Intensities mapped by a random monotone Bezier curve, rising or falling, of Models Genesis.

    A cubic curve through (0, 0), two random points and (1, 1) (Zhou et al., 2021, https://arxiv.org/abs/2004.07882,
    section II-B). Read from a table of 256 entries with linear interpolation instead of 100,000 points: the entries
    agree to 1e-3; between two entries the results differ more where a curve is nearly vertical.

    Attributes:
        inverted: share of the curves that fall, so that dark becomes bright.
    """

    def __init__(self, inverted: float = 0.5) -> None:
        self.inverted = inverted

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """Mapped images, same shape, in [0, 1]."""
        table = bezier_table(draws.uniform(2), draws.uniform(2), draws.chance(self.inverted))
        table = table.to(images.device, non_blocking=True)
        last = table.shape[1] - 1
        position = images.flatten(1).clamp(0, 1) * last
        below = position.long().clamp(max=last - 1)
        mapped = torch.lerp(table.gather(1, below), table.gather(1, below + 1), position - below)
        return mapped.reshape(images.shape)


def bezier_table(x: Tensor, y: Tensor, inverted: Tensor, entries: int = 256) -> Tensor:
    """Values of Bezier curves at evenly spaced intensities, shape (B, entries).

    Both coordinates of such a curve rise with its parameter, since the inner points lie in the unit square; the falling
    curve reads the second coordinate backwards.

    Args:
        x: first coordinates of the two inner points, in [0, 1], shape (B, 2).
        y: second coordinates, shape (B, 2).
        inverted: which curves fall, bool, shape (B,).
        entries: length of the table.
    """
    t = torch.linspace(0, 1, 8 * entries)
    basis = torch.stack([3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2])
    curve_x, curve_y = (x @ basis + t**3).clamp(max=1), y @ basis + t**3
    curve_y = torch.where(inverted[:, None], curve_y.flip(1), curve_y)
    wanted = torch.linspace(0, 1, entries).expand(len(x), -1).contiguous()
    right = torch.searchsorted(curve_x.contiguous(), wanted).clamp(1, len(t) - 1)
    x0, x1 = curve_x.gather(1, right - 1), curve_x.gather(1, right)
    share = ((wanted - x0) / (x1 - x0).clamp(min=1e-8)).clamp(0, 1)
    return torch.lerp(curve_y.gather(1, right - 1), curve_y.gather(1, right), share)
