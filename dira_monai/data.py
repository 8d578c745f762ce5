"""From the datalist to batches: loading, fixed preprocessing, caching and crops, without a random state of its own."""

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import CacheDataset
from monai.data import Dataset as MonaiDataset
from monai.transforms import MapTransform, ScaleIntensityRanged, ScaleIntensityRangePercentilesd, Transform
from torch import Tensor
from torch.utils.data import Dataset, DistributedSampler

from .distributed import rank, world_size
from .draws import Draws, sample_seeds
from .errors import InputError
from .scans import first_file

STORED = {  # type that images are kept in, and what 1.0 becomes in it
    "uint8": (torch.uint8, 255),
    "int16": (torch.int16, 32767),
    "float16": (torch.float16, 1),
    "float32": (torch.float32, 1),
}
CACHES = ("ram", "none")
FOREGROUND_LEVEL = 0.03  # of [0, 1]: above air in a CT window from -1000 HU and above the background of MR


def intensity_transform(keys: KeysCollection, intensity_range: Sequence[float] | None) -> Transform:
    """The transform to [0, 1]: from a fixed range (HU, gray values), clipped, or from each image's own percentiles.

    Args:
        keys: keys of the images.
        intensity_range: what becomes 0 and 1; None: percentiles 0.5 and 99.5 of each image, for MR.
    """
    if intensity_range is None:
        return ScaleIntensityRangePercentilesd(keys, lower=0.5, upper=99.5, b_min=0, b_max=1, clip=True)
    low, high = intensity_range
    return ScaleIntensityRanged(keys, a_min=low, a_max=high, b_min=0, b_max=1, clip=True)


def check_intensity_range(items: Sequence[Mapping[str, Any]], intensity_range: Sequence[float] | None) -> None:
    """Refuse a range that would leave most images nearly constant: CT values read from MR, 8 bits read from 16.

    Args:
        items: entries of a datalist; those without ``range`` (lowest and highest value) are not judged.
        intensity_range: as in ``intensity_transform``.

    Raises:
        InputError: if more than half of the images fill less than a quarter of the range, or reach beyond ten times
            its width.
    """
    known = [item for item in items if "range" in item]
    if intensity_range is None or not known:
        return
    low, high = intensity_range
    suspects = []
    for item in known:
        first, last = item["range"]
        filled = (min(last, high) - max(first, low)) / (high - low)
        if filled < 0.25 or last - first > 10 * (high - low):
            suspects.append(item)
    if 2 * len(suspects) > len(known):
        item = suspects[0]
        raise InputError(
            f"{first_file(item['image'])}: values from {item['range'][0]:g} to {item['range'][1]:g} do not suit "
            f"intensity_range [{low:g}, {high:g}], and so in {len(suspects)} of {len(known)} images; "
            "give the range, or '$None' for percentiles of each image"
        )


class ToChannelsd(MapTransform):
    """Images with the wanted number of channels: gray repeated, equal color channels made gray."""

    def __init__(self, keys: KeysCollection, in_channels: int, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.in_channels = in_channels

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        """The sample with images (in_channels, *spatial).

        Raises:
            InputError: if an image has another number of channels and they differ.
        """
        sample = dict(data)
        for key in self.key_iterator(sample):
            image = sample[key]
            if image.shape[0] == self.in_channels:
                continue
            if image.shape[0] == 1:
                sample[key] = image.repeat_interleave(self.in_channels, dim=0)
            elif self.in_channels == 1 and bool((image[:3] == image[:1]).all()):
                sample[key] = image[:1]
            else:
                name = getattr(image, "meta", {}).get("filename_or_obj", key)
                raise InputError(f"{name}: has {image.shape[0]} channels where in_channels is {self.in_channels}")
        return sample


class ToStoraged(MapTransform):
    """Images in [0, 1] as plain tensors of the type they are kept in: integers use their positive range."""

    def __init__(self, keys: KeysCollection, dtype: str, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        if dtype not in STORED:
            raise InputError(f"cache_dtype must be one of {', '.join(STORED)}, got {dtype!r}")
        self.dtype, self.factor = STORED[dtype]

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        """The sample with its images alone; everything else is left out of the cache."""
        stored = {}
        for key in self.key_iterator(dict(data)):
            image = torch.as_tensor(data[key]).as_subclass(torch.Tensor).float()
            scaled = image * self.factor if self.factor == 1 else (image * self.factor).round()
            stored[key] = scaled.to(self.dtype).contiguous()
        return stored


def read_stored(path: str | Path) -> Tensor:
    """An image of the command prepare, (C, *spatial), mapped into memory: only bytes that are looked at are read.

    Raises:
        InputError: if the file is missing or no stored image.
    """
    try:
        return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))
    except (OSError, EOFError, ValueError, TypeError) as error:
        raise InputError(f"{path} cannot be read ({error}); run the command prepare again.") from error


