"""The order of the samples and their seeds, which any number of processes shares."""

import math
from collections.abc import Iterator

import torch
from torch.utils.data import Dataset, DistributedSampler

from ..utils.distributed import rank, world_size
from ..utils.errors import InputError
from ..utils.seeded_random import sample_seeds


class SeededSampler(DistributedSampler):
    """(index, seed) pairs, a function of the seed, the epoch and the position in the epoch alone.

    No random state has to be saved, and any number of processes and workers sees the same samples: process r takes
    positions r, r + world, ... Every process gets full batches: the epoch goes on into a further shuffle where the data
    does not fill the last one. MONAI's engines tell it the epoch.

    Attributes:
        dataset: what is indexed.
        batch_size: of each process.
        epoch_length: batches of an epoch; None: as many as the data fills.
        shuffle: False: the same order and seeds in every epoch, for validation; the last batch may be smaller, and at
            most world - 1 samples are left out.
        samples: for validation, the number of samples; the data is gone through as often as that takes.
        min_batch_size: least number of images of all processes together; with batch norm a single one fails.
        start: samples of this process that the next epoch leaves out, since a run resumes behind them.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        *,
        epoch_length: int | None = None,
        seed: int = 0,
        shuffle: bool = True,
        samples: int | None = None,
        min_batch_size: int = 2,
    ) -> None:
        super().__init__(dataset, num_replicas=world_size(), rank=rank(), shuffle=shuffle, seed=seed)
        size = len(dataset)  # type: ignore[arg-type]
        batch = batch_size * self.num_replicas
        if shuffle and batch < min_batch_size:
            reason = ", since batch statistics need company" if min_batch_size > 1 else ""
            raise InputError(f"batch_size must be at least {min_batch_size}{reason}, got {batch_size}")
        if shuffle:
            self.total_size = batch * (epoch_length or math.ceil(size / batch))
        else:
            self.total_size = max(1, (samples or size) // self.num_replicas) * self.num_replicas
        self.num_samples = self.total_size // self.num_replicas
        self.start = 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        size = len(self.dataset)  # type: ignore[arg-type]
        epoch = self.epoch if self.shuffle else -1
        seeds = sample_seeds(self.seed, epoch, self.total_size)
        rounds = math.ceil(self.total_size / size)
        if self.shuffle:  # the order of random numbers is a random order
            order = sample_seeds(~self.seed, epoch, rounds * size).reshape(rounds, size).argsort(dim=1).flatten()
        else:
            order = torch.arange(size).repeat(rounds)
        own = slice(self.rank + self.start * self.num_replicas, self.total_size, self.num_replicas)
        self.start = 0
        return iter(zip(order[: self.total_size][own].tolist(), seeds[own].tolist(), strict=True))

    def __len__(self) -> int:
        return self.num_samples
