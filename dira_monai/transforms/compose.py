"""Transforms made of others: a choice, and a sequence.

A transform takes images in [0, 1], (B, C, *spatial), and ``SampleRandom``. It draws all its parameters first, from each
sample's own stream, and then changes the whole batch at once, or on a CPU one image after the other.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..utils.errors import InputError
from ..utils.seeded_random import SampleRandom

Distortion = Callable[[Tensor, SampleRandom], Tensor]
Steps = Sequence[Distortion]  # applied in order


class InPlace(ABC):
    """A transform that on a CPU changes images where they lie, so that ``Compose`` and ``OneOf`` need not copy them."""

    def __call__(self, images: Tensor, draws: SampleRandom) -> Tensor:
        """Changed images, same shape."""
        return Compose([self])(images, draws)

    @abstractmethod
    def change(self, images: Sequence[np.ndarray], draws: SampleRandom) -> None:
        """Change images, each (C, *spatial), all of one shape, where they lie."""

    @abstractmethod
    def changed(self, images: Tensor, draws: SampleRandom) -> Tensor:
        """The same in few calls for all samples at once, as suits a GPU."""


class OneOf(InPlace):
    """Each sample passes through at most one of several distortions.

    There is a probability for each; where their sum is below 1, the rest of the samples stays as it is.
    """

    def __init__(self, distortions: Sequence[Distortion], probabilities: Sequence[float]) -> None:
        if len(distortions) != len(probabilities) or sum(probabilities) > 1 + 1e-6 or min(probabilities) < 0:
            raise InputError(
                f"probabilities must be one for each of {len(distortions)} distortions and sum to at most 1, "
                f"got {list(probabilities)}"
            )
        self.distortions = distortions
        self.limits = torch.tensor(probabilities, dtype=torch.float64).cumsum(0).float()

    def change(self, images: Sequence[np.ndarray], draws: SampleRandom) -> None:
        """Change images (C, *spatial), each by what is drawn for it."""
        for distortion, rows, own in self._drawn(draws):
            chosen = [images[row] for row in rows.tolist()]
            if isinstance(distortion, InPlace):
                distortion.change(chosen, own)
                continue
            for image, result in zip(chosen, distortion(torch.from_numpy(np.stack(chosen)), own), strict=True):
                image[...] = result

    def changed(self, images: Tensor, draws: SampleRandom) -> Tensor:
        """Changed images, same shape."""
        images = images.clone(memory_format=torch.contiguous_format)
        for distortion, rows, own in self._drawn(draws):
            rows = rows.to(images.device, non_blocking=True)
            images.index_copy_(0, rows, distortion(images.index_select(0, rows), own))
        return images

    def _drawn(self, draws: SampleRandom) -> Iterator[tuple[Distortion, Tensor, SampleRandom]]:
        """Each distortion that some samples get, which these are, and their numbers."""
        choice = torch.searchsorted(self.limits, draws.uniform(), right=True)  # on the CPU: no wait for the device
        for n, distortion in enumerate(self.distortions):
            rows = (choice == n).nonzero()[:, 0]
            own = draws.rows(rows)
            if len(rows) > 0:
                yield distortion, rows, own


@dataclass(eq=False)
class Compose:
    """Several transforms in order, such as a crop and a rotation as the spatial step of ``Views``."""

    steps: Steps

    def __call__(self, images: Tensor, draws: SampleRandom) -> Tensor:
        """Changed images, same shape."""
        copied = False
        for step in self.steps:
            if isinstance(step, InPlace) and images.device.type == "cpu":
                images = images if copied else images.clone(memory_format=torch.contiguous_format)
                step.change(list(images.numpy()), draws)
                copied = True
            else:
                images = step.changed(images, draws) if isinstance(step, InPlace) else step(images, draws)
                copied = False
        return images
