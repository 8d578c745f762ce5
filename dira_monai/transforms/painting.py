"""In-painting and out-painting: boxes of the image that are replaced, or all that is kept.

Sizes are shares of the image's extent along each axis; a share of 10 / 224 is the published 10 pixels at 224.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..utils.errors import InputError
from ..utils.seeded_random import SampleRandom

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
    extent = torch.tensor(shape, dtype=torch.float32).repeat(count, 1)  # broadcasting a row of three is slow
    shortest, longest = ((share * extent).round().clamp(min=1) for share in size)
    length = (shortest + (draws.uniform(count, len(shape)) * (longest - shortest + 1)).floor()).minimum(extent)
    border = torch.minimum((margin * extent).round(), ((extent - length) / 2).floor())
    start = border + (draws.uniform(count, len(shape)) * (extent - length - 2 * border + 1)).floor()
    going_on = draws.uniform(count) >= stop
    going_on[:, 0] = True
    return Boxes(start.long(), length.long(), going_on.cumprod(1).bool())


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


@dataclass(eq=False)
class _Painting:
    """Common part of in- and out-painting: boxes and what they are filled with."""

    count: int
    size: Sequence[float]
    margin: float = 3 / 224
    stop: float = 0.1
    fill: str = "zero"

    def __post_init__(self) -> None:
        if self.fill not in FILLS:
            raise InputError(f"fill must be one of {', '.join(FILLS)}, got {self.fill!r}")

    def _boxes(self, images: Tensor, draws: SampleRandom) -> Boxes:
        return draw_boxes(draws, images.shape[2:], self.count, self.size, self.margin, self.stop)

    def _filling(self, images: Tensor, draws: SampleRandom, count: int) -> Sequence[Tensor]:
        """What each of ``count`` boxes, or all of them, are filled with, ready to broadcast over the images."""
        if self.fill == "noise":
            return [draws.uniform(*images.shape[1:], device=images.device)]
        constant = draws.uniform(count) if self.fill == "constant" else torch.zeros(len(images), count)
        constant = constant.to(images.device, non_blocking=True).reshape(len(images), count, *[1] * (images.ndim - 1))
        return constant.unbind(1)


class InPainting(_Painting):
    """Boxes of the image replaced by ``fill``: context must be filled in (DiRA; Models Genesis).

    DiRA draws up to 10 boxes of 10 to 70 pixels at 224, 3 pixels from the borders, and stops after each with
    probability 0.1 (`count`, `size`, `margin`, `stop`), filled with zero. TransVW takes one box of 1/6 to 1/3 of each
    axis, filled with uniform noise; Models Genesis one random constant a box (``fill``: zero, noise or constant).
    """

    def __call__(self, images: Tensor, draws: SampleRandom) -> Tensor:
        """Changed images, same shape."""
        boxes = self._boxes(images, draws)
        if self.fill != "constant":
            filling = self._filling(images, draws, 1)[0]
            return torch.where(union_mask(boxes, images.shape[2:], images.device), filling, images)
        for n, filling in enumerate(self._filling(images, draws, self.count)):
            images = torch.where(union_mask(boxes.one(n), images.shape[2:], images.device), filling, images)
        return images


class OutPainting(_Painting):
    """Only boxes of the image are kept, all else becomes ``fill``: the surroundings must be extrapolated.

    DiRA keeps the union of up to 10 windows of 154 to 174 pixels at 224; TransVW one window of 3/7 to 4/7 of each axis.
    """

    def __call__(self, images: Tensor, draws: SampleRandom) -> Tensor:
        """Changed images, same shape."""
        boxes = self._boxes(images, draws)
        mask = union_mask(boxes, images.shape[2:], images.device)
        return torch.where(mask, images, self._filling(images, draws, 1)[0])
