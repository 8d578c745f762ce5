"""Blocks of each image hidden, to be restored from the rest."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..utils.errors import InputError
from ..utils.seeded_random import SampleRandom


@dataclass(eq=False)
class Masking:
    """A share of the image hidden in blocks of a grid, for networks that see the rest of the image as it is.

    The masking of masked auto-encoding (He et al., 2022, https://arxiv.org/abs/2111.06377), which leaves hidden patches
    out of the input of a transformer instead.

    Attributes:
        ratio: share of the blocks that are hidden, in (0, 1); every sample hides equally many.
        block_size: voxels along each axis; the last block of an axis may be cut.
        fill: what hidden voxels become, in [0, 1].
    """

    ratio: float = 0.75
    block_size: Sequence[int] = (16, 16)
    fill: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.ratio < 1:
            raise InputError(f"the masking ratio must lie between 0 and 1, got {self.ratio}")
        if min(self.block_size) < 1:
            raise InputError(f"block_size must be at least 1 voxel along each axis, got {list(self.block_size)}")
        self.block_size = tuple(self.block_size)

    def __call__(self, images: Tensor, draws: SampleRandom) -> tuple[Tensor, Tensor]:
        """Images with hidden blocks, same shape, and the mask, bool, (B, 1, *spatial), True where hidden."""
        shape = images.shape[2:]
        if len(self.block_size) != len(shape):
            raise InputError(f"block_size {list(self.block_size)} must have {len(shape)} entries, one for each axis")
        grid = [-(-n // block) for n, block in zip(shape, self.block_size, strict=True)]
        blocks = math.prod(grid)
        if blocks < 2:
            raise InputError(f"block_size {list(self.block_size)} leaves one block of images of {list(shape)} voxels")
        hidden = min(max(round(self.ratio * blocks), 1), blocks - 1)
        order = draws.uniform(blocks, device=images.device).argsort(dim=1, stable=True).argsort(dim=1)
        mask = (order < hidden).reshape(len(images), 1, *grid)
        for axis, (block, n) in enumerate(zip(self.block_size, shape, strict=True), start=2):
            mask = mask.repeat_interleave(block, dim=axis).narrow(axis, 0, n)
        return images.masked_fill(mask, self.fill), mask

    def hide(self, views: dict[str, Tensor], draws: SampleRandom) -> dict[str, Tensor]:
        """Views whose ``query`` is masked, with the ``mask``, and the query before it as ``whole``."""
        masked, mask = self(views["query"], draws)
        return views | {"query": masked, "mask": mask, "whole": views["query"]}
