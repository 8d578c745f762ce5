"""Whether a datalist can be trained on: its lists are there, and share no image and no patient."""

import os
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from ..images.find import Image, files_of, first_file
from ..utils.errors import InputError

LISTS = ("training", "validation", "test")


class Places(NamedTuple):
    """Where an image lies."""

    paths: set[str]  # of its files; a DICOM series may be named by its folder instead
    folders: set[str]  # of the files, where it is a list of them


def entries_of(datalist: dict, lists: Sequence[str] = LISTS) -> Iterator[dict]:
    """The entries of one list after the other."""
    return (entry for key in lists for entry in datalist[key])


def check_datalist(
    datalist: dict,
    name: str | Path = "the datalist",
    lists: Sequence[str] = LISTS[:2],
    required: Sequence[str] = ("image",),
) -> None:
    """Refuse a datalist that cannot be trained on.

    A list is missing or empty (``test`` may be empty), an entry lacks something or holds no path or name where one is
    needed, or a patient or an image is in two lists.

    Args:
        datalist: with lists of objects that have ``image`` and, where known, ``patient``.
        name: what an error calls it.
        lists: the lists that are looked at.
        required: what every entry must have.
    """
    for key in lists:
        entries = datalist.get(key) if isinstance(datalist, dict) else None
        if not isinstance(entries, list) or not (entries or key == "test"):
            raise InputError(f"{name} has {'an empty list' if entries == [] else 'no list'} {key!r}{_cure(datalist)}.")
        for index, entry in enumerate(entries):
            if fault := _find_fault(entry, required):
                raise InputError(f"{name} has {fault} in entry {index} of {key!r}.")
    patients = {key: {entry["patient"] for entry in datalist[key] if "patient" in entry} for key in lists}
    root = find_root(datalist, name)
    places = {key: locate_images([entry["image"] for entry in datalist[key]], root) for key in lists}
    for one, other in combinations(lists, 2):
        if both := sorted(patients[one] & patients[other], key=str):
            raise InputError(f"{name} has {len(both)} patients in both {one} and {other}: {first_names(both)}.")
        same = zip(datalist[one], match_images(places[one], places[other]), strict=True)
        if both := [first_file(entry["image"]) for entry, number in same if number is not None]:
            raise InputError(f"{name} has {len(both)} images in both {one} and {other}: {first_names(both)}.")


def _cure(datalist: Any) -> str:
    """How to make lists of what other programs call a data set: a Decathlon's dataset.json, lists of folds."""
    if not isinstance(datalist, dict) or not isinstance(datalist.get("training"), list) or "validation" in datalist:
        return ""
    return (
        "; make lists of its folder by dira-monai datalist FOLDER, or with labels by "
        "dira-monai labeled FOLDER --task segmentation --class_names NAMES"
    )


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


def locate_images(images: Sequence[Image], root: str | Path) -> list[Places]:
    """The real paths of each image; relative ones start at ``root``."""
    real_folder = cache(os.path.realpath)  # once, since a folder holds many files

    def real(file: str) -> str:
        folder, name = os.path.split(os.path.join(root, file))
        if name in ("", ".", "..") or os.path.islink(os.path.join(folder, name)):
            return os.path.realpath(os.path.join(folder, name))
        return os.path.join(real_folder(folder), name)

    paths = [{real(file) for file in files_of(image)} for image in images]
    return [
        Places(found, set() if isinstance(image, str) else {os.path.dirname(path) for path in found})
        for image, found in zip(images, paths, strict=True)
    ]


def match_images(own: Sequence[Places], others: Sequence[Places]) -> list[int | None]:
    """For each image the number of the first other one that is the same, else None.

    Images are the same where they share a real path, or where one is a folder and the other a list of files in it.
    """
    files: dict[str, int] = {}
    folders: dict[str, int] = {}
    for number, place in reversed([*enumerate(others)]):  # so that the first one stays
        files |= dict.fromkeys(place.paths, number)
        folders |= dict.fromkeys(place.folders, number)
    found = []
    for place in own:
        numbers = [files[path] for path in place.paths | place.folders if path in files]
        numbers += [folders[path] for path in place.paths if path in folders]
        found.append(min(numbers, default=None))
    return found


def first_names(names: Sequence[object]) -> str:
    """The first three, joined by commas, and dots where there are more."""
    return ", ".join(map(str, names[:3])) + (", ..." if len(names) > 3 else "")
