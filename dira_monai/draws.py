"""Random numbers that depend on nothing but a sample's own seed, so that any split of a batch draws the same."""

import math
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

GOLDEN = -7046029254386353131  # 2**64 / golden ratio as a signed integer: the increment of splitmix64
Integers = TypeVar("Integers", Tensor, np.ndarray)  # int64


def _mix(x: Integers) -> Integers:
    """Scrambled 64-bit integers: the finalizer of splitmix64 (Steele et al., 2014, https://doi.org/10.1145/2660193.2660195).

    Integer products wrap around modulo 2**64; the masks make the arithmetic right shifts logical ones.
    """
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * -4658895280553007687
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * -7723592293110705685
    return x ^ ((x >> 31) & 0x1FFFFFFFF)


def sample_seeds(seed: int, epoch: int, count: int) -> Tensor:
    """Seeds of the ``count`` samples of an epoch, int64, shape (count,): made from seed, epoch and position only."""
    base = _mix(_mix(torch.tensor(seed) + GOLDEN) + torch.tensor(epoch + 1) * GOLDEN)
    return _mix(base + torch.arange(1, count + 1) * GOLDEN)


def _steps(first: int, last: int) -> np.ndarray:
    """What the states of the generator have grown by in its steps from ``first`` to before ``last``."""
    return np.arange(first, last, dtype=np.int64) * np.int64(GOLDEN)


@dataclass
class Draws:
    """A stream of random numbers for each sample of a batch.

    The n-th call gives the same numbers for a sample whatever batch the sample is in, on any device.

    Attributes:
        seeds: one int64 seed for each sample, shape (B,).
    """

    seeds: Tensor
    calls: int = field(default=0, init=False)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0, device: torch.device | None = None) -> Tensor:
        """Numbers from [low, high), float32 in steps of 2**-24 of the range, shape (B, *shape).

        They are computed where the seeds are, or on ``device``: the device of the images for one number a voxel.
        """
        self.calls += 1
        count = math.prod(shape)
        if (
            device or self.seeds.device
        ).type == "cpu":  # the few numbers of most calls take NumPy a fifth of torch's time
            start = _mix(self.seeds.cpu().numpy() + _steps(self.calls, self.calls + 1))
            bits = torch.from_numpy((_mix(start[:, None] + _steps(1, count + 1)) >> 40) & 0xFFFFFF)
        else:
            seeds = self.seeds.to(device, non_blocking=True)
            first = _mix(seeds + torch.tensor(self.calls) * GOLDEN)
            bits = (_mix(first[:, None] + torch.arange(1, count + 1, device=device) * GOLDEN) >> 40) & 0xFFFFFF
        return (bits.float() * 2**-24 * (high - low) + low).reshape(len(self.seeds), *shape)

    def integers(self, counts: Tensor, device: torch.device, part: slice = slice(None)) -> Tensor:
        """``counts[b]`` numbers from [0, 2**24) for sample b, one sample behind the other, int64, (counts.sum(),).

        This is no call of its own: parts of the batch are asked for one after the other, under the last call's number.

        Args:
            counts: numbers of each sample of the part, int64, (B,), on the CPU.
            device: where they are computed.
            part: the samples that are meant.
        """
        total = int(counts.sum())
        first = _mix(self.seeds[part] + torch.tensor(self.calls) * GOLDEN) - (counts.cumsum(0) - counts) * GOLDEN
        sample = torch.repeat_interleave(counts, output_size=total).to(device, non_blocking=True)
        states = first.to(device, non_blocking=True)[sample] + torch.arange(1, total + 1, device=device) * GOLDEN
        return (_mix(states) >> 40) & 0xFFFFFF

    def normal(self, *shape: int, device: torch.device | None = None) -> Tensor:
        """Numbers from the standard normal distribution (Box-Muller), float32, shape (B, *shape)."""
        radius = torch.sqrt(-2 * torch.log(1 - self.uniform(*shape, device=device)))
        return radius * torch.cos(2 * math.pi * self.uniform(*shape, device=device))

    def chance(self, probability: float) -> Tensor:
        """True with the given probability for each sample, bool, shape (B,)."""
        return self.uniform() < probability

    def rows(self, index: Tensor) -> "Draws":
        """The streams of the chosen samples, each begun anew under the number of this call."""
        self.calls += 1
        return Draws(_mix(self.seeds + torch.tensor(self.calls) * GOLDEN)[index])
