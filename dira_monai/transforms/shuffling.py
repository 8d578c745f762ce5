"""Blocks swapped and voxels shuffled inside blocks; sizes are shares of the image's extent along each axis."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..utils.errors import InputError
from ..utils.seeded_random import SampleRandom
from .compose import InPlace
from .painting import Boxes, draw_boxes


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


@dataclass(eq=False)
class BlockShuffling(InPlace):
    """Pairs of equal blocks swapped, DiRA's local shuffling (10 swaps of blocks of 10 to 15 pixels at 224).

    Attributes:
        count: number of swaps.
        size: smallest and largest side as a share of the extent.
        behavior: "corrected": the two blocks never overlap (a pair that finds no room in eight tries is left out) and
            swaps follow each other, so every voxel stays in the image once; "reference": as the published code, whose
            test for overlap is reversed on one axis and whose blocks are all read from the undistorted image, so that
            content may be doubled and lost.
    """

    count: int = 10
    size: Sequence[float] = (10 / 224, 15 / 224)
    behavior: str = "corrected"

    def __post_init__(self) -> None:
        if self.behavior not in ("corrected", "reference"):
            raise InputError(f"behavior must be corrected or reference, got {self.behavior!r}")

    def change(self, images: Sequence[np.ndarray], draws: SampleRandom) -> None:
        """Swap blocks of images (C, *spatial)."""
        first, second, used = self._pairs(draws, images[0].shape[1:])
        corners = [starts.tolist() for starts in (first.start, first.start + first.length)]
        corners += [starts.tolist() for starts in (second, second + first.length)]
        for image, *sample in zip(images, *corners, used.tolist(), strict=True):
            source = image.copy() if self.behavior == "reference" else image
            for start_a, stop_a, start_b, stop_b, swap in zip(*sample, strict=True):
                if swap:
                    a, b = ((slice(None), *map(slice, *box)) for box in ((start_a, stop_a), (start_b, stop_b)))
                    image[a], image[b] = source[b].copy(), source[a].copy()

    def changed(self, images: Tensor, draws: SampleRandom) -> Tensor:
        """Images with swapped blocks, same shape."""
        return self._swapped_by_index(images, *self._pairs(draws, images.shape[2:]))

    def _swapped_by_index(self, images: Tensor, first: Boxes, second: Tensor, used: Tensor) -> Tensor:
        """The same in few calls for all samples at once, as suits a GPU."""
        shape = images.shape[2:]
        offsets, inside = _block_voxels(first.length, shape, self.size[1])
        inside = inside & used[:, :, None]
        a = _flat_positions(first.start, offsets, inside, shape).to(images.device, non_blocking=True)
        b = _flat_positions(second, offsets, inside, shape).to(images.device, non_blocking=True)
        moved = images.new_empty(*images.shape[:2], shape.numel() + 1)  # the last one is a dummy
        moved[..., :-1] = images.flatten(2)
        source = moved.clone() if self.behavior == "reference" else moved
        for from_a, from_b in zip(a.unbind(1), b.unbind(1), strict=True):
            from_a, from_b = (place[:, None].expand(-1, images.shape[1], -1) for place in (from_a, from_b))
            block_a, block_b = source.gather(2, from_a), source.gather(2, from_b)
            moved.scatter_(2, from_a, block_b).scatter_(2, from_b, block_a)
        return moved[..., :-1].reshape(images.shape)

    def _pairs(self, draws: SampleRandom, shape: Sequence[int], tries: int = 8) -> tuple[Boxes, Tensor, Tensor]:
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


@dataclass(eq=False)
class LocalPixelShuffling(InPlace):
    """Voxels shuffled inside small blocks, of Models Genesis: texture is lost, place is kept.

    All blocks are read from the undistorted image; of overlapping ones the later is seen, as in the published code.
    A block's order is one of at least 16 random ones, which are kept for each size: drawing one anew for each of 10,000
    blocks takes longer than all else that a view needs.

    Attributes:
        count: number of blocks: 10,000 in Models Genesis, 5 in TransVW.
        size: largest side as a share of the extent; the smallest is one voxel.
    """

    count: int = 5
    size: float = 0.1

    def change(self, images: Sequence[np.ndarray], draws: SampleRandom) -> None:
        """Shuffle voxels of images (C, *spatial), one after the other, as fits into the CPU's caches."""
        shape, cpu = images[0].shape[1:], torch.device("cpu")
        blocks, orders = self._drawn(shape, draws)
        for n, image in enumerate(images):
            place, source = self._moves(shape, Boxes(*(part[n : n + 1] for part in blocks)), orders[n : n + 1], cpu)
            at = place.long().numpy()  # NumPy makes int64 of it anyway, at five times the cost
            for channel in torch.from_numpy(image).view(len(image), -1):
                channel.numpy()[at] = channel.index_select(0, source).numpy()  # the last of several is kept

    def changed(self, images: Tensor, draws: SampleRandom) -> Tensor:
        """Changed images, same shape."""
        place, source = self._moves(images.shape[2:], *self._drawn(images.shape[2:], draws), images.device)
        channels = images.transpose(0, 1).flatten(1)
        moved = _overwrite(channels, place, channels.index_select(1, source))
        return moved.reshape(images.transpose(0, 1).shape).transpose(0, 1)

    def _drawn(self, shape: Sequence[int], draws: SampleRandom) -> tuple[Boxes, Tensor]:
        """The blocks of each sample, N = ``count``, and their orders, in [0, 1), (B, N)."""
        return draw_boxes(draws, shape, self.count, (0, self.size)), draws.uniform(self.count)

    def _moves(
        self, shape: Sequence[int], blocks: Boxes, orders: Tensor, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Where voxels of the flattened batch go, and where those come from, int32, (M,); the last one counts."""
        start, length = blocks.start, blocks.length
        longest = (self.size * torch.tensor(shape, dtype=torch.float32)).round().clamp(min=1)  # as in draw_boxes
        table = _shuffle_table(tuple(shape), tuple(longest.int().tolist()), device)
        size = ((length - 1) * _strides(longest.int().tolist())).sum(2).flatten()
        volume = length.prod(2).flatten()
        chosen = (orders.flatten() * table.orders[size]).long()
        corner = (start * _strides(shape)).sum(2) + torch.arange(len(start))[:, None] * math.prod(shape)
        before = volume.cumsum(0) - volume  # the voxels of the blocks before
        first = table.first[size] + chosen * volume - before
        corner, entry = (_repeat(values.flatten().int(), volume, device) for values in (corner, first))
        entry.add_(torch.arange(len(entry), dtype=torch.int32, device=device))
        place = table.plain.index_select(0, entry).add_(corner)
        return place, corner.add_(table.shuffled.index_select(0, entry))


def _repeat(values: Tensor, counts: Tensor, device: torch.device) -> Tensor:
    """Each of the values (N,) as often as its count says, on the device."""
    if device.type == "cpu":  # NumPy takes a third of torch's time
        return torch.from_numpy(np.repeat(values.numpy(), counts.numpy()))
    total = int(counts.sum())
    values, counts = values.to(device, non_blocking=True), counts.to(device, non_blocking=True)
    return values.repeat_interleave(counts, output_size=total)


def _overwrite(images: Tensor, place: Tensor, values: Tensor) -> Tensor:
    """Images (C, V) with values (C, N) at places (N,), of several at one place the last, where many write at once."""
    order = torch.arange(len(place), device=images.device)
    latest = torch.full_like(images[0], -1, dtype=torch.long).scatter_reduce(0, place.long(), order, "amax")
    return torch.where(latest >= 0, values.index_select(1, latest.clamp(min=0)), images)


def _strides(shape: Sequence[int]) -> Tensor:
    """How far neighbors along each axis lie apart in the flattened image."""
    return torch.tensor([1, *shape[:0:-1]]).cumprod(0).flip(0)


class ShuffleTable(NamedTuple):
    """Random orders of the voxels of blocks of all sizes, the last axis counted fastest."""

    shuffled: Tensor  # offsets in the flattened image, one order of one size behind the other, (M,)
    plain: Tensor  # the same in the order of the voxels
    first: Tensor  # where the first order of each size begins
    orders: Tensor  # how many there are of each size


@lru_cache(maxsize=8)
def _shuffle_table(
    shape: tuple[int, ...], longest: tuple[int, ...], device: torch.device, least: int = 16, voxels: int = 1024
) -> ShuffleTable:
    """Random orders of blocks in images of a shape whose sides are at most ``longest``, the same in each process.

    The offsets are kept on ``device``, first and orders on the CPU. Each size has ``least`` orders at least, small
    blocks as many as so many ``voxels`` make, 170 of 6 voxels.
    """
    strides, generator = _strides(shape), torch.Generator().manual_seed(0)
    shuffled, plain, orders = list[Tensor](), list[Tensor](), list[int]()
    for size in product(*(range(1, n + 1) for n in longest)):
        block = (torch.cartesian_prod(*map(torch.arange, size)).reshape(-1, len(size)) * strides).sum(1).int()
        orders.append(max(least, voxels // len(block)))
        plain.append(block.repeat(orders[-1]))
        shuffled.append(block[torch.rand(orders[-1], len(block), generator=generator).argsort(1)].flatten())
    lengths = torch.tensor([len(part) for part in plain])
    return ShuffleTable(
        torch.cat(shuffled).to(device),
        torch.cat(plain).to(device),
        lengths.cumsum(0) - lengths,
        torch.tensor(orders),
    )
