"""Images of a batch mixed in boxes, whose shares are to be told."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..utils.errors import InputError
from ..utils.seeded_random import SampleRandom
from .painting import draw_boxes, union_mask


@dataclass(eq=False)
class VolumeFusion:
    """Each image mixed with the one before it in the batch, by another share in each of many boxes.

    Volume fusion (Wang et al., 2023, https://arxiv.org/abs/2306.16925): (1 - k / K) of an image and k / K of another,
    k = 0 outside of all boxes, 1 .. K in each of them; where boxes overlap, the later one counts. An image that is
    alone in its batch is mixed with itself, mirrored along the last axis.

    Attributes:
        shares: K.
        count: least and largest number of boxes.
        size: shortest and longest side of a box, as a share of the extent; each axis is drawn by itself.
    """

    shares: int = 4
    count: Sequence[int] = (10, 40)
    size: Sequence[float] = (0.0625, 0.625)

    def __post_init__(self) -> None:
        if self.shares < 1:
            raise InputError(f"shares must be at least 1, got {self.shares}")
        if not 1 <= self.count[0] <= self.count[1]:
            raise InputError(f"the count of boxes must be two rising numbers from 1, got {list(self.count)}")
        if not 0 < self.size[0] <= self.size[1] <= 1:
            raise InputError(f"the size of boxes must be two rising numbers in (0, 1], got {list(self.size)}")

    def fuse(self, views: dict[str, Tensor], draws: SampleRandom) -> dict[str, Tensor]:
        """Views whose ``query`` is mixed, and ``share``, k of each voxel, int64 in [0, K], (B, 1, *spatial)."""
        query = views["query"]
        other = query.roll(1, 0) if len(query) > 1 else query.flip(-1)
        share = self.draw(query.shape[2:], draws, query.device)
        return views | {"query": torch.lerp(query, other, share / self.shares), "share": share}

    def draw(self, shape: Sequence[int], draws: SampleRandom, device: torch.device) -> Tensor:
        """The k of each voxel, int64 in [0, K], shape (B, 1, *shape)."""
        fewest, most = self.count
        boxes = draw_boxes(draws, shape, most, self.size)
        number = fewest + (draws.uniform(1) * (most - fewest + 1)).long()  # (B, 1)
        boxes = boxes._replace(used=torch.arange(most) < number)
        values = 1 + (draws.uniform(most) * self.shares).long().to(device, non_blocking=True)  # (B, most)
        share = values.new_zeros(len(values), 1, *shape)
        for n in range(most):
            value = values[:, n].reshape(-1, *[1] * (share.ndim - 1))
            share = torch.where(union_mask(boxes.one(n), shape, device), value, share)
        return share