def is_stored(image: object) -> bool:
    """Whether an entry of a datalist names an image of the command prepare."""
    return isinstance(image, str) and image.endswith(".npy")


def _read_item(item: Mapping[str, Any]) -> dict[str, Tensor]:
    return {"image": read_stored(item["image"])}


class PretrainDataset(Dataset):
    """Crops of prepared images, each fixed by the index and the seed it is asked with.

    Attributes:
        data: entries of a datalist; those of the command prepare are mapped into memory, whatever ``cache`` says.
        transform: fixed preprocessing up to images (C, *spatial).
        region_size: size of the crop that the views are taken from; images must not be smaller.
        cache: "ram" or "none".
        min_foreground: share of voxels above the background that a crop should have; of eight places, the first that
            has it is taken, else the best of them.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Transform,
        region_size: Sequence[int],
        *,
        cache: str = "ram",
        num_workers: int = 0,
        min_foreground: float = 0.0,
    ) -> None:
        if cache not in CACHES:
            raise InputError(f"cache must be one of {', '.join(CACHES)}, got {cache!r}")
        self.data = list(data)
        self.region_size = tuple(region_size)
        self.min_foreground = min_foreground
        self.images: MonaiDataset
        if self.data and all(is_stored(item.get("image")) for item in self.data):
            self.images = MonaiDataset(self.data, _read_item)
        elif cache == "ram":
            self.images = CacheDataset(
                self.data, transform, num_workers=num_workers or None, copy_cache=False, progress=rank() == 0
            )
        else:
            self.images = MonaiDataset(self.data, transform)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, item: int | tuple[int, int]) -> dict[str, Tensor | int]:
        """``image``, (C, *region_size), and ``seed``; a plain index has seed 0."""
        index, seed = item if isinstance(item, tuple) else (item, 0)
        image = self.images[index]["image"]
        return {"image": self._crop(image, seed), "seed": seed}

    def _crop(self, image: Tensor, seed: int, tries: int = 8) -> Tensor:
        """A place for the region, drawn from the seed."""
        room = torch.tensor(image.shape[1:]) - torch.tensor(self.region_size)
        if not bool((room > 0).any()):
            return image
        places = (Draws(torch.tensor([seed])).uniform(tries, len(room))[0] * (room + 1)).long()
        level = FOREGROUND_LEVEL * dict(STORED.values())[image.dtype]
        best, most = image, -1.0
        for place in places.tolist():
            box = (slice(None), *(slice(p, p + n) for p, n in zip(place, self.region_size, strict=True)))
            crop = image[box]
            sparse = crop[0][(slice(None, None, 4),) * len(place)]  # every fourth voxel tells enough
            share = (sparse > level).float().mean().item() if self.min_foreground > 0 else 1.0
            if share > most:
                best, most = crop, share
            if most >= self.min_foreground:
                break
        return best.contiguous()


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
        smallest_batch: least number of images of all processes together; with batch norm a single one fails.
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
        smallest_batch: int = 2,
    ) -> None:
        super().__init__(dataset, num_replicas=world_size(), rank=rank(), shuffle=shuffle, seed=seed)
        size = len(dataset)  # type: ignore[arg-type]
        batch = batch_size * self.num_replicas
        if shuffle and batch < smallest_batch:
            reason = ", since batch statistics need company" if smallest_batch > 1 else ""
            raise InputError(f"batch_size must be at least {smallest_batch}{reason}, got {batch_size}")
        if shuffle:
            self.total_size = batch * (epoch_length or math.ceil(size / batch))
        else:
            self.total_size = max(1, (samples or size) // self.num_replicas) * self.num_replicas
        self.num_samples = self.total_size // self.num_replicas

    def __iter__(self) -> Iterator[tuple[int, int]]:
        size = len(self.dataset)  # type: ignore[arg-type]
        epoch = self.epoch if self.shuffle else -1
        seeds = sample_seeds(self.seed, epoch, self.total_size)
        rounds = math.ceil(self.total_size / size)
        if self.shuffle:  # the order of random numbers is a random order
            order = sample_seeds(~self.seed, epoch, rounds * size).reshape(rounds, size).argsort(dim=1).flatten()
        else:
            order = torch.arange(size).repeat(rounds)
        own = slice(self.rank, self.total_size, self.num_replicas)
        return iter(zip(order[: self.total_size][own].tolist(), seeds[own].tolist(), strict=True))

    def __len__(self) -> int:
        return self.num_samples
