"""Random numbers that depend on nothing but a sample's own seed, so that any split of a batch draws the same."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

GOLDEN = -7046029254386353131  # 2**64 / golden ratio as a signed integer: the increment of splitmix64


def _mix(x: Tensor) -> Tensor:
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
        seeds = self.seeds if device is None else self.seeds.to(device, non_blocking=True)
        start = _mix(seeds + torch.tensor(self.calls) * GOLDEN)
        counter = torch.arange(1, math.prod(shape) + 1, device=start.device)
        bits = (_mix(start[:, None] + counter * GOLDEN) >> 40) & 0xFFFFFF
        return (bits.float() * 2**-24 * (high - low) + low).reshape(len(start), *shape)

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
