"""Which labeled images are for training, validation and test, and whether the three lists can be used."""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

from ..images.find import IMAGE_FOLDERS, PIL_SUFFIXES, SPLIT, SPLIT_WORDS, Image, first_file, split_part
from ..utils.errors import InputError
from .checks import LISTS, check_datalist, first_names
from .patients import group_of, list_patients

SPLITS = SPLIT_WORDS | {"": "training"}

_END = re.compile(rf"(?:{SPLIT})(?:[_\-. ]?(?:(?:data)?set|data|images?|imgs?|inputs?))?$", re.IGNORECASE)


def split_word(folder: str) -> str:
    """The word of ``SPLITS`` that a folder has in its name, ``Training`` of ``a. Training Set``; else the folder."""
    return split_part(folder)[0] or folder


def _is_split(folder: str) -> bool:
    """Whether a folder ends with the word of a split, as ``chest_xray_test``, and not ``stress_test_2021``."""
    return bool(split_part(folder)[0] and _END.search(folder))


def folder_splits(images: Sequence[Image]) -> list[str]:
    """The first folder of each image where all of them are words like train, val and test.

    Folders that all images share and those like ``images`` do not count: ``images/train`` and ``chest_xray/train`` are
    as good as ``train/images`` and ``train``. Where some images lie elsewhere, as a preview does beside folders train
    and test, it is the first such word in the path of each, which is training and another one of some of them; all
    others have "", which is training too. Below a folder of training, as ``Train_Val``, those of both count.
    """
    paths = [PurePosixPath(first_file(image)).parent.parts for image in images]
    levels = [*zip(*paths, strict=False)]
    words = [{split_word(folder).lower() for folder in level} for level in levels]
    several = (number for number, level in enumerate(words) if len(level) > 1 and level <= SPLITS.keys())
    own = (number for number, level in enumerate(levels) if len(words[number]) > 1 or _is_split(level[0]))
    first = next(several, next(own, len(levels)))
    above = [[*map(split_word, parts[first:])] for parts in paths]
    folders = [next((part for part in parts if part.lower() not in IMAGE_FOLDERS), "") for parts in above]
    if all(folder and folder.lower() in SPLITS for folder in folders):
        return _split_training(folders, above)
    found = [next((part for part in parts if part.lower() in SPLITS), "") for parts in above]
    if {"training"} < {SPLITS[word.lower()] for word in found if word}:
        return _split_training(found, above)
    return [""] * len(found)


def _split_training(words: list[str], above: Sequence[Sequence[str]]) -> list[str]:
    """The words, or for training the last ones in the paths where these are training and validation."""
    own = [number for number, word in enumerate(words) if SPLITS[word.lower()] == "training"]
    last = {number: next((w for w in reversed(above[number]) if w.lower() in SPLITS), "") for number in own}
    if {SPLITS[word.lower()] for word in last.values()} == {"training", "validation"}:
        return [last.get(number, word) for number, word in enumerate(words)]
    return words


def split_entries(
    rows: Sequence[tuple[dict, str]], test_fraction: float, validation_fraction: float, seed: int
) -> dict[str, Any]:
    """The lists ``training``, ``validation`` and ``test``, and in ``drawn`` the part of each list that is drawn.

    Where no row says test, ``draw_patients`` draws the test patients from those for training; where none says
    validation, it then draws these from the patients that are left.
    Too few patients are refused.

    Args:
        rows: entries with ``patient``, and the word of ``SPLITS`` that a table gives them.
        test_fraction: chance of a patient for training to be one for test, 0 for an empty list.
        validation_fraction: chance of one that is left to be one for validation.
        seed: of both draws.
    """
    lists = {name: [entry for entry, word in rows if SPLITS[word.lower()] == name] for name in LISTS}
    fractions = {"test": test_fraction, "validation": validation_fraction}
    drawn = {name: part for name, part in fractions.items() if part and lists["training"] and not lists[name]}
    if "test" in drawn:
        names = [name for name in LISTS if name == "training" or name in drawn]
        pool = sorted({group_of(entry) for entry in lists["training"]})
        if len(pool) < len(names):
            raise InputError(
                f"{', '.join(names[:-1])} and {names[-1]} need {len(names)} patients, got {len(pool)}: "
                f"{first_names(pool)}; give another patient rule, or --test_fraction 0."
            )
    for name, fraction in drawn.items():
        left = 2 if name == "test" and "validation" in drawn else 1
        chosen = draw_patients([group_of(entry) for entry in lists["training"]], fraction, seed, name, left)
        lists[name] = [entry for entry in lists["training"] if group_of(entry) in chosen]
        lists["training"] = [entry for entry in lists["training"] if group_of(entry) not in chosen]
    return {**lists, "drawn": drawn}


