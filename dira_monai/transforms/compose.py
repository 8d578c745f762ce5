"""What the network must undo: in-painting, out-painting, block and pixel shuffling, for images in [0, 1].

Every distortion draws all its parameters first, from each sample's own stream, and then moves voxels for the whole
batch. Sizes are shares of the image's extent along each axis; a share of 10 / 224 is the published 10 pixels at 224.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..utils.seeded_random import SampleRandom

Distortion = Callable[[Tensor, SampleRandom], Tensor]


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

    def __call__(self, images: Tensor, draws: SampleRandom) -> Tensor:
        """Images of which each sample is changed in its own way, same shape."""
        choice = torch.searchsorted(self.limits, draws.uniform(), right=True)  # on the CPU: no wait for the device
        images = images.clone()
        for n, distortion in enumerate(self.distortions):
            rows = (choice == n).nonzero()[:, 0]
            own = draws.rows(rows)
            if len(rows) > 0:
                on_device = rows.to(images.device, non_blocking=True)
                images.index_copy_(0, on_device, distortion(images.index_select(0, on_device), own))
        return images


class Compose:
    """Several changes one after the other, as one: such as a crop and a rotation as the spatial step of ``Views``.

    Attributes:
        steps: each takes images and ``SampleRandom``.
    """

    def __init__(self, steps: Sequence[Callable[[Tensor, SampleRandom], Tensor]]) -> None:
        self.steps = steps

    def __call__(self, images: Tensor, draws: SampleRandom) -> Tensor:
        """Changed images."""
        for step in self.steps:
            images = step(images, draws)
        return images
