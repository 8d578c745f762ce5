"""Random images, and the random numbers that change them."""

import math

import torch

from dira_monai.utils.seeded_random import SampleRandom, sample_seeds


def streams(count, seed=0):
    return SampleRandom(sample_seeds(seed, 0, count))


def random_images(count, shape, channels=1, low=0.0, high=1.0):
    return low + (high - low) * torch.rand(count, channels, *shape, generator=torch.Generator().manual_seed(0))


def numbered(count, shape):
    """Images in which every voxel has its own number."""
    return torch.arange(math.prod(shape)).float().reshape(1, 1, *shape).repeat(count, 1, *[1] * len(shape))
