"""In-painting and out-painting: boxes of the image that are replaced, or all that is kept.

Sizes are shares of the image's extent along each axis; a share of 10 / 224 is the published 10 pixels at 224.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..utils.errors import InputError
from ..utils.seeded_random import SampleRandom
from .compose import InPlace

FILLS = ("zero", "noise", "constant")


class Boxes(NamedTuple):
    """N boxes a sample: first voxel and length along each axis, int64, (B, N, d), and which are used, bool, (B, N)."""

    start: Tensor
    length: Tensor
    used: Tensor

    def one(self, n: int) -> "Boxes":
        """Box ``n`` of each sample alone."""
        return Boxes(*(part[:, n : n + 1] for part in self))


def draw_boxes(
    draws: SampleRandom, shape: Sequence[int], count: int, size: Sequence[float], margin: float = 0.0, stop: float = 0.0
) -> Boxes:
    """Random boxes inside the image, N = ``count`` of them drawn.

    Args:
        draws: the samples' random numbers.
        shape: size of the image, voxels.
        count: of boxes.
        size: smallest and largest length, as a share of the extent; each axis is drawn by itself.
        margin: distance kept to the borders, as a share of the extent.
        stop: probability, after each box, that no further box of the sample is used.
    """
    extent = np.tile(np.asarray(shape, np.float32), (count, 1))  # NumPy takes a fifth of torch's time for few numbers
    shortest, longest = ((share * extent).round().clip(1) for share in size)
    chosen, place = (draws.uniform(count, len(shape)).numpy() for _ in range(2))
    length = np.minimum(shortest + np.floor(chosen * (longest - shortest + 1)), extent)
    border = np.minimum((margin * extent).round(), np.floor((extent - length) / 2))
    start = border + np.floor(place * (extent - length - 2 * border + 1))
    going_on = draws.uniform(count).numpy() >= stop
    going_on[:, 0] = True
    used = np.logical_and.accumulate(going_on, axis=1)
    return Boxes(*map(torch.from_numpy, (start.astype(np.int64), length.astype(np.int64), used)))


def union_mask(boxes: Boxes, shape: Sequence[int], device: torch.device) -> Tensor:
    """True inside any box of each sample, shape (B, 1, *shape)."""
    first, *others = [
        ((position >= boxes.start[:, :, axis, None]) & (position < (boxes.start + boxes.length)[:, :, axis, None])).to(
            device, torch.float32, non_blocking=True
        )
        for axis, position in enumerate(map(torch.arange, shape))
    ]  # (B, N, extent)
    inside = others[-1] * boxes.used[:, :, None].to(device, torch.float32, non_blocking=True)
    for rows in others[-2::-1]:
        inside = (rows[..., None] * inside[:, :, None]).flatten(2)
    return (first.transpose(1, 2) @ inside > 0).reshape(-1, 1, *shape)  # a product counts the boxes around a voxel


def paste(images: Sequence[np.ndarray], source: Sequence[np.ndarray], boxes: Boxes) -> None:
    """Give images (C, *spatial) what the source, of the same shapes, has inside the boxes of each sample."""
    corners = (boxes.start.tolist(), (boxes.start + boxes.length).tolist(), boxes.used.tolist())
    for image, own, *sample in zip(images, source, *corners, strict=True):
        for start, stop, used in zip(*sample, strict=True):
            if used:
                inside = (slice(None), *map(slice, start, stop))
                image[inside] = own[inside]


@dataclass(eq=False)
class _Painting(InPlace):
    """Common part of in- and out-painting: boxes and what they are filled with."""

    count: int
    size: Sequence[float]
    margin: float = 3 / 224
    stop: float = 0.1
    fill: str = "zero"

    def __post_init__(self) -> None:
        if self.fill not in FILLS:
            raise InputError(f"fill must be one of {', '.join(FILLS)}, got {self.fill!r}")

    def _boxes(self, shape: Sequence[int], draws: SampleRandom) -> Boxes:
        return draw_boxes(draws, shape, self.count, self.size, self.margin, self.stop)

    def _fillings(
        self, shape: Sequence[int], draws: SampleRandom, count: int, device: torch.device | None = None
    ) -> Sequence[Tensor]:
        """What each of ``count`` boxes, or all of them, are filled with, (B, *shape)."""
        if self.fill == "noise":
            return [draws.uniform(*shape, device=device)]
        samples = len(draws.seeds)
        if self.fill == "zero":
            return [torch.zeros(1, device=device).expand(samples, *shape)]
        constant = draws.uniform(count).to(device, non_blocking=True).reshape(samples, count, *[1] * len(shape))
        return [values.expand(samples, *shape) for values in constant.unbind(1)]


class InPainting(_Painting):
    """Boxes of the image replaced by ``fill``: context must be filled in (DiRA; Models Genesis).

    DiRA draws up to 10 boxes of 10 to 70 pixels at 224, 3 pixels from the borders, and stops after each with
    probability 0.1 (`count`, `size`, `margin`, `stop`), filled with zero. TransVW takes one box of 1/6 to 1/3 of each
    axis, filled with uniform noise; Models Genesis one random constant a box (``fill``: zero, noise or constant).
    """

    def change(self, images: Sequence[np.ndarray], draws: SampleRandom) -> None:
        """Paint boxes into images (C, *spatial)."""
        for filling, boxes in self._painted(images[0].shape, draws):
            paste(images, list(filling.numpy()), boxes)

    def changed(self, images: Tensor, draws: SampleRandom) -> Tensor:
        """Painted images, same shape."""
        for filling, boxes in self._painted(images.shape[1:], draws, images.device):
            images = torch.where(union_mask(boxes, images.shape[2:], images.device), filling, images)
        return images

    def _painted(
        self, shape: Sequence[int], draws: SampleRandom, device: torch.device | None = None
    ) -> Iterator[tuple[Tensor, Boxes]]:
        """Fillings, (B, *shape), and the boxes that each of them fills, in order."""
        boxes = self._boxes(shape[1:], draws)
        fillings = self._fillings(shape, draws, self.count, device)
        return zip(fillings, map(boxes.one, range(self.count)) if self.fill == "constant" else [boxes], strict=True)


class OutPainting(_Painting):
    """Only boxes of the image are kept, all else becomes ``fill``: the surroundings must be extrapolated.

    DiRA keeps the union of up to 10 windows of 154 to 174 pixels at 224; TransVW one window of 3/7 to 4/7 of each axis.
    """

    def change(self, images: Sequence[np.ndarray], draws: SampleRandom) -> None:
        """Paint all but boxes of images (C, *spatial)."""
        boxes = self._boxes(images[0].shape[1:], draws)
        (filling,) = self._fillings(images[0].shape, draws, 1)
        kept = [image.copy() for image in images]
        for image, own in zip(images, filling.numpy(), strict=True):
            image[...] = own
        paste(images, kept, boxes)

    def changed(self, images: Tensor, draws: SampleRandom) -> Tensor:
        """Painted images, same shape."""
        boxes = self._boxes(images.shape[2:], draws)
        (filling,) = self._fillings(images.shape[1:], draws, 1, images.device)
        return torch.where(union_mask(boxes, images.shape[2:], images.device), images, filling)
