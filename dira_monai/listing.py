"""From a folder of scans to a datalist: every image checked once, patients kept apart.

A datalist is MONAI's: an object with the lists ``training`` and ``validation``, here with facts of each image.
"""

import os
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from .errors import InputError
from .patients import choose_rule, choose_validation, find_patients, read_patient_table
from .scans import FORMATS, Image, check_facts, find_images, first_file, measure_images, without_label_maps

LISTS = ("training", "validation", "test")
VALIDATION_FRACTION = 0.1
SPLITS = {"train": "training", "training": "training", "": "training"} | dict.fromkeys(
    ("val", "valid", "validation"), "validation"
)


class Places(NamedTuple):
    """Where an image lies."""

    paths: set[str]  # of its files; a DICOM series may be named by its folder instead
    folders: set[str]  # of the files, where it is a list of them


def make_datalist(
    directory: str | Path,
    *,
    spatial_dims: int | None = None,
    in_channels: int = 1,
    patient: str = "auto",
    patient_column: str | None = None,
    file_column: str | None = None,
    validation_fraction: float | None = None,
    seed: int = 0,
    strict: bool = False,
    workers: int | None = None,
) -> dict:
    """The usable images of a folder, split by patient; ready for JSON, and the same for the same files and arguments.

    ``training`` and ``validation`` list ``image`` (relative to ``dataset_dir``; a list of files for a DICOM series),
    ``patient`` and the facts of ``measure_image``; ``skipped`` lists ``image`` and ``reason``; ``label_maps`` counts
    what ``without_label_maps`` leaves out, ``left_out`` the images of other splits of a table. ``spacing`` may be None,
    which MONAI's collation refuses: batch ``image`` alone.

    Args:
        directory: folder that is searched with all its sub-folders.
        spatial_dims: 2 or 3; by default what most of the images have.
        in_channels: channels that every image must have; gray images fit 3.
        patient: "auto" (``choose_rule``), a rule of ``find_patients``, or a CSV file for ``read_patient_table``. Its
            column ``split``, if it has one, says training and validation, and any other word (test) leaves images out.
        patient_column: column of the CSV file.
        file_column: column of the CSV file.
        validation_fraction: part of the patients, 0.1 by default. Where it is given, training and validation of a table
            are split anew; its other splits stay left out.
        seed: of the draw of the validation patients.
        strict: raise at the first image that cannot be used, instead of listing it in ``skipped``.
        workers: threads that read images, by default one a processor, at most 8.

    Raises:
        InputError: if there is no usable image, or only one patient, or any unusable image where ``strict`` is set.
    """
    check_arguments(spatial_dims, in_channels, validation_fraction)
    root = Path(os.path.abspath(Path(directory).expanduser()))
    found = find_images(root)
    if not found:
        raise InputError(f"{root} holds no {FORMATS} file.")
    images = without_label_maps(found)
    if patient.lower().endswith(".csv"):
        table = read_patient_table(patient, images, patient_column, file_column)
    else:
        patient = choose_rule(images) if patient == "auto" else patient
        table = [(name, "") for name in find_patients(images, root, patient)]
    kept = [(image, *row) for image, row in zip(images, table, strict=True) if row[1].lower() in SPLITS]
    facts = measure_images([image for image, _, _ in kept], root, strict, workers)
    spatial_dims = spatial_dims or majority(facts)
    rows, skipped = sort_out(kept, facts, spatial_dims, in_channels, strict)
    if not rows:
        first = skipped[0]["reason"] if skipped else "all belong to other splits of the patient table."
        raise InputError(f"{root} holds no usable image among {len(images)}; the first: {first}")
    datalist = {
        "dataset_dir": str(root),
        "spatial_dims": spatial_dims,
        "in_channels": in_channels,
        "seed": seed,
        "validation_fraction": validation_fraction,
        "patient_rule": patient,
        **_split_usable(rows, skipped, validation_fraction, seed),
        "skipped": skipped,
        "label_maps": len(found) - len(images),
        "left_out": dict(Counter(split for _, split in table if split.lower() not in SPLITS)),
    }
    check_datalist(datalist)
    return datalist


