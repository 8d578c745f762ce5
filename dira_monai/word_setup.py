"""What the search for visual words starts from: a bundle's configuration, and one image of each patient."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from monai.bundle import ConfigParser
from monai.transforms import Compose
from torch import Tensor, nn
from tqdm import tqdm

from .classifier import find_cause, replace_values
from .data import check_intensity_range
from .datalist import load_datalist
from .errors import InputError
from .scans import Image, first_file
from .views import to_unit
from .word_choice import WordSettings
from .word_data import SPLITS

Item = TypeVar("Item")
Result = TypeVar("Result")
CONFIGS = ("train.json", "transvw.json")
IMAGES = ("spatial_dims", "in_channels", "patch_size", "image_size", "spacing", "axcodes", "intensity_range")


class Patient(NamedTuple):
    """A patient, who is represented by one image."""

    name: str
    image: Image


class Setup(NamedTuple):
    """What the configuration of a bundle says about images and words."""

    parser: ConfigParser
    preprocessing: Compose
    settings: WordSettings
    images: dict[str, Any]  # by the names of ``IMAGES``
    dtype: str  # of the stored cubes
    name: str  # of the configuration, for errors

    @property
    def patch_size(self) -> list[int]:
        """Voxels of a cube."""
        return list(self.images["patch_size"])

    @property
    def feature_size(self) -> list[int]:
        """Size at which whole images are compared."""
        return list(self.settings.feature_size or [2 * n for n in self.patch_size])

    @property
    def network(self) -> nn.Module:
        """The network that is going to be trained, with random weights.

        Raises:
            InputError: if it cannot be built.
        """
        return _build(self.parser, "network_def", self.name)

    def load(self, patient: Patient) -> Tensor:
        """The prepared image, in [0, 1], (C, *spatial).

        Raises:
            InputError: if it cannot be read or prepared.
        """
        try:
            return to_unit(self.preprocessing({"image": patient.image})["image"])
        except Exception as error:  # transforms raise whatever they like
            raise InputError(f"{first_file(patient.image)} cannot be prepared: {find_cause(error)}.") from error


def read_setup(config: str | Path | Sequence[str], overrides: Mapping[str, Any] | None = None) -> Setup:
    """What is needed of the configuration that the words will be trained with, so that images are prepared alike.

    Args:
        config: folder of a bundle with train.json and transvw.json, or configuration files, the later overriding.
        overrides: values to replace, by their ids.

    Raises:
        InputError: if there is no such file, an id is missing or something cannot be built.
    """
    folder = isinstance(config, str | Path) and Path(config).is_dir()
    files = [str(Path(str(config), "configs", name)) for name in CONFIGS] if folder else config
    name = files if isinstance(files, str | Path) else " and ".join(map(str, files))
    parser = ConfigParser()
    try:
        parser.read_config(files)
    except (OSError, ValueError) as error:
        raise InputError(f"{name} cannot be read as configuration ({error}).") from error
    replace_values(parser, overrides or {}, name)
    settings = _build(parser, "words", name)
    if not isinstance(settings, WordSettings):
        raise InputError(f"words of {name} must be a WordSettings, got {settings!r}.")
    images = {key: _build(parser, key, name) for key in IMAGES}
    preprocessing = _build(parser, "train#preprocessing", name)
    return Setup(parser, preprocessing, settings, images, str(_build(parser, "cache_dtype", name)), str(name))


def _build(parser: ConfigParser, key: str, name: str | Path) -> Any:
    if key not in parser:
        raise InputError(f"{name} has no value {key!r}, which visual words need.")
    try:
        return parser.get_parsed_content(key)
    except Exception as error:  # whatever the expressions of a configuration raise
        raise InputError(f"{key} of {name} cannot be built ({find_cause(error)}).") from error


def read_patients(datalist: str | Path, setup: Setup) -> dict[str, list[Patient]]:
    """The patients of each split, each once, with the first of their images; an entry without a patient is one.

    Args:
        datalist: JSON file.
        setup: that the list must suit.

    Raises:
        InputError: as ``load_datalist`` does, or if the list was made for other images.
    """
    content = load_datalist(datalist)
    for name in ("spatial_dims", "in_channels"):
        if content.get(name, setup.images[name]) != setup.images[name]:
            raise InputError(f"{datalist} was made for {name} {content[name]}, the configuration {setup.images[name]}.")
    check_intensity_range(content["training"], setup.images["intensity_range"])
    return {split: first_images(content[split]) for split in SPLITS}


def first_images(entries: Iterable[Mapping[str, Any]]) -> list[Patient]:
    """Each patient once, in the order of the entries."""
    found = dict[str, Patient]()
    for entry in entries:
        name = str(entry.get("patient", first_file(entry["image"])))
        found.setdefault(name, Patient(name, entry["image"]))
    return list(found.values())


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
