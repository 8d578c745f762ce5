"""Crops of prepared images, and samples whose random transforms a seed fixes."""

import math
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
from monai.data import CacheDataset
from monai.data import Dataset as MonaiDataset
from monai.transforms import Compose, Randomizable, Transform
from monai.transforms.traits import RandomizableTrait
from torch import Tensor
from torch.utils.data import Dataset

from ..utils.distributed import rank
from ..utils.errors import InputError
from ..utils.memory import trim_malloc
from ..utils.seeded_random import SampleRandom
from .background_cache import BackgroundCache
from .bad_files import BadFiles
from .preprocessing import FOREGROUND_LEVEL, stored_unit


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


class CheckedCacheDataset(CacheDataset):
    """MONAI's ``CacheDataset``, which names the file of an item that cannot be loaded or holds NaN.

    Args:
        data: as in ``CacheDataset``.
        transform: as in ``CacheDataset``.
        max_bad_files: how many such items may be left out; the next one that can be loaded takes the place of each.
        kwargs: further arguments of ``CacheDataset``.

    Raises:
        InputError: if more items than these cannot be loaded.
    """

    def __init__(self, data: Sequence[Any], transform: Any, *, max_bad_files: int = 0, **kwargs: Any) -> None:
        self.bad_files = BadFiles(data, max_bad_files)
        super().__init__(data, transform, **kwargs)
        trim_malloc()

    def _load_cache_item(self, idx: int) -> Any:
        return self.bad_files.load(idx, super()._load_cache_item)

    def _transform(self, index: int) -> Any:
        if index % len(self) < self.cache_num:
            return super()._transform(index)
        item, later = self._load_cache_item(index % len(self)), self.transform.get_index_of_first(_is_random)
        return item if later is None else self.transform(item, start=later)


def _is_random(transform: object) -> bool:
    """Whether ``CacheDataset`` keeps nothing of what a transform makes."""
    return isinstance(transform, RandomizableTrait) or not isinstance(transform, Transform)


class _BackgroundCacheDataset(CheckedCacheDataset):
    """A ``CheckedCacheDataset`` that can be used while its cache is filled."""

    def _fill_cache(self, indices: Sequence[int] | None = None) -> Any:
        return BackgroundCache(self._load_cache_item, self.cache_num)