def check_arguments(spatial_dims: int | None, in_channels: int, validation_fraction: float | None) -> None:
    """Nothing, where a datalist can be made with these.

    Raises:
        InputError: if one is out of range.
    """
    if spatial_dims not in (None, 2, 3):
        raise InputError(f"spatial_dims must be 2 or 3, got {spatial_dims!r}.")
    if not isinstance(in_channels, int) or in_channels < 1:
        raise InputError(f"in_channels must be a whole number from 1, got {in_channels!r}.")
    if validation_fraction is not None and not (
        isinstance(validation_fraction, int | float) and 0 < validation_fraction < 1
    ):
        raise InputError(f"validation_fraction must lie between 0 and 1, got {validation_fraction!r}.")


def majority(facts: Sequence[dict | InputError]) -> int:
    """The number of spatial dimensions that most images have, the smaller of two that are equally frequent."""
    counts = Counter(len(fact["shape"]) for fact in facts if isinstance(fact, dict))
    return max(sorted(counts), key=counts.__getitem__, default=0)


def sort_out(
    kept: Sequence[tuple[Image, str, str]],
    facts: Sequence[dict | InputError],
    spatial_dims: int,
    in_channels: int,
    strict: bool,
) -> tuple[list[tuple[dict, str]], list[dict]]:
    """Entries with the split that a table gives them, and the skipped images with the reasons.

    Args:
        kept: image, patient and split of each.
        facts: of each, from ``measure_each``.
        spatial_dims: of the network.
        in_channels: of the network.
        strict: raise the first reason.

    Raises:
        InputError: if an image cannot be used and ``strict`` is set.
    """
    rows, skipped = [], []
    for (image, patient, split), fact in zip(kept, facts, strict=True):
        try:
            if isinstance(fact, InputError):
                raise fact
            check_facts(first_file(image), fact, spatial_dims, in_channels)
            if not patient:
                raise InputError(f"{first_file(image)} has no patient in the patient table.")
            rows.append(({"image": image, "patient": patient, **fact}, split))
        except InputError as error:
            if strict:
                raise
            skipped.append({"image": image, "reason": str(error)})
    return rows, skipped


def _split_usable(rows: Sequence[tuple[dict, str]], skipped: Sequence[dict], *rest: Any) -> dict[str, list[dict]]:
    """As ``_split``; an error tells what was skipped too, which may be why patients are missing."""
    try:
        return _split(rows, *rest)
    except InputError as error:
        if not skipped:
            raise
        first = skipped[0]["reason"]
        raise InputError(f"{str(error).rstrip('.')}; {len(skipped)} images were skipped, the first: {first}") from error


def _split(rows: Sequence[tuple[dict, str]], fraction: float | None, seed: int) -> dict[str, list[dict]]:
    given = {SPLITS[split.lower()] for _, split in rows}
    if fraction is None and given == {"training", "validation"}:
        chosen = [SPLITS[split.lower()] for _, split in rows]
    else:
        patients = [entry["patient"] for entry, _ in rows]
        kept = choose_validation(patients, VALIDATION_FRACTION if fraction is None else fraction, seed)
        chosen = ["validation" if patient in kept else "training" for patient in patients]
    return {
        name: [entry for (entry, _), choice in zip(rows, chosen, strict=True) if choice == name]
        for name in ("training", "validation")
    }


