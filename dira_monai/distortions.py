"""What the network must undo: in-painting, out-painting, block and pixel shuffling, for images in [0, 1].

Every distortion draws all its parameters first, from each sample's own stream, and then moves voxels for the whole
batch. Sizes are shares of the image's extent along each axis; a share of 10 / 224 is the published 10 pixels at 224.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .draws import Draws

Distortion = Callable[[Tensor, Draws], Tensor]
FILLS = ("zero", "noise", "constant")


class Boxes(NamedTuple):
    """N boxes a sample: first voxel and length along each axis, int64, (B, N, d), and which are used, bool, (B, N)."""

    start: Tensor
    length: Tensor
    used: Tensor


def draw_boxes(
    draws: Draws, shape: Sequence[int], count: int, size: Sequence[float], margin: float = 0.0, stop: float = 0.0
) -> Boxes:
    """Random boxes inside the image.

    Args:
        draws: the samples' random numbers.
        shape: size of the image, voxels.
        count: N, number of boxes drawn.
        size: smallest and largest length, as a share of the extent; each axis is drawn by itself.
        margin: distance kept to the borders, as a share of the extent.
        stop: probability, after each box, that no further box of the sample is used.
    """
    extent = torch.tensor(shape, dtype=torch.float32)
    shortest, longest = ((share * extent).round().clamp(min=1) for share in size)
    length = (shortest + (draws.uniform(count, len(shape)) * (longest - shortest + 1)).floor()).minimum(extent)
    border = torch.minimum((margin * extent).round(), (extent - length).div(2, rounding_mode="floor"))
    start = border + (draws.uniform(count, len(shape)) * (extent - length - 2 * border + 1)).floor()
    going_on = draws.uniform(count) >= stop
    going_on[:, 0] = True
    return Boxes(start.long(), length.long(), going_on.cumprod(1).bool())


def box_mask(boxes: Boxes, n: int, shape: Sequence[int], device: torch.device) -> Tensor:
    """True inside box ``n`` of each sample, shape (B, 1, *shape)."""
    start, length, used = (part[:, n].to(device, non_blocking=True) for part in boxes)
    mask = used.reshape(-1, *[1] * (len(shape) + 1))
    for axis, extent in enumerate(shape):
        position = torch.arange(extent, device=device)
        inside = (position >= start[:, axis, None]) & (position < (start + length)[:, axis, None])
        mask = mask & inside.reshape(-1, *[1] * (axis + 1), extent, *[1] * (len(shape) - axis - 1))
    return mask


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


class _Painting:
    """Common part of in- and out-painting: boxes and what they are filled with."""

    def __init__(
        self, count: int, size: Sequence[float], margin: float = 3 / 224, stop: float = 0.1, fill: str = "zero"
    ) -> None:
        if fill not in FILLS:
            raise ValueError(f"fill must be one of {', '.join(FILLS)}, got {fill!r}.")
        self.count = count
        self.size = size
        self.margin = margin
        self.stop = stop
        self.fill = fill

    def _boxes(self, images: Tensor, draws: Draws) -> Boxes:
        return draw_boxes(draws, images.shape[2:], self.count, self.size, self.margin, self.stop)

    def _filling(self, images: Tensor, draws: Draws, count: int) -> Sequence[Tensor]:
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

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """Images with holes, same shape."""
        boxes = self._boxes(images, draws)
        if self.fill != "constant":
            filling = self._filling(images, draws, 1)[0]
            return torch.where(union_mask(boxes, images.shape[2:], images.device), filling, images)
        for n, filling in enumerate(self._filling(images, draws, self.count)):
            images = torch.where(box_mask(boxes, n, images.shape[2:], images.device), filling, images)
        return images


class OutPainting(_Painting):
    """Only boxes of the image are kept, all else becomes ``fill``: the surroundings must be extrapolated.

    DiRA keeps the union of up to 10 windows of 154 to 174 pixels at 224; TransVW one window of 3/7 to 4/7 of each axis.
    """

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """Images of which the boxes are left, same shape."""
        boxes = self._boxes(images, draws)
        mask = union_mask(boxes, images.shape[2:], images.device)
        return torch.where(mask, images, self._filling(images, draws, 1)[0])


def _flat_positions(start: Tensor, offsets: Tensor, inside: Tensor, shape: Sequence[int]) -> Tensor:
    """Index in the flattened image of each voxel of each block, (B, N, M); beyond the end where not ``inside``."""
    flat = ((start[:, :, None] + offsets) * _strides(shape).to(start.device)).sum(-1)
    return torch.where(inside, flat, torch.tensor(shape).prod().to(start.device))


def _block_voxels(length: Tensor, shape: Sequence[int], largest: float) -> tuple[Tensor, Tensor]:
    """Offsets of all voxels of the largest block, (M, d), and which belong to each block of ``length`` (B, N, d).

    M follows from the largest share of the extent, not from the batch: samples draw the same numbers in any batch.
    """
    longest = (largest * torch.tensor(shape, dtype=torch.float32)).round().clamp(min=1)  # as in draw_boxes
    ranges = [torch.arange(int(n)) for n in longest]
    offsets = torch.cartesian_prod(*ranges).reshape(-1, len(ranges))
    return offsets, (offsets < length[:, :, None]).all(-1)


def _take(images: Tensor, index: Tensor) -> Tensor:
    """Images whose voxel v is the old voxel ``index[:, v]``; the last column of ``index`` is a dummy."""
    moved = images.flatten(2).gather(2, index[:, None, :-1].expand(-1, images.shape[1], -1))
    return moved.reshape(images.shape)


class BlockShuffling:
    """Pairs of equal blocks swapped, DiRA's local shuffling (10 swaps of blocks of 10 to 15 pixels at 224).

    Attributes:
        count: number of swaps.
        size: smallest and largest side as a share of the extent.
        behavior: "corrected": the two blocks never overlap (a pair that finds no room in eight tries is left out) and
            swaps follow each other, so every voxel stays in the image once; "reference": as the published code, whose
            test for overlap is reversed on one axis and whose blocks are all read from the undistorted image, so that
            content may be doubled and lost.
    """

    def __init__(
        self, count: int = 10, size: Sequence[float] = (10 / 224, 15 / 224), behavior: str = "corrected"
    ) -> None:
        if behavior not in ("corrected", "reference"):
            raise ValueError(f"behavior must be corrected or reference, got {behavior!r}.")
        self.count = count
        self.size = size
        self.behavior = behavior

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """Shuffled images, same shape."""
        shape = images.shape[2:]
        first, second, used = self._pairs(draws, shape)
        offsets, inside = _block_voxels(first.length, shape, self.size[1])
        inside = inside & used[:, :, None]
        a = _flat_positions(first.start, offsets, inside, shape).to(images.device, non_blocking=True)
        b = _flat_positions(second, offsets, inside, shape).to(images.device, non_blocking=True)
        index = torch.arange(shape.numel() + 1, device=images.device).repeat(len(images), 1)
        source = index.clone() if self.behavior == "reference" else index
        for n in range(self.count):
            from_a, from_b = source.gather(1, a[:, n]), source.gather(1, b[:, n])
            index.scatter_(1, a[:, n], from_b)
            index.scatter_(1, b[:, n], from_a)
        return _take(images, index)

    def _pairs(self, draws: Draws, shape: Sequence[int], tries: int = 8) -> tuple[Boxes, Tensor, Tensor]:
        """The first blocks, where the second ones start, (B, N, d), and which swaps are done, (B, N)."""
        first = draw_boxes(draws, shape, self.count, self.size)
        room = torch.tensor(shape) - first.length + 1
        places = (draws.uniform(tries, self.count, len(shape)) * room[:, None]).long()  # (B, tries, N, d)
        if self.behavior == "reference":
            return first, places[:, 0], first.used
        apart = ((places - first.start[:, None]).abs() >= first.length[:, None]).any(-1)  # (B, tries, N)
        chosen = apart.int().argmax(1)  # the first try that fits
        second = places.gather(1, chosen[:, None, :, None].expand(-1, 1, -1, len(shape)))[:, 0]
        return first, second, apart.any(1)


class LocalPixelShuffling:
    """Voxels shuffled inside small blocks, of Models Genesis: texture is lost, place is kept.

    All blocks are read from the undistorted image; of overlapping ones the later is seen, as in the published code.

    Attributes:
        count: number of blocks: 10,000 in Models Genesis, 5 in TransVW.
        size: largest side as a share of the extent; the smallest is one voxel.
    """

    def __init__(self, count: int = 5, size: float = 0.1) -> None:
        self.count = count
        self.size = size

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """Shuffled images, same shape."""
        shape = images.shape[2:]
        blocks = draw_boxes(draws, shape, self.count, (0, self.size))
        draws.calls += 1
        step = 1 if images.device.type == "cpu" else len(images)  # what fits into the CPU's caches
        parts = [slice(n, n + step) for n in range(0, len(images), step)]
        order = torch.cat([self._order(blocks, part, shape, draws, images.device) for part in parts])
        return images.flatten(2).gather(2, order[:, None].expand(-1, images.shape[1], -1)).reshape(images.shape)

    def _order(self, blocks: Boxes, part: slice, shape: torch.Size, draws: Draws, device: torch.device) -> Tensor:
        """Which old voxel each voxel of some of the samples becomes, (B, voxels)."""
        start, length = blocks.start[part], blocks.length[part]
        longest = (self.size * torch.tensor(shape, dtype=torch.float32)).round().clamp(min=1)  # as in draw_boxes
        offsets, starts = _offset_table(tuple(shape), tuple(longest.int().tolist()))
        volume = length.prod(2)
        corner = (start * _strides(shape)).sum(2) + torch.arange(len(start))[:, None] * shape.numel()
        first = volume.flatten().cumsum(0) - volume.flatten()  # of a block's voxels among those of all blocks
        in_table = starts[tuple((length - 1).flatten(0, 1).unbind(1))] - first
        total = int(volume.sum())
        block = torch.repeat_interleave(volume.flatten(), output_size=total).int().to(device, non_blocking=True)
        corner, first, in_table, offsets = (
            part.flatten().int().to(device, non_blocking=True) for part in (corner, first, in_table, offsets)
        )
        voxel = torch.arange(total, dtype=torch.int32, device=device)
        place = corner.index_select(0, block) + offsets.index_select(0, in_table.index_select(0, block).add_(voxel))
        before = first.index_select(0, block)
        # in the order of block and random number, what is last in a key are a block's voxels, shuffled
        bits = len(offsets).bit_length()
        keys = (block.long() << 24).bitwise_or_(draws.integers(volume.sum(1), device, part)) << bits
        rank = _sorted(keys.bitwise_or_(voxel - before)).bitwise_and_((1 << bits) - 1)
        shuffled = place.index_select(0, rank.int().add_(before))
        own = torch.arange(len(start) * shape.numel(), dtype=torch.int32, device=device)
        latest = torch.full_like(own, -1).scatter_reduce(0, place.long(), voxel, "amax")
        order = torch.where(latest < 0, own, shuffled.index_select(0, latest.clamp(min=0)))
        return order.reshape(len(start), -1).long() - torch.arange(len(start), device=device)[:, None] * shape.numel()


def _sorted(keys: Tensor) -> Tensor:
    """Integers in rising order; NumPy sorts them on the CPU in a tenth of torch's time."""
    return torch.from_numpy(np.sort(keys.numpy())) if keys.device.type == "cpu" else keys.sort().values


