"""Random numbers that depend on nothing but a sample's own seed, so that any split of a batch draws the same."""

import math
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

FEW = 4  # numbers of a sample in one call, up to which they are computed ahead
AHEAD = 12  # calls whose numbers are computed together
MANY = 4096  # numbers of a sample in one call, beyond which the generator of 32 bits draws them
GOLDEN = -7046029254386353131  # 2**64 / golden ratio as a signed integer: the increment of splitmix64
Integers = TypeVar("Integers", Tensor, np.ndarray)


def _mix(x: Integers) -> Integers:
    """Scrambled int64: the finalizer of splitmix64 (Steele et al., 2014, https://doi.org/10.1145/2660193.2660195).

    Integer products wrap around modulo 2**64; the masks make the arithmetic right shifts logical ones.
    """
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * -4658895280553007687
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * -7723592293110705685
    return x ^ ((x >> 31) & 0x1FFFFFFFF)


def _hash(place: Integers, low: Integers, high: Integers) -> Integers:
    """24 random bits for each place: lowbias32 (https://nullprogram.com/blog/2018/07/31/) with two keys of 32 bits.

    int32 stands for uint32: sums and products wrap around, the masks make the right shifts logical ones.
    """
    x = place * -1640531527 + low
    x = (x ^ ((x >> 16) & 0xFFFF)) * 0x7FEB352D + high
    x = (x ^ ((x >> 15) & 0x1FFFF)) * -2073254261
    return ((x ^ ((x >> 16) & 0xFFFF)) >> 8) & 0xFFFFFF


def sample_seeds(seed: int, epoch: int, count: int) -> Tensor:
    """Seeds of the ``count`` samples of an epoch, int64, shape (count,): made from seed, epoch and position only."""
    base = _mix(_mix(torch.tensor(seed) + GOLDEN) + torch.tensor(epoch + 1) * GOLDEN)
    return _mix(base + torch.arange(1, count + 1) * GOLDEN)


def _states(starts: np.ndarray, first: int, count: int) -> np.ndarray:
    """The states, from number ``first`` on, of generators that begin at the given ones, int64, (*starts.shape, count).

    Few numbers are computed by NumPy, which takes a fifth of torch's time for them.
    """
    return _mix(starts[..., None] + np.arange(first, first + count) * np.int64(GOLDEN))


def _shares(starts: np.ndarray, count: int) -> np.ndarray:
    """The first numbers from [0, 1) of generators in the given states, float32, (*starts.shape, count)."""
    return ((_states(starts, 1, count) >> 40) & 0xFFFFFF).astype(np.float32) * np.float32(2**-24)


@dataclass
class SampleRandom:
    """A stream of random numbers for each sample of a batch.

    The n-th call gives the same numbers for a sample whatever batch the sample is in, on any device.

    Attributes:
        seeds: one int64 seed for each sample, shape (B,), on the CPU.
    """

    seeds: Tensor
    calls: int = field(default=0, init=False)
    _ahead: tuple[int, np.ndarray] | None = field(default=None, init=False, repr=False, compare=False)
    _states_ahead: tuple[int, np.ndarray] | None = field(default=None, init=False, repr=False, compare=False)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0, device: torch.device | None = None) -> Tensor:
        """Numbers from [low, high), float32 in steps of 2**-24 of the range, shape (B, *shape).

        They are computed on the CPU, or on ``device``: the device of the images for one number a voxel. More than
        ``MANY`` numbers a sample come from a generator of 32 bits, which takes a quarter of the time.
        """
        self.calls += 1
        count = math.prod(shape)
        device = device or self.seeds.device
        if count > MANY:
            shares = self._many(count, device)
        elif count <= FEW and device.type == "cpu":
            shares = self._few(count)
        elif device.type == "cpu":
            shares = torch.from_numpy(_shares(self._state(self.calls), count))
        else:
            states = self._state_on(device) + torch.arange(1, count + 1, device=device) * GOLDEN
            shares = ((_mix(states) >> 40) & 0xFFFFFF).float().mul_(2**-24)
        if (low, high) != (0, 1):
            shares = shares * (high - low) + low
        return shares.reshape(len(self.seeds), *shape)

    def _state(self, call: int) -> np.ndarray:
        """State of each sample's generator for one call, int64, (B,)."""
        return self._states_with(call)[:, call % AHEAD]

    def _states_with(self, call: int) -> np.ndarray:
        """The states for a call and those computed together with it, int64, (B, AHEAD)."""
        first = call - call % AHEAD
        if self._states_ahead is None or self._states_ahead[0] != first:
            self._states_ahead = first, _states(self.seeds.numpy(), first, AHEAD)
        return self._states_ahead[1]

    def _state_on(self, device: torch.device) -> Tensor:
        """The state for the present call on a device, (B, 1)."""
        return torch.from_numpy(self._state(self.calls)).to(device, non_blocking=True)[:, None]

    def _few(self, count: int) -> Tensor:
        """Numbers of this call, from those of several calls, which are computed together."""
        place = self.calls % AHEAD
        first = self.calls - place
        if self._ahead is None or self._ahead[0] != first:
            self._ahead = first, _shares(self._states_with(first), FEW)
        return torch.from_numpy(self._ahead[1][:, place, :count].copy())

    def _many(self, count: int, device: torch.device) -> Tensor:
        """Many numbers from [0, 1), float32, (B, count): hashes of each number's place and the sample's state."""
        state = self._state_on(device)
        low, high = state.int(), (state >> 32).int()
        place = torch.arange(count, dtype=torch.int32, device=device)
        if device.type == "cpu":  # NumPy takes half of torch's time; one sample after the other fits into the caches
            bits = [_hash(place.numpy(), *keys) for keys in zip(low.numpy(), high.numpy(), strict=True)]
            return torch.from_numpy(np.stack(bits)).float().mul_(2**-24)
        return _hash(place, low, high).float().mul_(2**-24)

    def normal(self, *shape: int, device: torch.device | None = None) -> Tensor:
        """Numbers from the standard normal distribution (Box-Muller), float32, shape (B, *shape)."""
        radius = torch.sqrt(-2 * torch.log(1 - self.uniform(*shape, device=device)))
        return radius * torch.cos(2 * math.pi * self.uniform(*shape, device=device))

    def bernoulli(self, probability: float) -> Tensor:
        """True with the given probability for each sample, bool, shape (B,)."""
        return self.uniform() < probability

    def rows(self, index: Tensor) -> "SampleRandom":
        """The streams of the chosen samples, each begun anew under the number of this call."""
        self.calls += 1
        return SampleRandom(torch.from_numpy(self._state(self.calls))[index])
