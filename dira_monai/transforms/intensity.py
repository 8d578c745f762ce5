"""What values voxels get: jitter, blur, noise and Models Genesis' non-linear intensity, for images in [0, 1].

``probability`` is the share of the samples that are changed at all.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..utils.seeded_random import SampleRandom
from .compose import InPlace

PIECE = 16  # voxels of a line that one small matrix product smooths
IN_CACHE = 2**17  # voxels that are smoothed at once on a CPU: all they need fits into its caches


def column(values: Tensor, images: Tensor) -> Tensor:
    """One value a sample, shape (B,), ready to meet images (B, C, *spatial)."""
    return values.to(images.device, non_blocking=True).reshape(-1, *[1] * (images.ndim - 1))


@dataclass(eq=False)
class IntensityJitter:
    """Random brightness, contrast and gamma, in this order, clipped to [0, 1].

    The color jitter of MoCo-v2 and DiRA, of which saturation and hue do nothing on grey images. torchvision draws the
    order anew each time; here it is fixed.

    Attributes:
        brightness: factor drawn from 1 - brightness .. 1 + brightness.
        contrast: factor of the distance from the image's mean, drawn likewise.
        gamma: exponent drawn log-uniformly from 1 / (1 + gamma) .. 1 + gamma.
    """

    brightness: float = 0.4
    contrast: float = 0.4
    gamma: float = 0.0
    probability: float = 0.8

    def __call__(self, images: Tensor, draws: SampleRandom) -> Tensor:
        """Changed images, same shape."""
        on = draws.bernoulli(self.probability).float()
        brightness = 1 + on * self.brightness * draws.uniform(low=-1, high=1)
        contrast = 1 + on * self.contrast * draws.uniform(low=-1, high=1)
        gamma = torch.exp(on * math.log1p(self.gamma) * draws.uniform(low=-1, high=1))
        changed = (images * column(brightness, images)).clamp_(0, 1)
        rows = changed.sum(-1).flatten(1)  # whole images' sums depend on the batch size in their last bit
        mean = rows.mean(1, dtype=torch.float64) / changed.shape[-1]
        rest = (mean * (1 - contrast.to(images.device, non_blocking=True))).float()
        changed = changed.mul_(column(contrast, images)).add_(column(rest, images)).clamp_(0, 1)
        return changed if self.gamma == 0 else changed.double().pow(column(gamma, images)).float()  # likewise


@dataclass(eq=False)
class GaussianBlur(InPlace):
    """Images smoothed by a Gaussian whose sigma is drawn for each sample; the border voxel is repeated outside.

    Attributes:
        sigma: smallest and largest sigma, voxels.
    """

    sigma: Sequence[float] = (0.1, 2.0)
    probability: float = 0.5

    def change(self, images: Sequence[np.ndarray], draws: SampleRandom) -> None:
        """Smooth some of images (C, *spatial), as many at once as the CPU's caches hold."""
        rows, band = self._drawn(draws)
        if len(rows) == 0:
            return
        step = max(1, IN_CACHE // images[0].size)
        for places, matrix in zip(rows.split(step), band.split(step), strict=True):
            chosen = [torch.from_numpy(images[row]) for row in places.tolist()]
            for image, smooth in zip(chosen, _convolve(torch.stack(chosen), matrix), strict=True):
                image.copy_(smooth)

    def changed(self, images: Tensor, draws: SampleRandom) -> Tensor:
        """Changed images, same shape."""
        rows, band = (part.to(images.device, non_blocking=True) for part in self._drawn(draws))
        return images.index_copy(0, rows, _convolve(images.index_select(0, rows), band)) if len(rows) > 0 else images

    def _drawn(self, draws: SampleRandom) -> tuple[Tensor, Tensor]:
        """Which samples are smoothed, and the matrix of each, see ``_band``; on the CPU: no wait for the device."""
        on = draws.bernoulli(self.probability)
        sigma = draws.uniform(low=self.sigma[0], high=self.sigma[1]).clamp(min=1e-3)
        rows = on.nonzero()[:, 0]
        radius = math.ceil(3 * self.sigma[1])
        weights = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma[rows, None]).square())
        weights = weights.where(weights > 1e-9, 0.0)  # what float32 cannot show; denormal numbers take a processor long
        return rows, _band(weights / weights.sum(1, keepdim=True), PIECE)


def _band(weights: Tensor, length: int) -> Tensor:
    """The matrices (B, length, length + 2r) that convolve pieces of lines with kernels (B, 2r + 1)."""
    place = torch.arange(length)[:, None] + torch.arange(weights.shape[1])
    band = torch.zeros(len(weights), length, length + weights.shape[1] - 1)
    return band.scatter(2, place.expand(len(weights), -1, -1), weights[:, None].expand(-1, length, -1))


