"""Loading of images in a thread, where the error of one image becomes a note and the next one is loaded."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.data import list_data_collate
from monai.utils import TraceKeys
from torch.utils.data import Dataset

from ...images.find import Image, read_image
from ...images.stock import tell_picture
from ...utils.errors import InputError, find_cause


class Loaded(NamedTuple):
    """One image on its way to the network."""

    number: int  # of the image, from 0
    batch: dict[str, Any] | None  # of this image alone; None where it could not be loaded
    note: str  # why not, or what is unusual about it
    seconds: float  # that loading took
    place: np.ndarray | None = None  # of a slice: from voxels to mm, where the network sees its spacing alone


class InputImages(Dataset):
    """Images, each prepared and as a batch of its own.

    Args:
        paths: of files, or of folders of a DICOM series.
        preprocessing: from ``{"image": path}`` to the network's input. Only this data set may use it: an inversion
            switches tracing off for the time that it takes.
        in_channels: of the network.
        spatial_dims: of the network.
        channels: of an image of several files all of them, by its path.
        reader: of the configuration, see ``tell_picture``.
    """

    def __init__(
        self,
        paths: Sequence[str],
        preprocessing: Callable,
        in_channels: int,
        spatial_dims: int,
        channels: Mapping[str, list[str]] | None = None,
        reader: Any = None,
    ) -> None:
        self.paths = paths
        self.channels = channels or {}
        self.preprocessing = preprocessing
        self.in_channels, self.spatial_dims = in_channels, spatial_dims
        self.reader = reader

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Loaded:
        start = time.perf_counter()
        batch, place = None, None
        try:
            batch, note, place = self._load(self.paths[index])
        except Exception as error:  # whatever readers and transforms raise
            note = find_reason(self.paths[index], error)
        return Loaded(index, batch, note, time.perf_counter() - start, place)

    def _load(self, path: str) -> tuple[dict[str, Any], str, np.ndarray | None]:
        files: Image = self.channels.get(path, path)
        note = tell_picture(files, self.reader, self.in_channels)
        prepared = self.preprocessing({"image": files})
        image = prepared["image"]
        if (dims := image.ndim - 1) != self.spatial_dims:
            kind = ValueError if dims > self.spatial_dims else InputError  # axes of length 1 are dropped by ScanReader
            raise kind(f"{path} has {dims} spatial dimensions where spatial_dims is {self.spatial_dims}.")
        if len(image) != self.in_channels:
            raise InputError(f"{path} has {len(image)} channels where in_channels is {self.in_channels}.")
        if not torch.isfinite(image).all():
            raise InputError(f"{path} holds NaN or infinite voxels.")
        for operation in image.applied_operations:  # the inversion is by another object, made of the same values
            operation[TraceKeys.ID] = TraceKeys.NONE
        return list_data_collate([prepared]), image.meta.get("note", note), image.meta.get("slice_affine")


def only_batch(samples: Sequence[Loaded]) -> Loaded:
    """The one sample of a batch, which is a batch already."""
    return samples[0]


def find_reason(path: str, error: Exception) -> str:
    """Why an image could not be loaded, in one sentence without its path.

    Stock readers end with many lines: where ``ScanReader`` cannot read the file either, its sentence is taken.
    """
    if isinstance(error, InputError):
        return shorten(path, error)
    try:
        read_image(path)
    except Exception as plain:  # whatever decoders raise
        return shorten(path, plain if isinstance(plain, InputError) else error)
    return f"{shorten(path, error)}; --reader dira_monai.ScanReader may take it"


def shorten(path: str, error: Exception) -> str:
    """The cause of an error in one line, without the path of its image."""
    text = find_cause(error)
    return text.removeprefix(path).lstrip(": ") if text.startswith(path) else text


def without_parts(handlers: Sequence[Mapping[str, Any]], *targets: str) -> list[Mapping[str, Any]]:
    """The handlers of a configuration but those of some classes."""
    return [handler for handler in handlers if str(handler.get("_target_")).split(".")[-1] not in targets]