class PretrainDataset(Dataset):
    """Crops of prepared images, each fixed by the index and the seed it is asked with.

    Attributes:
        data: entries of a datalist; those of the command prepare are mapped into memory, whatever ``cache`` says.
        transform: fixed preprocessing up to images (C, *spatial).
        region_size: size of the crop that the views are taken from; images must not be smaller.
        cache: "ram" or "none"; "ram" is filled while the training has begun, but before workers of a loader start.
        min_foreground: share of voxels above the background that a crop should have; of eight places, the first that
            has it is taken, else the best of them.
        max_bad_files: see ``CheckedCacheDataset``.
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
        max_bad_files: int = 0,
    ) -> None:
        self.data = list(data)
        self.region_size = tuple(region_size)
        self.min_foreground = min_foreground
        self.images: MonaiDataset
        self.stored: BadFiles | None = None
        if self.data and all(is_stored(item.get("image")) for item in self.data):
            self.images, self.stored = MonaiDataset(self.data, _read_item), BadFiles(self.data, max_bad_files)
        else:
            kind = CheckedCacheDataset if num_workers else _BackgroundCacheDataset  # workers copy what is there
            self.images = kind(
                self.data,
                transform,
                max_bad_files=max_bad_files,
                cache_rate=1.0 if cache == "ram" else 0.0,
                num_workers=num_workers or None,
                copy_cache=False,
                progress=rank() == 0 and sys.stderr.isatty(),
            )

    def __len__(self) -> int:
        return len(self.data)

    @property
    def regions(self) -> int:
        """About how many regions that do not overlap the images hold, by the size of the first, which is read."""
        first = self.images[0] if self.stored is None else self.stored.load(0, self.images.__getitem__)
        sizes = zip(first["image"].shape[1:], self.region_size, strict=True)
        return int(len(self) * math.prod(max(1.0, n / region) for n, region in sizes))

    def __getitem__(self, item: int | tuple[int, int]) -> dict[str, Tensor | int]:
        """``image``, (C, *region_size), and ``seed``; a plain index has seed 0."""
        index, seed = item if isinstance(item, tuple) else (item, 0)

        if self.stored is None:
            return self._sample(index, seed)
        return self.stored.load(index, lambda place: self._sample(place, seed))

    def _sample(self, place: int, seed: int) -> dict[str, Tensor | int]:
        """The region of an image."""
        image = self.images[place]["image"]
        start = self._place(image, seed)
        return {"image": image[self._box(start)].contiguous(), "seed": seed} | self._more(place, start)

    def _more(self, place: int, start: Sequence[int]) -> dict[str, Tensor]:
        """What a kind of data set has besides, of the region that begins at ``start``."""
        return {}

    def _box(self, start: Sequence[int]) -> tuple[slice, ...]:
        return (slice(None), *(slice(p, p + n) for p, n in zip(start, self.region_size, strict=True)))

    def _place(self, image: Tensor, seed: int, tries: int = 8) -> list[int]:
        """The first voxel of the region, drawn from the seed."""
        room = torch.tensor(image.shape[1:]) - torch.tensor(self.region_size)
        if not bool((room > 0).any()):
            return [0] * len(room)
        places = (SampleRandom(torch.tensor([seed])).uniform(tries, len(room))[0] * (room + 1)).long()
        level = FOREGROUND_LEVEL * stored_unit(image)
        best, most = [0] * len(room), -1.0
        for place in places.tolist():
            sparse = image[0][tuple(slice(p.start, p.stop, 4) for p in self._box(place)[1:])]  # every fourth voxel
            share = (sparse > level).float().mean().item() if self.min_foreground > 0 else 1.0
            if share > most:
                best, most = place, share
            if most >= self.min_foreground:
                break
        return best


class SeededCacheDataset(CheckedCacheDataset):
    """A ``CheckedCacheDataset`` whose random transforms are fixed by the seed that an item is asked with.

    With ``SeededSampler`` every sample is a function of seed, epoch and position, whatever worker or process makes it.

    Args:
        data: as in ``CacheDataset``.
        transform: as in ``CacheDataset``.
        kwargs: further arguments of ``CheckedCacheDataset``.

    Raises:
        InputError: as ``CheckedCacheDataset``, or if a transform hides a random one, as a ``Lambda`` around it does: no
            seed would reach that, and what it makes would be kept as if it were fixed.
    """

    def __init__(self, data: Sequence[Any], transform: Any, **kwargs: Any) -> None:
        parts = transform.flatten().transforms if isinstance(transform, Compose) else [transform]
        for part in parts:
            if not isinstance(part, Randomizable) and (hidden := _find_random(part)):
                raise InputError(
                    f"the transform {type(part).__name__} holds {type(hidden).__name__}, which no seed reaches there; "
                    f"name {type(hidden).__name__} in the list itself, or make a class of Randomizable of both."
                )
        super().__init__(data, transform, **kwargs)

    def __getitem__(self, item: int | tuple[int, int]) -> Any:
        """The sample of a plain index, or of an (index, seed) pair."""
        index, seed = item if isinstance(item, tuple) else (item, 0)
        self.transform.set_random_state(seed=seed % 2**32)
        return super().__getitem__(index)


def _find_random(holder: object, depth: int = 4) -> Randomizable | None:
    """The first random transform that an object holds, in containers, arguments or as a function too, or None."""
    if isinstance(holder, Randomizable) and not isinstance(holder, Compose):
        return holder
    if depth == 0 or isinstance(holder, type | ModuleType):
        return None
    parts = [*getattr(holder, "__dict__", {}).values(), getattr(holder, "__self__", None)]
    parts += [cell.cell_contents for cell in getattr(holder, "__closure__", None) or ()]
    if isinstance(holder, FunctionType):
        named = map(holder.__globals__.get, holder.__code__.co_names)  # among all of a configuration, as MONAI has it
        parts += [part for part in named if isinstance(part, Randomizable)]
        parts += [holder.__defaults__, holder.__kwdefaults__]
    if isinstance(holder, partial):
        parts += [holder.func, *holder.args, *holder.keywords.values()]
    if isinstance(holder, Mapping | list | tuple | set):
        parts += holder.values() if isinstance(holder, Mapping) else holder
    return next((found for part in parts if (found := _find_random(part, depth - 1))), None)
