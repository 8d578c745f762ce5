"""Fixed preprocessing: intensities, channels and the type that images are stored in."""

from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    Lambdad,
    LoadImaged,
    MapTransform,
    Orientationd,
    Resized,
    ScaleIntensityRanged,
    ScaleIntensityRangePercentilesd,
    Spacingd,
    SpatialPadd,
    Transform,
)
from torch import Tensor

from ..images.find import first_file
from ..images.reader import ScanReader
from ..utils.errors import InputError
from .resampling import low_pass

STORED = {  # type that images are kept in, and what 1.0 becomes in it
    "uint8": (torch.uint8, 255),
    "int16": (torch.int16, 32767),
    "float16": (torch.float16, 1),
    "float32": (torch.float32, 1),
}

FOREGROUND_LEVEL = 0.03  # of [0, 1]: above air in a CT window from -1000 HU and above the background of MR


def stored_unit(image: Tensor) -> int:
    """The value that stands for 1.0 in a stored image."""
    return dict(STORED.values())[image.dtype]


def intensity_transform(keys: KeysCollection, intensity_range: Sequence[float] | None) -> Transform:
    """The transform to [0, 1]: from a fixed range (HU, gray values), clipped, or from each image's own percentiles.

    Args:
        keys: keys of the images.
        intensity_range: what becomes 0 and 1; None: percentiles 0.5 and 99.5 of each channel of an image, for MR.
    """
    if intensity_range is None:
        return ScaleIntensityRangePercentilesd(keys, 0.5, 99.5, b_min=0, b_max=1, clip=True, channel_wise=True)
    low, high = intensity_range
    return ScaleIntensityRanged(keys, a_min=low, a_max=high, b_min=0, b_max=1, clip=True)


def check_intensity_range(items: Sequence[Mapping[str, Any]], intensity_range: Sequence[float] | None) -> None:
    """Refuse a range that would leave most images nearly constant: CT values read from MR, 8 bits read from 16.

    Args:
        items: entries of a datalist; those without ``range`` (lowest and highest value) are not checked.
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
        """The sample with its images alone; everything else is left out of the cache.

        Raises:
            InputError: if an image holds NaN or infinite values, which integers would hide.
        """
        stored = {}
        for key in self.key_iterator(dict(data)):
            image = torch.as_tensor(data[key]).as_subclass(torch.Tensor).float()
            if not image.isfinite().all():
                name = getattr(data[key], "meta", {}).get("filename_or_obj", key)
                raise InputError(f"{name} holds {int((~image.isfinite()).sum())} NaN or infinite values.")
            scaled = image * self.factor if self.factor == 1 else (image * self.factor).round()
            stored[key] = scaled.to(self.dtype).contiguous()
        return stored


def pretrain_preprocessing(
    region_size: Sequence[int] | None = None,
    dtype: str | None = None,
    *,
    in_channels: int,
    axcodes: str | None,
    spacing: Sequence[float] | None,
    intensity_range: Sequence[float] | None,
    image_size: int | None,
) -> Compose:
    """The transforms of the key image, from a file to the image that is cached, of the pre-training bundles.

    Args:
        region_size: voxels that images have at least, zeros are added; None: no padding.
        dtype: as in ``ToStoraged``; None: the images stay tensors in [0, 1] with their affine.
        in_channels: channels of the network.
        axcodes: orientation, such as RAS; None keeps that of the file.
        spacing: mm that images are resampled to; None keeps theirs.
        intensity_range: as in ``intensity_transform``.
        image_size: voxels of the longest side, larger and smaller images are resized; None keeps their size.
    """
    steps: list[Transform] = [
        LoadImaged("image", reader=ScanReader),
        EnsureChannelFirstd("image"),
        ToChannelsd("image", in_channels),
    ]
    if axcodes is not None:
        steps.append(Orientationd("image", axcodes=axcodes, labels=None))
    if spacing is not None:
        steps.append(Spacingd("image", pixdim=spacing, mode="bilinear"))
    steps.append(intensity_transform("image", intensity_range))
    if image_size is not None:
        steps.append(Lambdad("image", partial(_low_pass, longest=image_size)))
        steps.append(Resized("image", spatial_size=image_size, size_mode="longest", mode="bilinear"))
    if region_size is not None:
        steps.append(SpatialPadd("image", spatial_size=region_size))
    if dtype is not None:
        steps.append(ToStoraged("image", dtype))
    return Compose(steps)


def _low_pass(image: Tensor, longest: int) -> Tensor:
    return low_pass(image, [voxels * longest / max(image.shape[1:]) for voxels in image.shape[1:]])