def _convolve(images: Tensor, band: Tensor) -> Tensor:
    """Images (B, C, *spatial) convolved along each axis, the border repeated outside: pieces times banded matrices."""
    length, width = band.shape[1:]
    radius = (width - length) // 2
    for axis, extent in enumerate(images.shape[2:], start=2):
        margins = [0] * 2 * (images.ndim - axis - 1) + [radius, radius + -extent % length]
        padded = F.pad(images, margins + [0] * 2 * (axis - 2), mode="replicate")
        if axis == images.ndim - 1:
            pieces = padded.flatten(1, -2).unfold(2, width, length).transpose(1, 2)  # (B, pieces, lines, width)
            lines = (pieces @ band.mT[:, None]).transpose(1, 2).flatten(2)
        else:  # voxels that lie side by side stay so: (B, lines, pieces, width, voxels)
            pieces = padded.flatten(1, axis - 1).flatten(3).unfold(2, width, length).mT
            lines = band[:, None, None] @ pieces
        shape = [*images.shape[:axis], extent + -extent % length, *images.shape[axis + 1 :]]
        images = lines.reshape(shape).narrow(axis, 0, extent)
    return images


@dataclass(eq=False)
class GaussianNoise:
    """Images with white noise, whose standard deviation is drawn for each sample, clipped to [0, 1].

    Attributes:
        sigma: largest standard deviation, in units of the intensity range.
    """

    sigma: float = 0.05
    probability: float = 0.5

    def __call__(self, images: Tensor, draws: SampleRandom) -> Tensor:
        """Changed images, same shape."""
        sigma = draws.bernoulli(self.probability) * draws.uniform(high=self.sigma)
        noise = draws.normal(*images.shape[1:], device=images.device)
        return (images + column(sigma, images) * noise).clamp(0, 1)


@dataclass(eq=False)
class NonlinearIntensity(InPlace):
    """Intensities mapped by a random monotone Bezier curve, rising or falling, of Models Genesis.

    A cubic curve through (0, 0), two random points and (1, 1) (Zhou et al., 2021, https://arxiv.org/abs/2004.07882,
    section II-B). Read from a table of 256 entries with linear interpolation instead of 100,000 points: the entries
    agree to 1e-3; between two entries the results differ more where a curve is nearly vertical.

    Attributes:
        inverted: share of the curves that fall, so that dark becomes bright.
    """

    inverted: float = 0.5

    def change(self, images: Sequence[np.ndarray], draws: SampleRandom) -> None:
        """Map images (C, *spatial), one after the other, as fits into the CPU's caches."""
        for image, table in zip(map(torch.from_numpy, images), self._tables(draws), strict=True):
            image.copy_(_read_table(image[None], table[None])[0])

    def changed(self, images: Tensor, draws: SampleRandom) -> Tensor:
        """Changed images, same shape."""
        return _read_table(images, self._tables(draws).to(images.device, non_blocking=True))

    def _tables(self, draws: SampleRandom) -> Tensor:
        """The values of each sample's curve, (B, entries)."""
        return bezier_table(draws.uniform(2), draws.uniform(2), draws.bernoulli(self.inverted))


def _read_table(images: Tensor, table: Tensor) -> Tensor:
    """Images in [0, 1], (B, C, *spatial), mapped by tables of evenly spaced intensities, (B, entries)."""
    entries, slope = table.shape[1], torch.diff(table, dim=1, append=table[:, -1:])
    position = (images.flatten(1) * (entries - 1)).clamp_(0, entries - 1)
    below = position.int()
    share = position.sub_(below)
    below = below.add_(torch.arange(len(images), device=images.device, dtype=torch.int32)[:, None] * entries)
    mapped = table.flatten().index_select(0, below.flatten())
    return mapped.addcmul_(slope.flatten().index_select(0, below.flatten()), share.flatten()).reshape(images.shape)


def bezier_table(x: Tensor, y: Tensor, inverted: Tensor, entries: int = 256) -> Tensor:
    """Values of Bezier curves at evenly spaced intensities, shape (B, entries).

    Both coordinates of such a curve rise with its parameter, since the inner points lie in the unit square; the falling
    curve reads the second coordinate backwards. ``x`` and ``y``, (B, 2), are the coordinates of the two inner points,
    in [0, 1]; ``inverted``, bool, (B,), says which curves fall.
    """
    t = torch.linspace(0, 1, 8 * entries)
    basis = torch.stack([3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2])
    # no matrix product: its last bits would depend on the number of curves
    curve_x, curve_y = ((inner[:, :, None] * basis).sum(1) + t**3 for inner in (x, y))
    curve_x = curve_x.clamp(max=1)
    curve_y = torch.where(inverted[:, None], curve_y.flip(1), curve_y)
    wanted = torch.linspace(0, 1, entries).expand(len(x), -1).contiguous()
    right = torch.searchsorted(curve_x.contiguous(), wanted).clamp(1, len(t) - 1)
    x0, x1 = curve_x.gather(1, right - 1), curve_x.gather(1, right)
    share = ((wanted - x0) / (x1 - x0).clamp(min=1e-8)).clamp(0, 1)
    return torch.lerp(curve_y.gather(1, right - 1), curve_y.gather(1, right), share)
