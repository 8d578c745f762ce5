"""What values voxels get: jitter, blur, noise and Models Genesis' non-linear intensity, for images in [0, 1]."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
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
        changed = (images * column(brightness, images)).clamp(0, 1)
        mean = changed.flatten(1).double().mean(1).float()  # in float32 the last bit depends on the batch size
        changed = torch.lerp(column(mean, images), changed, column(contrast, images)).clamp(0, 1)
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
        sigma = torch.where(
            on, draws.uniform(low=self.sigma[0], high=self.sigma[1]).clamp(min=1e-3), torch.tensor(1e-3)
        )
        radius = math.ceil(3 * self.sigma[1])
        weights = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma[:, None]).square())
        weights = (weights / weights.sum(1, keepdim=True)).to(images.device)
        for axis in range(2, images.ndim):
            images = self._along(images, weights, axis)
        return images

    @staticmethod
    def _along(images: Tensor, weights: Tensor, axis: int) -> Tensor:
        """Each sample's kernel, a row of ``weights`` (B, 2r + 1), applied along one axis by a grouped convolution."""
        radius = weights.shape[1] // 2
        moved = images.movedim(axis, -1)
        samples, length = len(moved), moved.shape[-1]
        lines = moved.reshape(samples, -1, length).transpose(0, 1)  # (lines, B, length)
        lines = F.pad(lines, (radius, radius), mode="replicate")
        blurred = F.conv1d(lines, weights[:, None], groups=samples)
        return blurred.transpose(0, 1).reshape(moved.shape).movedim(-1, axis)


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
