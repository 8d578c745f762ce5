"""Data loaders whose samples are a function of the seed, with any number of processes and workers."""

from torch.utils.data import DataLoader, Dataset

from .sampler import SeededSampler


def training_loader(
    dataset: Dataset,
    batch_size: int,
    *,
    epoch_length: int | None = None,
    seed: int = 0,
    num_workers: int = 0,
    pin_memory: bool = False,
) -> DataLoader:
    """Batches in a random order that changes with the epoch, all of them full.

    Args:
        dataset: asked with (index, seed) pairs, see ``SeededSampler``.
        batch_size: of each process.
        epoch_length: batches of an epoch; None: as many as the data fills.
        seed: of order, crops and views.
        num_workers: processes that load, which live as long as the loader; 0: this one.
        pin_memory: load into memory from which a GPU copies faster.
    """
    sampler = SeededSampler(dataset, batch_size, epoch_length=epoch_length, seed=seed)
    return _loader(dataset, batch_size, sampler, num_workers, pin_memory)


def validation_loader(
    dataset: Dataset,
    batch_size: int,
    *,
    samples: int | None = None,
    seed: int = 0,
    num_workers: int = 0,
    pin_memory: bool = False,
) -> DataLoader:
    """The same crops and views in every epoch, other ones than ``training_loader`` makes with the same seed.

    Args:
        dataset: asked with (index, seed) pairs, see ``SeededSampler``.
        batch_size: of each process; the last batch may be smaller.
        samples: number of samples, for which the data is gone through as often as that takes; None: one an image.
        seed: of the training.
        num_workers: as in ``training_loader``.
        pin_memory: as in ``training_loader``.
    """
    sampler = SeededSampler(dataset, batch_size, seed=seed + 1, shuffle=False, samples=samples)
    return _loader(dataset, batch_size, sampler, num_workers, pin_memory)


def _loader(
    dataset: Dataset, batch_size: int, sampler: SeededSampler, num_workers: int, pin_memory: bool
) -> DataLoader:
    return DataLoader(
        dataset,
        batch_size,
        sampler=sampler,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=pin_memory,
    )
