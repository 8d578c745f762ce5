"""The values of a bundle's configuration: those by which images are prepared and classes are named; texts in any."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

CLASS_VALUES = ("class_names", "multi_label")


@dataclass(frozen=True)
class ImageValues:
    """How a bundle prepares images, by the names of its configuration.

    Attributes:
        spatial_dims: 2 or 3.
        in_channels: channels of the network.
        patch_size: voxels of a view, which changes no prepared image.
        image_size: voxels that images are resized to; None keeps their size.
        spacing: mm that images are resampled to; None keeps theirs.
        axcodes: orientation, such as RAS; None keeps theirs.
        intensity_range: that becomes [0, 1].
    """

    spatial_dims: int
    in_channels: int
    patch_size: Any
    image_size: Any
    spacing: Any
    axcodes: Any
    intensity_range: Any


IMAGE_VALUES = tuple(field.name for field in fields(ImageValues))
NETWORK_VALUES = IMAGE_VALUES[:2]  # that a datalist is made for
PREPARED_VALUES = tuple(name for name in IMAGE_VALUES if name != "patch_size")  # that prepared images depend on


def list_texts(value: Any) -> Iterator[str]:
    """Every text in a value, also in lists and objects, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from list_texts(part)
