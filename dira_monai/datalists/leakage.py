"""Whether images that a model is judged by, or other images of the same patients, took part in its training."""

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ..images.find import Image, first_file, is_series
from ..utils.errors import InputError
from .checks import LISTS, check_datalist, find_root, first_names, locate_images, match_images
from .io import read_datalist
from .patients import by_kind, choose_rule, find_patients, read_patient_table
from .tables import TABLES, path_from


class Training(NamedTuple):
    """What a model was trained on."""

    datalist: str | Path
    content: dict
    root: Path  # folder of its images
    entries: list[dict]  # of training and of validation, which chose the weights


def read_training(datalist: str | Path) -> Training:
    """The datalist that a model was trained with; one that fails ``check_datalist`` is refused."""
    content = read_datalist(datalist)
    check_datalist(content, datalist)
    entries = [*content["training"], *content["validation"]]
    return Training(datalist, content, find_root(content, datalist), entries)


def find_seen(
    images: Sequence[Image], root: str | Path, patients: Sequence[str], training: Training
) -> dict[int, tuple[str, str]]:
    """Which images were trained on, by their numbers: the list of the same image or patient, and "image" or "patient".

    Images, relative to ``root``, are compared by ``match_images``, patients by their names; "" is not compared.
    """
    known = [entry["image"] for entry in training.entries]
    same = match_images(locate_images(images, root), locate_images(known, training.root))
    lists = [name for name in LISTS[:2] for _ in training.content[name]]
    people = {str(e["patient"]): name for e, name in zip(training.entries, lists, strict=True) if "patient" in e}
    seen = {}
    for index, (number, patient) in enumerate(zip(same, patients, strict=True)):
        if number is not None:
            seen[index] = (lists[number], "image")
        elif patient and patient in people:
            seen[index] = (people[patient], "patient")
    return seen


def find_leaks(
    images: Sequence[Image], directory: str | Path, datalist: str | Path, patient: str = "auto"
) -> tuple[list[dict[str, str]], str]:
    """The images that are, or whose patients are, in the training or validation list; and the patient rule.

    Each is an object with ``image``, ``patient``, ``list`` (training or validation) and ``by`` (image or patient). An
    image of the datalist has the patient that stands there.

    Args:
        images: the ones that are tested, relative to ``directory``.
        directory: folder of the images.
        datalist: JSON file that the model was trained with, with ``image`` and ``patient`` in every entry.
        patient: a rule of ``find_patients`` or a CSV file; "auto": the datalist's ``patient_rule``, or else
            ``choose_rule`` of its images. "folder" is that part of a path which is the patient throughout the list.

    Raises:
        InputError: if the datalist is missing or broken, an image has no patient, or the rule gives the datalist's own
            images other patients than it names.
    """
    training = read_training(datalist)
    for name in LISTS[:2]:
        for index, entry in enumerate(training.content[name]):
            if "patient" not in entry:
                raise InputError(f"{datalist} has no 'patient' in entry {index} of {name!r}.")
    rule = _rule_of(training) if patient == "auto" else patient
    patients = _patients(images, directory, training, rule, patient != "auto")
    for image, name in zip(images, patients, strict=True):
        if not name:
            raise InputError(f"{first_file(image)} has no patient in the patient table {rule}.")
    seen = find_seen(images, directory, patients, training)
    named = {number: {"image": first_file(images[number]), "patient": patients[number]} for number in seen}
    return [named[number] | {"list": name, "by": by} for number, (name, by) in seen.items()], rule


def _rule_of(training: Training) -> str:
    """The rule that the datalist was made by; the path of a table begins in the folder of its images."""
    rule = str(training.content.get("patient_rule") or "")
    if not rule:
        return choose_rule([entry["image"] for entry in training.entries])
    inside = training.root / rule
    return str(inside) if rule.lower().endswith(TABLES) and (inside.is_file() or not Path(rule).is_file()) else rule


def _patients(
    images: Sequence[Image], directory: str | Path, training: Training, rule: str, confirm: bool
) -> list[str]:
    """Of each image, by the datalist where it is in there, else by the rule; ``confirm``: both must agree."""
    entries = training.entries + [entry for entry in training.content.get("test", []) if "patient" in entry]
    known = locate_images([entry["image"] for entry in entries], training.root)
    same = zip(images, match_images(locate_images(images, directory), known), strict=True)
    listed = {first_file(image): str(entries[number]["patient"]) for image, number in same if number is not None}
    others = [image for image in images if confirm or first_file(image) not in listed]
    ruled = dict(zip(map(first_file, others), _by_rule(others, directory, training, rule), strict=True))
    for image, name in listed.items():
        _compare(image, ruled.get(image, name), name, training, rule)
    return [(ruled | listed)[first_file(image)] for image in images]


