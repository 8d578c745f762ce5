"""How a bundle's configuration prepares images, for commands that prepare them as its training does."""

from dataclasses import dataclass
from typing import Any

from monai.bundle import ConfigParser
from monai.transforms import Compose
from torch import Tensor

from ..bundle.config import build, find_cause
from ..images.find import Image, first_file
from ..utils.errors import InputError

IMAGES = ("spatial_dims", "in_channels", "patch_size", "image_size", "spacing", "axcodes", "intensity_range")


@dataclass(frozen=True)
class ImageSetup:
    """What the configuration of a bundle says about images.

    Attributes:
        parser: with the configuration.
        preprocessing: from a file to the stored image, of the dictionary key image.
        images: values by the names of ``IMAGES``.
        dtype: of stored voxels, see ``ToStoraged``.
        name: of the configuration, for errors.
    """

    parser: ConfigParser
    preprocessing: Compose
    images: dict[str, Any]
    dtype: str
    name: str

    @property
    def patch_size(self) -> list[int]:
        """Voxels of a view."""
        return list(self.images["patch_size"])

    def load(self, image: Image) -> Tensor:
        """The prepared image, as it is stored, (C, *spatial).

        Raises:
            InputError: if it cannot be read or prepared.
        """
        try:
            return self.preprocessing({"image": image})["image"]
        except Exception as error:  # transforms raise whatever they like
            raise InputError(f"{first_file(image)} cannot be prepared: {find_cause(error)}.") from error


def read_images(parser: ConfigParser, name: str, purpose: str) -> dict[str, Any]:
    """The fields of an ``ImageSetup``.

    Args:
        parser: with the configuration.
        name: of it, for errors.
        purpose: what needs the values, for errors.

    Raises:
        InputError: if a value is missing or cannot be built.
    """
    return {
        "parser": parser,
        "preprocessing": build(parser, "train#preprocessing", name, purpose),
        "images": {key: build(parser, key, name, purpose) for key in IMAGES},
        "dtype": str(build(parser, "cache_dtype", name, purpose)),
        "name": name,
    }
