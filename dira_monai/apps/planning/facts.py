"""What the rules of a plan know: of the images, of the network and of the device."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.modules.instancenorm import _InstanceNorm

from ...images.facts import measure_image, resampled_shape, turn
from ...images.find import PIL_SUFFIXES, Image, first_file
from ...images.measuring import measure_each
from ...networks.encoder_decoder import downsampling
from ...networks.size_checks import size_divisor
from ...utils.errors import InputError

SAMPLE = 16  # images that are read to know channels and the order of axes
RESERVE = 2**30  # bytes of a process without a network, roughly
SHARE = 0.8  # of the memory that a step may fill


class Choice(NamedTuple):
    """A value of a plan, and why."""

    value: Any
    reason: str


NONE = "$None"  # as MONAI takes it from a file and from the command line


@dataclass(frozen=True)
class DataFacts:
    """The images that a plan is for."""

    shapes: np.ndarray  # pixels or voxels of each image, int, (N, D)
    spacings: np.ndarray | None  # mm, float, (N, D); None where they are not known of all
    ranges: np.ndarray  # lowest and highest value of each image, float, (N, 2)
    training: int  # number of training images
    validation: int  # number of validation images
    pictures: bool  # whether all are PNG or JPEG
    prepared: dict[str, Any]  # settings of a store of the command prepare, which stay as they are; empty for files

    @property
    def spatial_dims(self) -> int:
        """Number of spatial axes."""
        return self.shapes.shape[1]

    def shapes_at(self, spacing: Sequence[float] | None) -> np.ndarray:
        """Shapes after resampling to a spacing in mm, or as they are."""
        if spacing is None or self.spacings is None:
            return self.shapes
        return resampled_shape(self.shapes, self.spacings, spacing)


@dataclass(frozen=True)
class DeviceFacts:
    """Where a run computes."""

    name: str  # as torch calls it, such as cuda:0
    memory: int  # bytes that a step may fill


@dataclass(frozen=True)
class NetworkFacts:
    """The network that is trained.

    Attributes:
        factor: downsampling of its encoder by axis, which a patch has at least.
        unit: of which a patch is a multiple, by axis: the downsampling, or half of it if the network pads.
        least: what the longest axis of a patch has at least.
        bytes_per_voxel: that one image's step keeps for each pixel or voxel of a patch.
    """

    factor: tuple[int, ...]
    unit: tuple[int, ...]
    least: int
    bytes_per_voxel: float


def look_at(images: Sequence[Image], directory: str | Path) -> list[dict]:
    """Facts of ``measure_image`` of a sample at even distances; what cannot be read is left out."""
    count = min(len(images), SAMPLE)
    places = [round(number) for number in np.linspace(0, len(images) - 1, count)]
    found = measure_each(measure_image, [images[place] for place in places], directory)
    return [facts for facts in found if isinstance(facts, dict)]


def most_frequent(values: Sequence[Any], default: Any) -> Any:
    """The value that most have, the smaller of two that are equally frequent."""
    return max(sorted(set(values)), key=values.count, default=default)


def gather_facts(datalist: dict, axcodes: str | None) -> DataFacts:
    """Facts of the training and validation images of a checked datalist; those that it lacks are measured.

    Args:
        datalist: with ``dataset_dir``.
        axcodes: orientation to which volumes are turned; datalists hold the axes in the order of the files.

    Raises:
        InputError: if an image without facts cannot be read, or the images differ in their number of axes.
    """
    entries = [*datalist["training"], *datalist["validation"]]
    root, prepared = datalist.get("dataset_dir", "."), datalist.get("prepared") or {}
    if not prepared and any(not {"shape", "range", "axcodes"} <= entry.keys() for entry in entries):
        found = measure_each(measure_image, [entry["image"] for entry in entries], root, strict=True)
        entries = [entry | facts for entry, facts in zip(entries, found, strict=True) if isinstance(facts, dict)]
    dims = {len(entry["shape"]) for entry in entries}
    if len(dims) > 1:
        raise InputError(f"the images have {' and '.join(map(str, sorted(dims)))} axes; list those of one kind.")
    files = [first_file(entry["image"]) for entry in entries]
    axcodes = None if prepared else axcodes  # which were turned before they were stored

    def turned(name: str) -> np.ndarray:
        return np.array([turn(entry[name], entry.get("axcodes"), axcodes) for entry in entries])

    known = all(entry.get("spacing") for entry in entries)
    return DataFacts(
        shapes=turned("shape"),
        spacings=turned("spacing").astype(float) if known else None,
        ranges=np.array([entry.get("range", [0, 1]) for entry in entries], dtype=float),
        training=len(datalist["training"]),
        validation=len(datalist["validation"]),
        pictures=all(file.lower().endswith(PIL_SUFFIXES) for file in files),
        prepared=prepared,
    )


def find_device(name: str | None) -> DeviceFacts:
    """The device of a run and the memory that is free on it: of a GPU, or half of the computer's.

    Args:
        name: such as cpu or cuda:0; None: the GPU, if there is one.

    Raises:
        InputError: if there is no such device.
    """
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type == "cuda":
            return DeviceFacts(name, torch.cuda.mem_get_info(device)[0])
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # a torch without CUDA asserts
        raise InputError(f"device {name} cannot be used ({str(error).splitlines()[0].rstrip('.')}).") from error
    return DeviceFacts(name, _computer_memory() // 2)


def _computer_memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # another system than Unix
        return 8 * 2**30


def network_facts(network: nn.Module, in_channels: int, size: Sequence[int], copies: float) -> NetworkFacts:
    """What a network asks of patches, and of memory: computed without memory, on a meta copy.

    Args:
        network: is moved to the device meta and cannot be used again.
        in_channels: of an image.
        size: of an image that it takes.
        copies: how often a step keeps what all layers give.
    """
    try:
        factor, unit = downsampling(network), size_divisor(network)
    except TypeError:  # a network that cannot be taken apart, such as a ResNet that classifies
        factor = unit = (32,) * 2 if len(size) == 2 else (16,) * 3
    unit = tuple(max(f // 2, u) for f, u in zip(factor, unit, strict=True))
    normalized = any(isinstance(module, _InstanceNorm) for module in network.modules())
    total = 0

    def count(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal total
        if isinstance(output, torch.Tensor) and not list(module.children()):
            total += output.numel() * output.element_size()

    network = network.to("meta").train()
    for module in network.modules():
        module.register_forward_hook(count)
    with torch.no_grad():
        network(torch.empty(2, in_channels, *size, device="meta"))
    return NetworkFacts(factor, unit, max(factor) * (2 if normalized else 1), copies * total / 2 / math.prod(size))
