"""Colors of RGB images in [0, 1], any number of axes; images of one channel have no color and keep what they have.

``probability`` is the share of the samples that are changed.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..utils.errors import InputError
from ..utils.seeded_random import SampleRandom
from .intensity import IntensityJitter, column


@dataclass(eq=False)
class ColorJitter:
    """Random brightness, contrast, saturation and hue, in this order, clipped to [0, 1].

    The color jitter of torchvision (brightness, contrast, saturation: mixtures with black, gray and the image's own
    gray values; hue: a rotation in HSV), with three deviations: the order is fixed, where torchvision draws it anew
    each time; contrast is around the mean of all channels instead of that of the gray values; nothing is rounded to 8
    bits. Images of one channel get brightness and contrast alone.

    Attributes:
        brightness: factor drawn from 1 - brightness .. 1 + brightness.
        contrast: factor of the distance from the image's mean, drawn likewise.
        saturation: factor of the distance from the pixel's gray value, drawn likewise.
        hue: rotation drawn from -hue .. hue, in turns of the color circle, at most 0.5.
    """

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    probability: float = 0.8

    def __post_init__(self) -> None:
        if not 0 <= self.hue <= 0.5:
            raise InputError(f"hue must lie in [0, 0.5] turns, got {self.hue}")
        self.jitter = IntensityJitter(self.brightness, self.contrast, probability=1.0)

    def __call__(self, images: Tensor, draws: SampleRandom) -> Tensor:
        """Changed images, same shape."""
        on = draws.bernoulli(self.probability)
        changed = self.jitter(images, draws)
        saturation = 1 + self.saturation * draws.uniform(low=-1, high=1)
        turns = self.hue * draws.uniform(low=-1, high=1)
        if has_color(images):
            changed = torch.lerp(luma(changed), changed, column(saturation, images)).clamp(0, 1)
            changed = rotate_hue(changed, turns)
        return torch.where(column(on, images), changed, images)


@dataclass(eq=False)
class Grayscale:
    """Images whose channels are all their gray values; images of one channel stay as they are."""

    probability: float = 0.2

    def __call__(self, images: Tensor, draws: SampleRandom) -> Tensor:
        """Changed images, same shape."""
        on = draws.bernoulli(self.probability)
        return torch.where(column(on, images), luma(images), images) if has_color(images) else images


@dataclass(eq=False)
class Solarize:
    """Images whose values from a threshold on are inverted: x becomes 1 - x; any number of channels.

    The solarization of BYOL (Grill et al., 2020, https://arxiv.org/abs/2006.07733, appendix B).

    Attributes:
        threshold: smallest value that is inverted, in [0, 1].
    """

    threshold: float = 0.5
    probability: float = 0.2

    def __call__(self, images: Tensor, draws: SampleRandom) -> Tensor:
        """Changed images, same shape."""
        on = column(draws.bernoulli(self.probability), images)
        return torch.where(on & (images >= self.threshold), 1 - images, images)


def has_color(images: Tensor) -> bool:
    """Whether images have three channels, taken for red, green and blue, and not one; other numbers are refused."""
    if images.shape[1] not in (1, 3):
        raise InputError(f"colors can be changed in images of 1 or 3 channels, got {images.shape[1]}")
    return images.shape[1] == 3


def luma(images: Tensor) -> Tensor:
    """Gray values 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601) of images (B, 3, *spatial), shape (B, 1, *spatial)."""
    red, green, blue = images.split(1, dim=1)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def rotate_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Images (B, 3, *spatial) in [0, 1] whose hue in HSV (Smith, 1978, https://doi.org/10.1145/965139.807361) is moved.

    S and V stay. ``turns``, (B,), says by how much of the color circle; red to green is a third.
    """
    value, chroma = images.amax(1), images.amax(1) - images.amin(1)
    red, green, blue = images.unbind(1)
    divisor = torch.where(chroma > 0, chroma, 1)
    sixths = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, (blue - red) / divisor + 2, (red - green) / divisor + 4),
    )
    sixths = sixths + 6 * column(turns, images)[:, 0]
    channels = []
    for place in (5, 3, 1):  # of a channel, chroma is missing by how far the hue is from its third of the circle
        distance = (sixths + place) % 6
        channels.append(value - chroma * torch.minimum(distance, 4 - distance).clamp(0, 1))
    return torch.stack(channels, dim=1)
