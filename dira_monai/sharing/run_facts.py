"""What is known of a finished training, for its metadata and model card."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..bundle.values import CLASS_VALUES, IMAGE_VALUES
from ..dicom.headers import is_dicom, read_tags
from ..images.find import Image, first_file
from ..utils.errors import InputError
from .agreement import parse
from .config_parts import as_json

UNKNOWN = "not known"
HOUNSFIELD = -200  # only CT is scaled from so low a value


@dataclass(frozen=True)
class RunFacts:
    """What a training was made of and what it reached."""

    values: Mapping[str, Any]  # of the inference configuration, resolved: ``class_names``, ``in_channels`` and so on
    network: str  # name of its class
    shape: tuple[int, ...]  # voxels of an input of the network
    images: Mapping[str, int]  # number of images by list: training, validation, test
    patients: Mapping[str, int]  # number of patients by list, where they are known
    suffixes: tuple[str, ...]  # of the files
    modality: str  # CT, MR, CR, ... or ``UNKNOWN``
    phantoms: bool  # whether the images are the synthetic ones of this package
    epoch: int  # of the weights, counted from 1
    metrics: Mapping[str, float] = field(default_factory=dict)  # of the validation in that epoch; finite ones only
    started_from: bool = False  # whether weights of a pre-training were given
    need_package: Sequence[str] = ()  # configurations that name parts of this package: of inference, evaluate


def resolve_values(inference: Mapping[str, Any]) -> dict[str, Any]:
    """The values of an inference configuration by which images are prepared and classes are named."""
    parsed = parse(inference)
    return {name: as_json(parsed.build(name)) for name in (*CLASS_VALUES, *IMAGE_VALUES) if name in inference}


def count_patients(lists: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, int]:
    """Patients of each list whose entries all name one."""
    return {
        name: len({str(entry["patient"]) for entry in entries})
        for name, entries in lists.items()
        if entries and all(isinstance(entry, Mapping) and "patient" in entry for entry in entries)
    }


def finite(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The metrics that are finite numbers, to six digits."""
    numbers = {name: float(value) for name, value in metrics.items() if isinstance(value, int | float)}
    return {name: float(f"{value:.6g}") for name, value in numbers.items() if math.isfinite(value)}


def _file_of(image: Image) -> Path:
    """A file of an image: of a list the first, of a folder any."""
    path = Path(first_file(image))
    return next((file for file in sorted(path.iterdir()) if file.is_file()), path) if path.is_dir() else path


def find_suffixes(images: Sequence[Image]) -> tuple[str, ...]:
    """Suffixes of the files of images, without what else a name holds between dots."""
    names = [_file_of(image).name.lower() for image in images]
    return tuple(sorted({".nii.gz" if name.endswith(".nii.gz") else Path(name).suffix for name in names} - {""}))


def find_modality(image: Image, intensity_range: Any) -> str:
    """What an image shows: that of its DICOM header; CT where Hounsfield units are scaled; else ``UNKNOWN``."""
    file = _file_of(image)
    if file.is_file() and is_dicom(file):
        with suppress(InputError):  # pydicom may be missing, where another reader is used
            return str(getattr(read_tags(file, ["Modality"]), "Modality", "") or UNKNOWN)
    hounsfield = isinstance(intensity_range, list) and float(intensity_range[0]) <= HOUNSFIELD
    return "CT" if hounsfield else UNKNOWN
