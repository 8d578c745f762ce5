"""Which labeled images are for training, validation and test, and whether the three lists can be used."""

import math
import os
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path, PurePosixPath

import numpy as np

from .datalist import find_root, read_datalist
from .errors import InputError
from .listing import LISTS, SPLITS, check_datalist, first_names
from .patients import choose_validation
from .scans import Image, first_file

LABELED_SPLITS = SPLITS | dict.fromkeys(("test", "testing"), "test")


def folder_splits(images: Sequence[Image]) -> list[str]:
    """The first folder of each image where all of them are words like train, val and test, or else "" for each."""
    folders = [PurePosixPath(first_file(image)).parts[0] for image in images]
    return folders if all(folder.lower() in LABELED_SPLITS for folder in folders) else [""] * len(folders)


def split_entries(
    rows: Sequence[tuple[dict, str]], test_fraction: float, validation_fraction: float, seed: int
) -> dict[str, list[dict]]:
    """The lists ``training``, ``validation`` and ``test``.

    Where no row says validation or test, ``choose_validation`` draws the test patients from all of them; where none
    says validation, it then draws these from the patients that are left for training.

    Args:
        rows: entries with ``patient``, and the word of ``LABELED_SPLITS`` that a table gives them.
        test_fraction: part of all patients, 0 for an empty list.
        validation_fraction: part of the patients that are not for test.
        seed: of both draws.

    Raises:
        InputError: if there are too few patients.
    """
    splits = [LABELED_SPLITS[word.lower()] for _, word in rows]
    patients = [entry["patient"] for entry, _ in rows]
    if set(splits) == {"training"} and test_fraction:
        if len(set(patients)) < 3:
            raise InputError(
                f"training, validation and test need 3 patients, got {len(set(patients))}: "
                f"{first_names(sorted(set(patients)))}; give another patient rule, or --test_fraction 0."
            )
        splits = _draw(patients, splits, "test", test_fraction, seed)
    if "training" in splits and "validation" not in splits:
        splits = _draw(patients, splits, "validation", validation_fraction, seed)
    return {name: [entry for (entry, _), split in zip(rows, splits, strict=True) if split == name] for name in LISTS}


def _draw(patients: Sequence[str], splits: Sequence[str], name: str, fraction: float, seed: int) -> list[str]:
    pool = [patient for patient, split in zip(patients, splits, strict=True) if split == "training"]
    chosen = choose_validation(pool, fraction, seed)
    return [
        name if split == "training" and patient in chosen else split
        for patient, split in zip(patients, splits, strict=True)
    ]


def check_labeled(datalist: dict, name: str | Path = "the datalist") -> None:
    """Nothing, where the lists and the labels are what the task needs.

    Args:
        datalist: with ``task``, ``class_names`` and ``multi_label``, and the three lists of ``image``, ``label`` and,
            where known, ``patient``.
        name: what an error calls it.

    Raises:
        InputError: if ``check_datalist`` fails for the three lists, a label does not fit, or a class is absent from
            training.
    """
    check_datalist(datalist, name, LISTS, ("image", "label"))
    for key in LISTS:
        for index, entry in enumerate(datalist[key]):
            if not _fits(entry["label"], datalist):
                wanted = {"segmentation": "a file", "classification": "the number of a class"}[datalist["task"]]
                wanted = "a list of 0, 1 and null, one a class" if datalist["multi_label"] else wanted
                raise InputError(
                    f"{name} has the label {entry['label']!r} in entry {index} of {key!r} where {wanted} is needed; "
                    f"the {len(datalist['class_names'])} classes are {', '.join(datalist['class_names'])}."
                )
    counts = count_classes(datalist)
    if absent := _absent(datalist, counts["training"]):
        number = datalist["class_names"].index(absent[0])
        others = ", ".join(f"{known[number]} in {key}" for key in LISTS[1:] if (known := counts[key]))
        raise InputError(
            f"{name} has no image of the class {absent[0]!r} in training ({others}); "
            "try other class_names, label options, fractions or another seed."
        )


def _fits(label: object, datalist: dict) -> bool:
    count = len(datalist["class_names"])
    if datalist["task"] == "segmentation":
        return isinstance(label, str)
    if datalist["multi_label"]:
        states = label if isinstance(label, list) else []
        known = [state for state in states if state is not None]
        return len(states) == count and all(type(state) is int and state in (0, 1) for state in known)
    return type(label) is int and 0 <= label < count


def present_classes(entry: dict) -> list[int] | None:
    """The numbers of the classes of an entry; None for a label map of which nothing is noted."""
    label = entry.get("holds") if isinstance(entry["label"], str) else entry["label"]
    if isinstance(label, list):
        return [number for number, state in enumerate(label) if state]
    return label if label is None else [label]


def count_classes(datalist: dict) -> dict[str, list[int] | None]:
    """How many images of each list have each class; None for a list of label maps of which nothing is noted."""
    counts: dict[str, list[int] | None] = {}
    for key in LISTS:
        present = [present_classes(entry) for entry in datalist[key]]
        known = [classes for classes in present if classes is not None]
        flat = np.array(list(chain.from_iterable(known)), dtype=int)
        numbers = np.bincount(flat, minlength=len(datalist["class_names"]))
        counts[key] = numbers.tolist() if len(known) == len(present) else None
    return counts


