"""Fixed preprocessing: intensities, channels and the type that images are stored in."""

from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
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
from torch.nn.functional import interpolate, pad

from ..images.find import first_file
from ..images.reader import ScanReader
from ..utils.errors import InputError, silence_needless
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
            name = getattr(sample[key], "meta", {}).get("filename_or_obj", key)
            sample[key] = _to_channels(sample[key], self.in_channels, name)
        return sample


def _to_channels(image: Tensor, count: int, name: Hashable) -> Tensor:
    if image.shape[0] == count:
        return image
    if image.shape[0] == 1:
        return image.repeat_interleave(count, dim=0)
    if count == 1 and bool((image[:3] == image[:1]).all()):
        return image[:1]
    raise InputError(f"{name}: has {image.shape[0]} channels where in_channels is {count}")


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
            name = getattr(data[key], "meta", {}).get("filename_or_obj", key)
            stored[key] = self.store(torch.as_tensor(data[key]).as_subclass(Tensor).float(), name)
        return stored

    def store(self, image: Tensor, name: Hashable) -> Tensor:
        """A plain float image as it is kept; ``name`` is what an error calls it."""
        if not image.sum().isfinite() and (count := int((~image.isfinite()).sum())):  # the sum is quick
            raise InputError(f"{name} holds {count} NaN or infinite values.")
        scaled = image * self.factor if self.factor == 1 else (image * self.factor).round_()
        return scaled.to(self.dtype).contiguous()


class StoredImaged(Transform):
    """From the file of the key image to the image that is stored, where neither axes nor spacing change.

    The same operations on the same numbers as the dictionary transforms of ``pretrain_preprocessing``, but on plain
    tensors: for a picture of 256 pixels, MONAI's meta data cost several times what decoding and resizing do.

    Args:
        region_size: as in ``pretrain_preprocessing``, like the other arguments.
        dtype: not None.
        in_channels: channels.
        intensity_range: or None.
        image_size: or None.
    """

    def __init__(
        self,
        region_size: Sequence[int] | None,
        dtype: str,
        in_channels: int,
        intensity_range: Sequence[float] | None,
        image_size: int | None,
    ) -> None:
        self.region_size, self.in_channels, self.image_size = region_size, in_channels, image_size
        self.scale, self.intensity_range = intensity_transform("image", intensity_range), intensity_range
        self.reader, self.storage = ScanReader(), ToStoraged("image", dtype)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Tensor]:
        """The sample with its image alone.

        Raises:
            InputError: as ``ScanReader``, ``ToChannelsd`` and ``ToStoraged``.
        """
        files = self.reader.read(data["image"])
        name = str(files[0])
        array, meta = self.reader.get_data(files)
        array = np.moveaxis(array, -1, 0) if array.ndim > len(meta["spatial_shape"]) else array[None]
        image = torch.from_numpy(array.astype(np.float32)).contiguous()  # which torch is quicker at
        image = self._resize(self._scale(_to_channels(image, self.in_channels, name)))
        if self.region_size is not None:
            missing = [max(0, wanted - n) for n, wanted in zip(image.shape[1:], self.region_size, strict=True)]
            sides = [side for n in reversed(missing) for side in (n // 2, n - n // 2)]
            image = pad(image, sides) if any(sides) else image
        return {"image": self.storage.store(image, name)}

    def _scale(self, image: Tensor) -> Tensor:
        if self.intensity_range is None:
            return self.scale({"image": image})["image"].as_subclass(Tensor)
        low, high = self.intensity_range
        return (image - low).div_(high - low).clip_(0, 1)

    def _resize(self, image: Tensor) -> Tensor:
        shape = image.shape[1:]
        if self.image_size is None or max(shape) == self.image_size:
            return image
        scale = self.image_size / max(shape)
        if scale < 1:  # else it would change nothing
            image = _low_pass(image, self.image_size)
        mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(shape)]
        return interpolate(image[None], [round(n * scale) for n in shape], mode=mode)[0]


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
    if axcodes is None and spacing is None and dtype is not None:
        return Compose([StoredImaged(region_size, dtype, in_channels, intensity_range, image_size)])
    silence_needless()
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
