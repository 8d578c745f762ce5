"""How a bundle's configuration prepares images, for commands that prepare them as its training does."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai.transforms import Compose
from torch import Tensor

from ..bundle.config import BundleConfig
from ..bundle.values import IMAGE_VALUES, NETWORK_VALUES, ImageValues
from ..images.find import Image, first_file
from ..utils.errors import InputError, find_cause
from .preprocessing import check_intensity_range


class ImageSetup:
    """What the configuration of a bundle says about images.

    Attributes:
        config: that says it.
        preprocessing: from a file to the stored image, of the dictionary key image.
        images: how they are prepared.
        dtype: of stored voxels, see ``ToStoraged``.

    Raises:
        InputError: if a value is missing or cannot be built.
    """

    def __init__(self, config: BundleConfig) -> None:
        self.config = config
        self.preprocessing: Compose = config.build("train#preprocessing")
        self.images = ImageValues(**{name: config.build(name) for name in IMAGE_VALUES})
        self.dtype = str(config.build("cache_dtype"))

    @property
    def patch_size(self) -> list[int]:
        """Voxels of a view."""
        return list(self.images.patch_size)

    def check_datalist(self, content: Mapping[str, Any], datalist: str | Path) -> None:
        """Nothing, where a loaded datalist suits the configuration.

        Raises:
            InputError: if it was made for another network, or its intensities lie outside ``intensity_range``.
        """
        for name in NETWORK_VALUES:
            value = getattr(self.images, name)
            if content.get(name, value) != value:
                raise InputError(f"{datalist} was made for {name} {content[name]}, {self.config.name} for {value}.")
        check_intensity_range(content["training"], self.images.intensity_range)

    def load(self, image: Image) -> Tensor:
        """The prepared image, as it is stored, (C, *spatial).

        Raises:
            InputError: if it cannot be read or prepared.
        """
        try:
            return self.preprocessing({"image": image})["image"]
        except Exception as error:  # transforms raise whatever they like
            raise InputError(f"{first_file(image)} cannot be prepared: {find_cause(error)}.") from error
