"""Geometric primitives painted into the images of a batch, whose shapes are to be told."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..phantoms.primitives import draw_primitives
from ..utils.errors import InputError
from ..utils.seeded_random import SampleRandom


@dataclass(eq=False)
class Primitives:
    """Each image with random geometric primitives, drawn anew from its seed, by ``draw_primitives``.

    Attributes:
        count: least and largest number of primitives.
        size: their least and largest half-axis, as part of the mean extent.
        background: whether they are painted on the image; False: on a gray that varies smoothly, so that the image
            counts for nothing.
    """

    count: Sequence[int] = (6, 20)
    size: Sequence[float] = (0.08, 0.4)
    background: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.count[0] <= self.count[1]:
            raise InputError(f"the count of primitives must be two rising numbers from 1, got {list(self.count)}")
        if not 0 < self.size[0] <= self.size[1] <= 1:
            raise InputError(f"the size of primitives must be two rising numbers in (0, 1], got {list(self.size)}")

    def fuse(self, views: dict[str, Tensor], draws: SampleRandom) -> dict[str, Tensor]:
        """Views with primitives in ``query``, and ``share``, the class of each voxel, int64, (B, 1, *spatial)."""
        query = views["query"]
        drawn = [
            draw_primitives(seed % 2**64, image.shape, self.count, self.size, image if self.background else None)
            for seed, image in zip(draws.seeds.tolist(), query.cpu().numpy(), strict=True)
        ]
        images, classes = (torch.from_numpy(np.stack(part)).to(query.device) for part in zip(*drawn, strict=True))
        return views | {"query": images, "share": classes[:, None].long()}