def _strides(shape: Sequence[int]) -> Tensor:
    """How far neighbors along each axis lie apart in the flattened image."""
    return torch.tensor([1, *shape[:0:-1]]).cumprod(0).flip(0)


@lru_cache(maxsize=8)
def _offset_table(shape: tuple[int, ...], longest: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Offsets in the flattened image of the voxels of blocks of all sizes, and where those of each size begin.

    Args:
        shape: of the image.
        longest: side of a block along each axis.

    Returns:
        Offsets one behind the other, (M,), and the first of a block of sides 1 + i, 1 + j, ... at [i, j, ...].
    """
    strides = _strides(shape)
    sizes = list(product(*(range(1, n + 1) for n in longest)))
    offsets = [
        (torch.cartesian_prod(*map(torch.arange, size)).reshape(-1, len(size)) * strides).sum(1) for size in sizes
    ]
    volumes = torch.tensor([len(part) for part in offsets])
    return torch.cat(offsets), (volumes.cumsum(0) - volumes).reshape(longest)


class OneOf:
    """Each sample passes through at most one of several distortions.

    Attributes:
        distortions: what to choose from.
        probabilities: one for each; where their sum is below 1, the rest of the samples stays as it is.
    """

    def __init__(self, distortions: Sequence[Distortion], probabilities: Sequence[float]) -> None:
        if len(distortions) != len(probabilities) or sum(probabilities) > 1 + 1e-6 or min(probabilities) < 0:
            raise ValueError(
                f"probabilities must be one for each of {len(distortions)} distortions and sum to at most 1, "
                f"got {list(probabilities)}."
            )
        self.distortions = distortions
        self.limits = torch.tensor(probabilities, dtype=torch.float64).cumsum(0).float()

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """Images of which each sample is changed in its own way, same shape."""
        choice = torch.searchsorted(self.limits, draws.uniform(), right=True)  # on the CPU: no wait for the device
        images = images.clone()
        for n, distortion in enumerate(self.distortions):
            rows = (choice == n).nonzero()[:, 0]
            own = draws.rows(rows)
            if len(rows) > 0:
                on_device = rows.to(images.device, non_blocking=True)
                images[on_device] = distortion(images[on_device], own)
        return images