def check_datalist(
    datalist: dict,
    name: str | Path = "the datalist",
    lists: Sequence[str] = LISTS[:2],
    required: Sequence[str] = ("image",),
) -> None:
    """Nothing, where the datalist can be trained on.

    Args:
        datalist: with ``training`` and ``validation``, lists of objects with ``image`` and, where known, ``patient``.
        name: what an error calls it.
        lists: the lists that are looked at; ``test`` may be empty.
        required: what every entry must have.

    Raises:
        InputError: if a list is missing or empty, an entry lacks something or holds no path or name where one is
            needed, or a patient or an image is in two lists.
    """
    for key in lists:
        entries = datalist.get(key) if isinstance(datalist, dict) else None
        if not isinstance(entries, list) or not (entries or key == "test"):
            raise InputError(f"{name} has {'an empty list' if entries == [] else 'no list'} {key!r}.")
        for index, entry in enumerate(entries):
            if fault := _find_fault(entry, required):
                raise InputError(f"{name} has {fault} in entry {index} of {key!r}.")
    patients = {key: {entry["patient"] for entry in datalist[key] if "patient" in entry} for key in lists}
    root = find_root(datalist, name)
    places = {key: locate_images(datalist[key], root) for key in lists}
    for one, other in combinations(lists, 2):
        if both := sorted(patients[one] & patients[other], key=str):
            raise InputError(f"{name} has {len(both)} patients in both {one} and {other}: {first_names(both)}.")
        if both := [first_file(datalist[one][index]["image"]) for index in find_common(places[one], places[other])]:
            raise InputError(f"{name} has {len(both)} images in both {one} and {other}: {first_names(both)}.")


def _find_fault(entry: Any, required: Sequence[str]) -> str:
    """What an entry lacks, or holds where a path, a list of paths or a name is needed; else empty."""
    for part in required:
        if not isinstance(entry, dict) or entry.get(part) in (None, "", []):
            return f"no {part!r}"
    files = entry["image"] if isinstance(entry["image"], list) else [entry["image"]]
    if not all(isinstance(file, str) and file for file in files):
        return f"no path but {entry['image']!r} as 'image'"
    if not isinstance(entry.get("patient", ""), str | int | float):
        return f"no name but {entry['patient']!r} as 'patient'"
    return ""


def find_root(datalist: dict, path: str | Path) -> Path:
    """The folder where the paths of a datalist start: the one that it names, or else the one that it lies in.

    Raises:
        InputError: if what it names is no path.
    """
    home = Path(os.path.abspath(path)).parent
    if not isinstance(folder := datalist.get("dataset_dir", "."), str):
        raise InputError(f"{path} has {folder!r} as 'dataset_dir', which is no path.")
    named = home / folder
    return named if named.is_dir() else home


def locate_images(entries: Sequence[dict], root: Path) -> list[Places]:
    """The real paths of the ``image`` of each entry; relative ones start at ``root``."""
    folders: dict[str, str] = {}

    def real(file: str) -> str:
        folder, name = os.path.split(os.path.join(root, file))
        if name in ("", ".", "..") or os.path.islink(os.path.join(folder, name)):
            return os.path.realpath(os.path.join(folder, name))
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)  # once, since a folder holds many files
        return os.path.join(folders[folder], name)

    images = [entry["image"] for entry in entries]
    lists = [[image] if isinstance(image, str) else image for image in images]
    paths = [{real(file) for file in files} for files in lists]
    return [
        Places(found, set() if isinstance(image, str) else {os.path.dirname(path) for path in found})
        for image, found in zip(images, paths, strict=True)
    ]


def find_common(own: Sequence[Places], others: Sequence[Places]) -> list[int]:
    """The numbers of the first images that are among the others: same file, or a folder and the files in it."""
    paths: set[str] = set().union(*(place.paths for place in others))
    folders: set[str] = set().union(*(place.folders for place in others))
    return [
        index
        for index, place in enumerate(own)
        if place.paths & paths or place.paths & folders or place.folders & paths
    ]


def first_names(names: Sequence[object]) -> str:
    """The first three, joined by commas, and dots where there are more."""
    return ", ".join(map(str, names[:3])) + (", ..." if len(names) > 3 else "")
