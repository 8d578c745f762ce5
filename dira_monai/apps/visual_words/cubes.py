"""The instances of visual words: cubes at the same place in many patients, in one memory-mapped array a split."""

from collections.abc import Iterable, Sequence
from typing import BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...transforms.spatial import RandomResizedCrop
from ...utils.seeded_random import SampleRandom
from .places import WordSettings


class Box(NamedTuple):
    """A part of an image, in voxels."""

    start: list[int]
    size: list[int]


def instance_boxes(
    center: Sequence[float],
    extent: Sequence[int],
    patch_size: Sequence[int],
    settings: WordSettings,
    draws: SampleRandom | None,
) -> list[Box]:
    """The boxes of a word in one patient: that of the patch's size, then, with ``draws``, those of other sizes.

    TransVW takes the same voxel coordinates in every patient. Images differ in size, so here it is the same relative
    position (``center``, as shares of the ``extent``); in images of equal size both are the same. A box that would
    reach outside is moved inside.
    """
    limit, size = torch.tensor(extent), torch.tensor(patch_size)
    middle = torch.tensor(center, dtype=torch.float64) * limit
    boxes = [_inside(middle, size, limit)]
    if draws is None or settings.scales == 0:
        return boxes
    sides = draws.uniform(settings.scales, low=settings.scale_range[0], high=settings.scale_range[1])[0]
    shifts = draws.uniform(settings.scales, 2, low=-settings.shift, high=settings.shift)[0]
    for side, shift in zip(sides, shifts, strict=True):
        other, moved = size.clone(), middle.clone()
        other[:2] = (size[:2] * side).round().clamp(min=1)
        moved[:2] += shift * size[:2]
        boxes.append(_inside(moved, other, limit))
    return boxes


def _inside(middle: Tensor, size: Tensor, limit: Tensor) -> Box:
    size = size.minimum(limit)
    start = (middle - size / 2).round().long().clamp(min=0).minimum(limit - size)
    return Box(start.tolist(), size.tolist())


def cut(image: Tensor, box: Box, patch_size: Sequence[int]) -> Tensor:
    """A box of an image (C, *spatial), (C, *patch_size): copied, or resized by linear interpolation."""
    part = image[(slice(None), *(slice(s, s + n) for s, n in zip(*box, strict=True)))]
    if part.shape[1:] == torch.Size(patch_size):
        return part.clone()
    positions = [(torch.arange(n) + 0.5)[None] / n * size - 0.5 for n, size in zip(patch_size, box.size, strict=True)]
    return RandomResizedCrop.read(part[None], positions)[0]


def write_array(file: BinaryIO, shape: Sequence[int], parts: Iterable[Tensor]) -> None:
    """Write tensors, joined along the first axis, as one array in NumPy's format, holding one at a time.

    Raises:
        ValueError: if the parts, at least one, are not of that shape together.
    """
    count = 0
    for part in parts:
        array = np.ascontiguousarray(part.numpy())
        if not count:
            header = np.lib.format.header_data_from_array_1_0(array) | {"shape": tuple(shape)}
            np.lib.format.write_array_header_1_0(file, header)
        file.write(array.data)
        count += array.size
    if count != np.prod(shape):
        raise ValueError(f"the parts hold {count} values where the array of shape {tuple(shape)} has {np.prod(shape)}")
