"""How a bundle's configuration prepares images, for commands that prepare them as its training does."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from monai.bundle import ConfigParser
from monai.transforms import Compose
from torch import Tensor
from tqdm import tqdm

from .classifier import find_cause, replace_values
from .errors import InputError
from .scans import Image, first_file

Item = TypeVar("Item")
Result = TypeVar("Result")
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


def read_config(
    config: str | Path | Sequence[str],
    overrides: Mapping[str, Any] | None = None,
    files: Sequence[str] = ("train.json",),
) -> tuple[ConfigParser, str]:
    """A bundle's configuration with values replaced, and its name for errors.

    Args:
        config: folder of a bundle, or configuration files, the later overriding.
        overrides: values to replace, by their ids.
        files: that are meant by a folder.

    Raises:
        InputError: if there is no such file, or no such value.
    """
    folder = isinstance(config, str | Path) and Path(config).is_dir()
    paths = [str(Path(str(config), "configs", name)) for name in files] if folder else config
    name = str(paths) if isinstance(paths, str | Path) else " and ".join(map(str, paths))
    parser = ConfigParser()
    try:
        parser.read_config(paths)
    except (OSError, ValueError) as error:
        raise InputError(f"{name} cannot be read as configuration ({error}).") from error
    replace_values(parser, overrides or {}, name)
    return parser, name


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


def build(parser: ConfigParser, key: str, name: str, purpose: str) -> Any:
    """A value of the configuration, built.

    Raises:
        InputError: if it is missing or cannot be built.
    """
    if key not in parser:
        raise InputError(f"{name} has no value {key!r}, which {purpose} need.")
    try:
        return parser.get_parsed_content(key)
    except Exception as error:  # whatever the expressions of a configuration raise
        raise InputError(f"{key} of {name} cannot be built ({find_cause(error)}).") from error


def each(
    function: Callable[[Item], Result], items: Sequence[Item], title: str, workers: int | None
) -> Iterator[Result]:
    """Results in the order of the items, with a progress bar on a terminal; the first error ends all.

    Args:
        function: of an item; threads call it.
        items: what it is called with.
        title: of the bar.
        workers: threads; None: one a processor, at most 4.
    """
    pool = ThreadPoolExecutor(workers or min(os.cpu_count() or 1, 4))
    try:
        yield from tqdm(pool.map(function, items), title, len(items), leave=False, disable=None)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
