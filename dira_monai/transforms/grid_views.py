"""A random crop and the crops of a grid that it overlaps, for objectives that learn where a crop was taken."""

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import product

import torch
from torch import Tensor

from ..utils.errors import InputError
from ..utils.seeded_random import SampleRandom
from .compose import Compose, Steps
from .masking import Masking
from .views import to_unit


@dataclass(eq=False)
class GridViews:
    """Query and target at a random place of a region, and bases: all crops of the grid that the region is cut into.

    Called like ``Views``, for volume contrast (VoCo, Wu et al., CVPR 2024, https://arxiv.org/abs/2402.17300). Nothing
    is flipped, turned or resized, so the share of the query inside each base is exact. Each crop gets photometric
    changes of its own; only the query is distorted.

    Attributes:
        patch_size: size of query and bases, voxels.
        grid: bases along each axis; the region must have ``grid`` times ``patch_size`` voxels.
        photometric: as of ``Views``, like ``masking``.
        distortions: what is to be undone in the query, applied in order.
    """

    patch_size: Sequence[int]
    grid: Sequence[int]
    photometric: Steps = ()
    distortions: Steps = ()
    _: KW_ONLY
    masking: Masking | None = None

    def __post_init__(self) -> None:
        grid, size = list(self.grid), list(self.patch_size)
        if len(grid) != len(size):
            raise InputError(f"grid {grid} must have one entry for each axis of patch_size {size}")
        if min(grid) < 1 or math.prod(grid) < 2:
            raise InputError(f"grid {grid} must have entries of at least 1 and at least two crops")
        self.patch_size, self.grid = tuple(size), tuple(grid)
        self.region_size = [count * length for count, length in zip(grid, size, strict=True)]
        axes = [range(0, extent, length) for extent, length in zip(self.region_size, size, strict=True)]
        self.corners = torch.tensor(list(product(*axes)))  # (n, d)

    @torch.no_grad()
    def __call__(self, images: Tensor, seeds: Tensor, distort: bool = True) -> dict[str, Tensor]:
        """Views of the images (B, C, *region_size), float32 in [0, 1]; arguments as of ``Views``.

        Returns:
            ``query`` and ``target``, (B, C, *patch_size), and with masking ``whole`` and ``mask``, as of ``Views``;
            ``bases``, the n crops of the grid, the last axis fastest, (B, n, C, *patch_size); ``overlap``, the share of
            the query that lies in each base, in [0, 1], sum 1, (B, n).
        """
        if list(images.shape[2:]) != self.region_size:
            raise InputError(
                f"region_size must be grid {list(self.grid)} times patch_size {list(self.patch_size)}, "
                f"{self.region_size}, got {list(images.shape[2:])}"
            )
        images = to_unit(images.as_subclass(torch.Tensor))
        draws = SampleRandom(seeds.cpu())
        everyone = torch.arange(len(seeds))
        room = torch.tensor(self.region_size) - torch.tensor(self.patch_size)
        start = (draws.uniform(len(room)) * (room + 1)).long()
        target = crop_at(images, start, self.patch_size)
        query = Compose([*self.photometric, *(self.distortions if distort else ())])(target, draws.rows(everyone))
        bases = [
            Compose(self.photometric)(crop_at(images, corner[None], self.patch_size), draws.rows(everyone))
            for corner in self.corners
        ]
        overlap = overlap_shares(start, self.corners, self.patch_size).to(images.device, non_blocking=True)
        views = {"query": query, "target": target, "bases": torch.stack(bases, dim=1), "overlap": overlap}
        if self.masking is not None and distort:
            views = self.masking.hide(views, draws.rows(everyone))
        return views


def crop_at(images: Tensor, start: Tensor, size: Sequence[int]) -> Tensor:
    """Boxes (B, C, *size) of images (B, C, *spatial) that begin at voxel ``start``, (B, d) or (1, d)."""
    for axis, length in enumerate(size):
        index = (start[:, axis, None] + torch.arange(length)).to(images.device, non_blocking=True)  # (B, length)
        index = index.reshape(len(index), *[length if n == axis else 1 for n in range(-1, len(size))])
        images = images.gather(axis + 2, index.expand(*images.shape[: axis + 2], length, *images.shape[axis + 3 :]))
    return images


def overlap_shares(start: Tensor, corners: Tensor, size: Sequence[int]) -> Tensor:
    """Share of each box's volume inside others of the same size, float32 in [0, 1], shape (B, n).

    It is the product of max(0, 1 - |shift| / size) of all axes. Boxes begin at voxel ``start``, (B, d), others at
    ``corners``, (n, d).
    """
    shift = (start[:, None] - corners).abs() / torch.tensor(size)
    return (1 - shift).clamp(min=0).prod(dim=2)
