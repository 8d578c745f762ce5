"""How a bundle's configuration prepares images, for commands that prepare them as its training does."""

from typing import Any

from monai.transforms import Compose
from torch import Tensor

from ..bundle.config import BundleConfig, find_cause
from ..images.find import Image, first_file
from ..utils.errors import InputError

IMAGES = ("spatial_dims", "in_channels", "patch_size", "image_size", "spacing", "axcodes", "intensity_range")


class ImageSetup:
    """What the configuration of a bundle says about images.

    Attributes:
        config: that says it.
        preprocessing: from a file to the stored image, of the dictionary key image.
        images: values by the names of ``IMAGES``.
        dtype: of stored voxels, see ``ToStoraged``.

    Raises:
        InputError: if a value is missing or cannot be built.
    """

    def __init__(self, config: BundleConfig) -> None:
        self.config = config
        self.preprocessing: Compose = config.build("train#preprocessing")
        self.images: dict[str, Any] = {key: config.build(key) for key in IMAGES}
        self.dtype = str(config.build("cache_dtype"))

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
