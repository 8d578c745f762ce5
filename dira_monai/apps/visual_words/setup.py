"""What the search for visual words starts from: a bundle's configuration, and one image of each patient."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ...bundle.config import BundleConfig, read_config
from ...data.image_setup import ImageSetup
from ...datalists.io import load_datalist
from ...datalists.patients import patient_of
from ...images.find import Image
from ...utils.errors import InputError
from .dataset import SPLITS
from .places import WordSettings

CONFIGS = ("train.json", "transvw.json")


class Patient(NamedTuple):
    """A patient, who is represented by one image."""

    name: str
    image: Image


class Setup(ImageSetup):
    """What the configuration of a bundle says about images and words.

    Attributes:
        settings: of the words.
    """

    def __init__(self, config: BundleConfig, settings: WordSettings) -> None:
        super().__init__(config)
        self.settings = settings

    @property
    def feature_size(self) -> list[int]:
        """Size at which whole images are compared."""
        return list(self.settings.feature_size or [2 * n for n in self.patch_size])


def read_setup(
    config: str | Path | Sequence[str],
    overrides: Mapping[str, Any] | None = None,
    counts: Mapping[str, Any] | None = None,
) -> Setup:
    """What is needed of the configuration that the words will be trained with, so that images are prepared alike.

    Args:
        config: folder of a bundle with train.json and transvw.json, or configuration files, the later overriding.
        overrides: values to replace, by their ids.
        counts: of words and patients, that replace those of the configuration, by the names of ``WordSettings``.

    Raises:
        InputError: if there is no such file, an id is missing or something cannot be built.
    """
    bundle = read_config(config, overrides, CONFIGS, "visual words")
    settings = bundle.build("words")
    if not isinstance(settings, WordSettings):
        raise InputError(f"words of {bundle.name} must be a WordSettings, got {settings!r}.")
    return Setup(bundle, replace(settings, **(counts or {})))


def read_patients(datalist: str | Path, setup: Setup) -> dict[str, list[Patient]]:
    """The patients of each split, each once, with the first of their images; an entry without a patient is one.

    Args:
        datalist: JSON file.
        setup: that the list must suit.

    Raises:
        InputError: as ``load_datalist`` does, or if the list was made for other images.
    """
    content = load_datalist(datalist)
    setup.check_datalist(content, datalist)
    return {split: first_images(content[split]) for split in SPLITS}


def first_images(entries: Iterable[Mapping[str, Any]]) -> list[Patient]:
    """Each patient once, in the order of the entries."""
    found = dict[str, Patient]()
    for entry in entries:
        name = patient_of(entry)
        found.setdefault(name, Patient(name, entry["image"]))
    return list(found.values())
