"""Label maps written as DICOM segmentations (SEG) of the series that they were made from, by highdicom."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...utils.errors import InputError
from ...utils.files import atomic_write
from ...utils.optional_import import import_package
from ...utils.version import __version__
from .grid import find_source, labels_on_source

ANATOMY = ("123037004", "SCT", "Anatomical Structure")


def write_segmentation(
    series: str | Path,
    label_map: str | Path,
    output: str | Path,
    class_names: Sequence[str],
    *,
    codes: str | Path | None = None,
    series_uid: str | None = None,
    algorithm: str = "dira_monai",
) -> str:
    """Write a label map as a DICOM segmentation and say in a line what was written.

    Patient, study and frame of reference are those of the series, and each frame refers to its slice. A label map on
    the grid of the series, in whatever order and direction of axes, is taken over voxel by voxel; of any other one each
    pixel of each slice takes the nearest voxel, by the affines. What lies outside of it is background.

    Args:
        series: folder of a series, or a file (an X-ray, a multi-frame file).
        label_map: NIfTI or another format of ``ScanReader``; its values are the numbers of the classes.
        output: file to write.
        class_names: background first.
        codes: JSON file, such as {"liver": {"type": ["10200004", "SCT", "Liver"], "color": [200, 80, 80]}}, and
            where a class needs it ``category``.
        series_uid: of the series, where the folder holds several.
        algorithm: name that is written as that of the algorithm.

    Raises:
        InputError: if a file or an argument cannot be used, or if the label map lies elsewhere than the series.
    """
    hd = import_package("highdicom", output)
    _check_names(class_names, algorithm)
    source = find_source(Path(series), series_uid)
    labels, how = labels_on_source(Path(label_map), source, len(class_names))
    segments = _segments(hd, class_names, read_codes(codes, class_names), algorithm)
    try:
        made = hd.seg.Segmentation(
            source_images=source.datasets,
            pixel_array=labels,
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=segments,
            series_instance_uid=hd.UID(),
            series_number=int(source.datasets[0].get("SeriesNumber") or 0) + 1000,
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer="dira_monai",
            manufacturer_model_name=algorithm,
            software_versions=__version__,
            device_serial_number="0",
            series_description=f"{algorithm} segmentation"[:64],
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # what the headers of the series lack
        raise InputError(f"{series} cannot be referred to by a segmentation: {str(error).rstrip('.')}.") from error
    with atomic_write(output) as file:
        made.save_as(file)
    counts = ", ".join(f"{name} {(labels == value).sum()}" for value, name in enumerate(class_names) if value)
    return f"{output}: {len(source.frames)} slices, {how}; pixels: {counts}"


def _check_names(names: Sequence[str], algorithm: str) -> None:
    if not _is_name(algorithm):
        raise InputError(f"algorithm must be a name of 64 letters at most, got {algorithm!r}.")
    good = isinstance(names, list | tuple) and len(names) > 1 and all(map(_is_name, names))
    if not good or len(set(names)) < len(names):
        raise InputError(f"class_names must be different names of 64 letters at most, background first, got {names!r}.")


def _is_name(text: Any) -> bool:
    """Whether DICOM takes a text as one long string (VR LO)."""
    return isinstance(text, str) and text.strip() != "" and len(text) <= 64 and "\\" not in text and text.isprintable()


def read_codes(file: str | Path | None, class_names: Sequence[str]) -> dict[str, dict]:
    """What a JSON file says of the classes; empty without a file.

    Raises:
        InputError: if it cannot be read, names another class, or holds something else than codes and colors.
    """
    if file is None:
        return {}
    try:
        codes = json.loads(Path(file).read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read: {error}.") from error
    if not isinstance(codes, dict) or not codes.keys() <= set(class_names[1:]):
        raise InputError(f"{file} must name classes of {list(class_names[1:])}, got {list(codes)}.")
    for name, entry in codes.items():
        kinds = {"type": str, "category": str, "color": int}
        if not isinstance(entry, dict) or not all(
            key in kinds
            and isinstance(value, list)
            and [type(part) for part in value] == [kinds[key]] * 3
            and "" not in value
            for key, value in entry.items()
        ):
            raise InputError(
                f"{file}: {name} must have type and category as [value, scheme, meaning] and color as [R, G, B]."
            )
    return codes


def _segments(hd: Any, class_names: Sequence[str], codes: Mapping[str, dict], algorithm: str) -> list[Any]:
    family = hd.sr.CodedConcept("123109", "DCM", "Artificial Intelligence")
    identification = hd.AlgorithmIdentificationSequence(algorithm, version=__version__, family=family)
    descriptions = []
    for number, name in enumerate(class_names[1:], 1):
        entry = codes.get(name, {})
        try:
            description = hd.seg.SegmentDescription(
                segment_number=number,
                segment_label=name,
                segmented_property_category=hd.sr.CodedConcept(*entry.get("category", ANATOMY)),
                segmented_property_type=hd.sr.CodedConcept(*entry.get("type", (f"CLASS{number}", "99DIRA", name))),
                algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
                algorithm_identification=identification,
                display_color=hd.color.CIELabColor.from_rgb(*entry["color"]) if "color" in entry else None,
            )
        except ValueError as error:  # too long, or no color
            raise InputError(f"the codes of {name} cannot be written: {str(error).rstrip('.')}.") from error
        descriptions.append(description)
    return descriptions