def _by_rule(images: Sequence[Image], directory: str | Path, training: Training, rule: str) -> list[str]:
    """Patients by the rule, which must give the images of the training those that the datalist names.

    A PatientID needs no check: it is the same wherever it is read.
    """
    if not images:
        return []
    if rule == "folder":
        return _by_folder(images, directory, training)
    if rule != "dicom" and not rule.startswith("dicom and "):
        known = [entry["image"] for entry in training.entries]
        for entry, found in zip(training.entries, _by_name(known, training.root, training, rule), strict=True):
            _compare(first_file(entry["image"]), found, str(entry["patient"]), training, rule)
        return _by_name(images, directory, training, rule)
    if rule == "dicom":
        return find_patients(images, directory, rule)
    pictures = training._replace(entries=[entry for entry in training.entries if not is_series(entry["image"])])
    return by_kind(images, rule, lambda part, own_rule: _by_rule(part, directory, pictures, own_rule))


def _compare(image: str, found: str, named: str, training: Training, rule: str) -> None:
    if found != named:
        raise InputError(
            f"the patient rule {rule} gives {image} the patient {found!r} where {training.datalist} "
            f"has {named!r}, so patients cannot be compared; give the rule or table of that list by --patient."
        )


def _by_name(images: Sequence[Image], directory: str | Path, training: Training, rule: str) -> list[str]:
    """By the names, from the folder of the datalist, or by a table, whose paths may begin there, with / and so on."""
    if not rule.lower().endswith(TABLES):
        return find_patients([path_from(image, directory, training.root) for image in images], training.root, rule)
    found = [""] * len(images)
    for start in (directory, training.root, Path(rule).parent, "/"):
        called = [path_from(image, directory, start) for image in images]
        rows = read_patient_table(rule, called)
        found = [person or other for person, (other, _) in zip(found, rows, strict=True)]
    return found


def _by_folder(images: Sequence[Image], directory: str | Path, training: Training) -> list[str]:
    """By that part of the path from the folder of the datalist which is the patient in all its entries."""
    known = [(PurePosixPath(first_file(e["image"])).parts, str(e["patient"])) for e in training.entries]
    deepest = max(len(path) for path, _ in known)
    depths = [depth for depth in range(deepest) if all(path[depth : depth + 1] == (name,) for path, name in known)]
    if not depths:
        raise InputError(
            f"no folder in the paths of {training.datalist} is the patient in all of its entries, so the patient rule "
            "folder does not fit; give the rule or table of that list by --patient."
        )
    start, home = Path(os.path.realpath(directory)), os.path.realpath(training.root)
    patients = []
    for path in (start / first_file(image) for image in images):
        folders = path.parent.relative_to(home).parts if path.is_relative_to(home) else ()
        if depths[0] >= len(folders):
            raise InputError(
                f"{path} lies in no folder of a patient below {home} as the images of {training.datalist} do; give a "
                "table of patients by --patient."
            )
        patients.append(folders[depths[0]])
    return patients


def find_overlap(datalist: dict, path: str | Path, pretraining_list: str | Path) -> tuple[list[str], str]:
    """The test images that pre-training has seen, or whose patients it has seen, and why patients may be missed.

    Patients are compared where one list's ``dataset_dir`` is inside or equal to the other's, since else the same name
    may be another patient. The reason is empty where every patient is known, and by one rule.
    """
    training, test = read_training(pretraining_list), datalist["test"]
    own, other = find_root(datalist, path), training.root
    homes = [Path(os.path.realpath(root)) for root in (own, other)]
    related = homes[0].is_relative_to(homes[1]) or homes[1].is_relative_to(homes[0])
    images = [entry["image"] for entry in test]
    patients = [str(entry.get("patient", "")) if related else "" for entry in test]
    same, pixels = find_seen(images, own, patients, training), {e.get("digest") for e in training.entries} - {None}
    seen = [first_file(e["image"]) for n, e in enumerate(test) if n in same or e.get("digest") in pixels]
    reason = ""
    if not related:
        reason = f"{own} and {other} are unrelated folders"
    elif not _rules(datalist, own) & _rules(training.content, other):
        rules = [made.get("patient_rule", "an unknown rule") for made in (datalist, training.content)]
        reason = f"patients are by {rules[0]} here and by {rules[1]} there"
    elif not all("patient" in entry for entry in [*test, *training.entries]):
        reason = "not all images have a patient"
    return seen, reason


def _rules(datalist: dict, root: Path) -> set[str]:
    """What the rule of the patients may mean: a table is named from the folder, or as it was typed."""
    rule = str(datalist.get("patient_rule", ""))
    if not rule.lower().endswith(TABLES):
        return {rule}
    return {os.path.realpath(place / rule) for place in (root, Path())}


def check_overlap(datalist: dict, path: str | Path, pretraining_list: str | Path, allow_overlap: bool) -> list[str]:
    """A line where patients could not be compared, and where ``allow_overlap`` is set one about what was seen.

    Raises:
        InputError: if pre-training has seen test images or patients, and ``allow_overlap`` is not set.
    """
    seen, reason = find_overlap(datalist, path, pretraining_list)
    test, seen_names = datalist["test"], first_names(seen)
    found = f"{len(seen)} of {len(test)} test images or their patients are in {pretraining_list}"
    if seen and not allow_overlap:
        raise InputError(
            f"{found}: {seen_names}; pre-train without them, or give --allow_overlap True to test on them anyway."
        )
    lines = [f"warning: {found}, which is allowed: {seen_names}; results on them are too good."] if seen else []
    if reason and test:
        lines.append(f"warning: patients could not be compared, only images: {reason}.")
    return lines
