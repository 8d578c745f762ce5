"""Which patient an image belongs to."""

import posixpath
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ..dicom.headers import read_header
from ..images.find import Image, first_file
from ..utils.errors import InputError
from .tables import FILE_COLUMNS, image_names, pick_column, read_table, stem

RULES = ("dicom", "folder", "file")
PATIENT_COLUMNS = ("patient", "patient_id", "patient_group", "subject")
MIN_FOLDERS = 5  # fewer sub-folders are rather splits or classes than patients


def choose_rule(images: Sequence[Image]) -> str:
    """What tells patients apart: "dicom" for DICOM series, "folder" or "file" for other files, or both by name.

    Other files go by "folder" where every one of them lies in a folder below the one that they share and there are at
    least 5 such folders, and else by "file".
    """
    others = [image for image in images if isinstance(image, str)]
    folders = _folders(others)
    rule = "folder" if None not in folders and len(set(folders)) >= MIN_FOLDERS else "file"
    if len(others) == len(images):
        return rule
    return f"dicom and {rule}" if others else "dicom"


def find_patients(images: Sequence[Image], directory: str | Path, rule: str) -> list[str]:
    """The patient of each image.

    Args:
        images: relative to ``directory``, as ``find_images`` lists them.
        directory: the folder of the images.
        rule: "dicom" takes the PatientID (the study where it is empty), "folder" the first folder below the one that
            all images share, "file" the file name without suffixes; "dicom and ..." the latter for what is no DICOM.

    Raises:
        InputError: if the rule is unknown or does not fit an image.
    """
    if rule.startswith("dicom and "):
        return by_kind(images, rule, lambda part, own_rule: find_patients(part, directory, own_rule))
    if rule not in RULES:
        raise InputError(f"patient must be auto, {', '.join(RULES)} or a CSV file, got {rule!r}.")
    if rule == "dicom":
        return [_dicom_patient(image, directory) for image in images]
    if rule == "file":
        return [stem(first_file(image)) for image in images]
    folders = _folders(images)
    if None in folders:
        name = first_file(images[folders.index(None)])
        raise InputError(f"{name} lies in no folder of its own, so the patient rule folder does not fit.")
    return [str(folder) for folder in folders]


def by_kind(images: Sequence[Image], rule: str, find: Callable[[list[Image], str], list[str]]) -> list[str]:
    """Patients by a rule "dicom and ...", which ``find`` gets with the images of its kind."""
    files: list[Image] = [image for image in images if isinstance(image, str)]
    series: list[Image] = [image for image in images if not isinstance(image, str)]
    known: dict[str, str] = {}
    for part, own_rule in ((files, rule.removeprefix("dicom and ")), (series, "dicom")):
        known |= zip(map(first_file, part), find(part, own_rule), strict=True)
    return [known[first_file(image)] for image in images]


def _dicom_patient(image: Image, directory: str | Path) -> str:
    if isinstance(image, str):
        raise InputError(f"{image} is no DICOM file, so the patient rule dicom does not fit.")
    header = read_header(Path(directory, image[0]))
    return header.patient if header is not None and header.patient else image[0]


def _folders(images: Sequence[Image]) -> list[str | None]:
    parents = [PurePosixPath(first_file(image)).parent for image in images]
    shared = posixpath.commonpath(parents) if parents else ""
    below = [parent.relative_to(shared).parts for parent in parents]
    return [parts[0] if parts else None for parts in below]


def patient_of(entry: Mapping[str, Any]) -> str:
    """The patient of an entry of a datalist; without one, the image is a patient of its own."""
    return str(entry.get("patient", first_file(entry["image"])))


def read_patient_table(
    table: str | Path, images: Sequence[Image], patient_column: str | None = None, file_column: str | None = None
) -> list[tuple[str, str]]:
    """Patient and split of each image from a CSV file; empty where there is no row, or no column ``split``.

    A row names an image by one of its ``image_names``. Columns are by default the first of ``PATIENT_COLUMNS`` and of
    ``FILE_COLUMNS`` that is there.

    Raises:
        InputError: if the file is missing or has no such columns, or if a file has two patients or splits.
    """
    columns, cells = read_table(table, "patient table")
    patient = pick_column(table, columns, "patient_column", patient_column, PATIENT_COLUMNS)
    file = pick_column(table, columns, "file_column", file_column, FILE_COLUMNS)
    rows: dict[str, tuple[str, str]] = {}
    for row in cells:
        name, found = row[file], (row[patient], row.get("split", ""))
        if rows.setdefault(name, found) != found:
            raise InputError(f"{table} gives {name} two patients or splits: {rows[name]} and {found}.")
    return [next((rows[name] for name in image_names(image) if name in rows), ("", "")) for image in images]