def warn_of_absent_classes(datalist: dict) -> list[str]:
    """One line for each list but training, where it is not empty, of the classes that it lacks."""
    warnings = []
    for key, counts in count_classes(datalist).items():
        absent = _absent(datalist, counts)
        if absent and datalist[key] and key != "training":
            words = ", ".join(absent)
            warnings.append(f"warning: {key} has no image of {words}: the metrics of this class are undefined there.")
    return warnings


def _absent(datalist: dict, counts: Sequence[int] | None) -> list[str]:
    if counts is None:
        return []
    return [name for name, count in zip(datalist["class_names"], counts, strict=True) if not count]


def find_overlap(datalist: dict, path: str | Path, pretraining_list: str | Path) -> list[str]:
    """The test images that pre-training has seen, or whose patients it has seen.

    Images are the same where their real paths are. Patients are compared by name, where one list's ``dataset_dir`` is
    inside or equal to the other's, since else the same name may be another patient.

    Args:
        datalist: with ``test``.
        path: its file.
        pretraining_list: JSON file of a pre-training.

    Raises:
        InputError: if the pre-training's list cannot be read.
    """
    seen = read_datalist(pretraining_list)
    check_datalist(seen, pretraining_list)
    entries = [*seen["training"], *seen["validation"]]
    own, other = find_root(datalist, path), find_root(seen, pretraining_list)
    files = set(chain.from_iterable(_real_files(entry["image"], other) for entry in entries))
    roots = [Path(os.path.realpath(root)) for root in (own, other)]
    related = roots[0].is_relative_to(roots[1]) or roots[1].is_relative_to(roots[0])
    patients = {str(entry["patient"]) for entry in entries if "patient" in entry} if related else set()
    return [
        first_file(entry["image"])
        for entry in datalist["test"]
        if files.intersection(_real_files(entry["image"], own)) or str(entry.get("patient", "")) in patients - {""}
    ]


def _real_files(image: Image, root: Path) -> Iterable[str]:
    return (os.path.realpath(root / file) for file in ([image] if isinstance(image, str) else image))


def check_overlap(datalist: dict, path: str | Path, pretraining_list: str | Path, allow_overlap: bool) -> list[str]:
    """Nothing, or where ``allow_overlap`` is set one line, if pre-training has seen test images or patients.

    Raises:
        InputError: if it has, and ``allow_overlap`` is not set.
    """
    if not (seen := find_overlap(datalist, path, pretraining_list)):
        return []
    told = f"{len(seen)} of {len(datalist['test'])} test images or their patients are in {pretraining_list}"
    if allow_overlap:
        return [f"warning: {told}, which is allowed: {first_names(seen)}; results on them are too good."]
    raise InputError(
        f"{told}: {first_names(seen)}; pre-train without them, or give --allow_overlap True to test on them anyway."
    )


def take_fraction(datalist: dict, fraction: float, seed: int) -> tuple[dict, list[str]]:
    """The datalist with a part of the training patients, and lines that say what was taken.

    These are the first ``ceil(fraction * patients)`` of a permutation by ``seed``, so that a larger fraction holds all
    of a smaller one, and, for classification, the first patient of each class that would be missing. Validation and
    test stay.

    Args:
        datalist: a checked one; entries without ``patient`` are one each.
        fraction: in (0, 1].
        seed: of the permutation.

    Raises:
        InputError: if the fraction is out of range.
    """
    if isinstance(fraction, bool) or not isinstance(fraction, int | float) or not 0 < fraction <= 1:
        raise InputError(f"label_fraction must be above 0 and at most 1, got {fraction!r}.")
    if fraction == 1:
        return datalist, []
    classes: dict[str, set[int]] = {}
    for entry in datalist["training"]:
        classes.setdefault(_patient(entry), set()).update(present_classes(entry) or [])
    names = sorted(classes)
    order = [names[index] for index in np.random.default_rng(seed).permutation(len(names))]
    first = order[: math.ceil(round(fraction * len(order), 9))]  # 0.07 * 100 is 7.000000000000001
    present = set().union(*(classes[name] for name in first))
    absent = sorted(set().union(*classes.values()) - present) if datalist["task"] == "classification" else []
    added = {number: next(name for name in order if number in classes[name]) for number in absent}
    kept = {*first, *added.values()}
    entries = [entry for entry in datalist["training"] if _patient(entry) in kept]
    lines = [
        f"label_fraction {fraction:g}: {len(kept)} of {len(order)} training patients, "
        f"{len(entries)} of {len(datalist['training'])} training images (label_subset {seed})"
    ]
    lines += [f"added {name}, the first patient of {datalist['class_names'][n]}" for n, name in added.items()]
    return datalist | {"training": entries}, lines


def _patient(entry: dict) -> str:
    return str(entry.get("patient", first_file(entry["image"])))