def check_labeled(datalist: dict, name: str | Path = "the datalist") -> None:
    """Refuse lists that fail ``check_datalist``, hold a label that does not fit, or lack a class in training.

    The datalist has ``task``, ``class_names`` and ``multi_label``, and ``label`` in each entry.
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
        numbers = Counter(chain.from_iterable(known))
        every = [numbers[number] for number in range(len(datalist["class_names"]))]
        counts[key] = every if len(known) == len(present) else None
    return counts


def warn_of_absent_classes(datalist: dict) -> list[str]:
    """One line for each list that is not empty of the classes that it lacks."""
    warnings = []
    for key, counts in count_classes(datalist).items():
        absent = _absent(datalist, counts)
        if absent and datalist[key]:
            effect = "the metrics of this class are undefined there"
            effect = "it cannot be learned; try another label_seed" if key == "training" else effect
            warnings.append(f"warning: {key} has no image of {', '.join(absent)}: {effect}.")
    return warnings


def check_pictures(entry: dict) -> None:
    """Refuse an entry whose image or label map is no PNG, JPEG, TIFF or BMP."""
    for file in (first_file(entry["image"]), entry["label"]):
        if isinstance(file, str) and not file.lower().endswith(PIL_SUFFIXES):
            raise InputError(f"{file} has another format: 2D fine-tuning reads PNG, JPEG, TIFF and BMP; convert it.")


def _absent(datalist: dict, counts: Sequence[int] | None) -> list[str]:
    if counts is None:
        return []
    return [name for name, count in zip(datalist["class_names"], counts, strict=True) if not count]


def take_fraction(datalist: dict, fraction: float, seed: int) -> tuple[dict, list[str]]:
    """The datalist with a part of the training patients, and lines that say what was taken.

    These are drawn by ``draw_patients``, so that a larger fraction holds all of a smaller one, and, for classification,
    the first patient in its order of each class that would be missing; those who share an image come together.
    Validation and test stay. A fraction that is not in (0, 1] is refused.
    """
    if isinstance(fraction, bool) or not isinstance(fraction, int | float) or not 0 < fraction <= 1:
        raise InputError(f"label_fraction must be above 0 and at most 1, got {fraction!r}.")
    if fraction == 1:
        return datalist, []
    classes: dict[str, set[int]] = {}
    for entry in datalist["training"]:
        classes.setdefault(group_of(entry), set()).update(present_classes(entry) or [])
    order = sorted(classes, key=lambda name: draw(name, seed, "label"))
    first = draw_patients(order, fraction, seed, "label") if len(order) > 1 else set(order)
    present = set().union(*(classes[name] for name in first))
    absent = sorted(set().union(*classes.values()) - present) if datalist["task"] == "classification" else []
    added = {number: next(name for name in order if number in classes[name]) for number in absent}
    kept = {*first, *added.values()}
    entries = [entry for entry in datalist["training"] if group_of(entry) in kept]
    lines = [
        f"label_fraction {fraction:g}: {len(list_patients(entries))} of {len(list_patients(datalist['training']))} "
        "training patients, "
        f"{len(entries)} of {len(datalist['training'])} training images (label_seed {seed})"
    ]
    lines += [f"added {name}, the first patient of {datalist['class_names'][n]}" for n, name in added.items()]
    return datalist | {"training": entries}, lines


def draw(patient: str, seed: int, purpose: str) -> float:
    """A number in [0, 1) of a patient, a seed and a purpose alone, evenly spread: of the SHA-256 of the three."""
    digest = hashlib.sha256(f"{seed} {purpose} {patient}".encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:6]) / 2**48


def draw_patients(patients: Sequence[str], fraction: float, seed: int, purpose: str, left: int = 1) -> set[str]:
    """The patients whose ``draw`` lies below ``fraction``, at least one, and so few that as many as ``left`` are left.

    Each is drawn by itself, so that further patients move no other one; the price is that their number varies about
    the fraction: of n it has a standard deviation of sqrt(n * fraction * (1 - fraction)). Only where none lies below,
    or too many do, the choice depends on the others: it is that of the least draws. A single patient is refused.
    """
    order = sorted(set(patients), key=lambda name: draw(name, seed, purpose))
    if len(order) < 2:
        raise InputError(
            f"the images ({len(patients)}) all belong to one patient, {order[0]}, but "
            "training and validation need one each; give another patient rule: file, folder or a CSV file."
        )
    count = sum(draw(name, seed, purpose) < fraction for name in order)
    return set(order[: min(max(1, count), len(order) - left)])
