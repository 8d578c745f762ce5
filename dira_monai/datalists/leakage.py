"""Whether images that a model is judged by, or other images of the same patients, took part in its training."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ..images.find import Image, first_file
from ..images.reader import SUFFIXES
from ..utils.errors import InputError
from .checks import LISTS, check_datalist, find_common, find_root, first_names, locate_images
from .io import read_datalist
from .patients import choose_rule, find_patients, read_patient_table

USED = LISTS[:2]  # validation chose the weights


FIXED = ("class_names", "multi_label", "in_channels", "spatial_dims")  # what a list and its classifier share


class Training(NamedTuple):
    """What a model was trained on."""

    datalist: str | Path
    root: Path  # folder of its images
    entries: list[dict]  # of training and validation


def find_datalist(weights: str | Path) -> Path:
    """The datalist of the run that wrote the weights: ``output/datalist.json`` beside their folder ``models``.

    Raises:
        InputError: if they lie in no such folder, or the list, which a training writes first, is newer.
    """
    folder = Path(weights).resolve().parent
    if folder.name != "models":
        raise InputError(f"{weights} lies in no folder models of a run, so its list must be named by --datalist.")
    path = folder.parent / "output" / "datalist.json"
    if path.is_file() and is_newer(path, weights):
        raise InputError(f"the datalist {path} is newer than {weights}; name the list of their training by --datalist.")
    return path


def is_newer(datalist: str | Path, weights: str | Path) -> bool:
    """Whether the datalist was written after the weights, so that it may be that of another training."""
    return Path(datalist).stat().st_mtime > Path(weights).stat().st_mtime


def read_list(datalist: str | Path) -> dict[str, Any]:
    """What the file of a training holds.

    Raises:
        InputError: if it is missing, no JSON or no datalist.
    """
    if not Path(datalist).is_file():
        raise InputError(f"the datalist {datalist} does not exist, so it cannot be checked who was trained on.")
    try:
        content = json.loads(Path(datalist).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"the datalist {datalist} cannot be read as JSON ({error}).") from error
    check_datalist(content, datalist)
    return content


def check_settings(settings: Mapping[str, Any], content: Mapping[str, Any], datalist: str | Path) -> None:
    """Nothing, where a classifier is built as its datalist says; what one of the two does not say is not compared.

    Args:
        settings: of the classifier.
        content: of the datalist.
        datalist: its file.

    Raises:
        InputError: if they differ in one of ``FIXED``; other ``class_names`` would call one class by another's name.
    """
    for name in FIXED:
        if name in settings and name in content and settings[name] != content[name]:
            raise InputError(
                f"{name} is {settings[name]} in the configuration of the classifier where {datalist} has "
                f"{content[name]}; give that by --overrides."
            )


def find_leaks(
    images: Sequence[Image], directory: str | Path, datalist: str | Path, patient: str = "auto"
) -> tuple[list[dict[str, str]], str]:
    """The images that are, or whose patients are, in the training or validation list; and the patient rule.

    Each is an object with ``image``, ``patient``, ``list`` (training or validation) and ``by`` (image or patient).
    Images are compared by their absolute paths without links, patients by their names, wherever the files lie. An image
    of the datalist has the patient that stands there.

    Args:
        images: the ones that are tested, relative to ``directory``.
        directory: folder of the images.
        datalist: JSON file that the model was trained with, with ``image`` and ``patient`` in every entry.
        patient: a rule of ``find_patients`` or a CSV file; "auto": the datalist's ``patient_rule``, or else
            ``choose_rule`` of its images. "folder" is that part of a path which is the patient throughout the list.

    Raises:
        InputError: if the datalist is missing or broken, an image has no patient, or the rule gives the datalist's own
            images other patients than it names, so that nobody would be recognized.
    """
    content = read_list(datalist)
    _need_patients(content, datalist)
    training = Training(datalist, find_root(content, datalist), [entry for name in USED for entry in content[name]])
    rule = _rule_of(content, training) if patient == "auto" else patient
    files = {_real(training.root, entry["image"]): name for name in USED for entry in content[name]}
    people = {str(entry["patient"]): name for name in USED for entry in content[name]}
    leaks = []
    for image, person in zip(images, _patients(images, directory, content, training, patient, rule), strict=True):
        if not person:
            raise InputError(f"{first_file(image)} has no patient in the patient table {rule}.")
        lists = [files[name] for name in _names(directory, image) if name in files]
        found = {"image": lists[0] if lists else None, "patient": people.get(person)}
        by = next((key for key, name in found.items() if name), None)
        if by:
            leaks.append({"image": first_file(image), "patient": person, "list": str(found[by]), "by": by})
    return leaks, rule


def _need_patients(content: Mapping[str, Any], datalist: str | Path) -> None:
    for name in USED:
        for index, entry in enumerate(content[name]):
            if "patient" not in entry:
                raise InputError(
                    f"{datalist} has no 'patient' in entry {index} of {name!r}, so it cannot be checked who was "
                    "trained on."
                )


def _rule_of(content: Mapping[str, Any], training: Training) -> str:
    """The rule that the datalist was made by; the path of a table begins in the folder of its images."""
    rule = str(content.get("patient_rule") or "")
    if not rule:
        return choose_rule([entry["image"] if _is_file(entry) else [entry["image"]] for entry in training.entries])
    inside = training.root / rule
    return str(inside) if rule.lower().endswith(".csv") and (inside.is_file() or not Path(rule).is_file()) else rule


def _is_file(entry: Mapping[str, Any]) -> bool:
    """Whether the image is no DICOM series, which is a list of files or their folder."""
    return isinstance(entry["image"], str) and entry["image"].lower().endswith(SUFFIXES)


def _real(directory: str | Path, image: Image) -> str:
    return os.path.realpath(Path(directory, first_file(image)))


def _names(directory: str | Path, image: Image) -> list[str]:
    """What a datalist may call an image: its first file, or the folder of a series."""
    name = _real(directory, image)
    return [name] if isinstance(image, str) else [name, os.path.dirname(name)]


def _patients(
    images: Sequence[Image],
    directory: str | Path,
    content: Mapping[str, Any],
    training: Training,
    asked: str,
    rule: str,
) -> list[str]:
    """Of each image; those of the datalist need no rule, but must agree with one that the user asks for."""
    entries = [entry for name in LISTS[::-1] for entry in content.get(name, []) if "patient" in entry]
    listed = {_real(training.root, entry["image"]): str(entry["patient"]) for entry in entries}
    own = [next((listed[name] for name in _names(directory, image) if name in listed), None) for image in images]
    open_images = [image for image, person in zip(images, own, strict=True) if person is None or asked != "auto"]
    named = dict(zip(map(first_file, open_images), _by_rule(open_images, directory, training, rule), strict=True))
    for image, person in zip(images, own, strict=True):
        if person is not None:
            _compare(image, named.get(first_file(image), person), person, training, rule)
    return [person or named[first_file(image)] for image, person in zip(images, own, strict=True)]


def _by_rule(images: Sequence[Image], directory: str | Path, training: Training, rule: str) -> list[str]:
    """Patients by the rule, which must give the images of the training those that the datalist names.

    A PatientID needs no check: it is the same wherever it is read.
    """
    if not images:
        return []
    if rule == "folder":
        return _by_folder(images, directory, training)
    if rule == "file" or rule.lower().endswith(".csv"):
        known = [entry["image"] for entry in training.entries]
        for entry, found in zip(training.entries, _by_name(known, training.root, training, rule), strict=True):
            _compare(entry["image"], found, str(entry["patient"]), training, rule)
        return _by_name(images, directory, training, rule)
    if not rule.startswith("dicom and "):
        return find_patients(images, directory, rule)
    files = [image for image in images if isinstance(image, str)]
    series = [image for image in images if not isinstance(image, str)]
    pictures = training._replace(entries=[entry for entry in training.entries if _is_file(entry)])
    named = dict(zip(files, _by_rule(files, directory, pictures, rule.removeprefix("dicom and ")), strict=True))
    named |= dict(zip(map(first_file, series), find_patients(series, directory, "dicom"), strict=True))
    return [named[first_file(image)] for image in images]


def _compare(image: Image, found: str, named: str, training: Training, rule: str) -> None:
    if found != named:
        raise InputError(
            f"the patient rule {rule} gives {first_file(image)} the patient {found!r} where {training.datalist} "
            f"has {named!r}, so patients cannot be compared; give the rule or table of that list by --patient."
        )


def _by_name(images: Sequence[Image], directory: str | Path, training: Training, rule: str) -> list[str]:
    """By the names of files or by a table, whose paths may begin in either folder, in its own, or with /."""
    if rule == "file":
        return find_patients(images, directory, rule)
    found = [""] * len(images)
    for start in (directory, training.root, Path(rule).parent, "/"):
        called = [_called(image, directory, start) for image in images]
        rows = read_patient_table(rule, called)
        found = [person or other for person, (other, _) in zip(found, rows, strict=True)]
    return found


def _called(image: Image, directory: str | Path, start: str | Path) -> Image:
    """The path of an image from another folder; from / it begins with it."""
    home = os.path.abspath(start)
    files = [os.path.abspath(Path(directory, file)) for file in ([image] if isinstance(image, str) else image)]
    called = files if start == "/" else [os.path.relpath(file, home) for file in files]
    return called[0] if isinstance(image, str) else called


def _by_folder(images: Sequence[Image], directory: str | Path, training: Training) -> list[str]:
    """By that part of the path from the folder of the datalist which is the patient in all its entries."""
    paths = [PurePosixPath(first_file(entry["image"])).parts for entry in training.entries]
    known = [(path, str(entry["patient"])) for path, entry in zip(paths, training.entries, strict=True)]
    deepest = max(map(len, paths), default=0)
    depths = [depth for depth in range(deepest) if all(path[depth : depth + 1] == (name,) for path, name in known)]
    if not depths:
        raise InputError(
            f"no folder in the paths of {training.datalist} is the patient in all of its entries, so the patient rule "
            "folder does not fit; give the rule or table of that list by --patient."
        )
    return [_folder_at(depths[0], image, directory, training) for image in images]


def _folder_at(depth: int, image: Image, directory: str | Path, training: Training) -> str:
    path, home = Path(os.path.realpath(directory), first_file(image)), os.path.realpath(training.root)
    folders = path.parent.relative_to(home).parts if path.is_relative_to(home) else ()
    if depth >= len(folders):
        raise InputError(
            f"{path} lies in no folder of a patient below {home} as the images of {training.datalist} do; give a table "
            "of patients by --patient."
        )
    return folders[depth]


def find_overlap(datalist: dict, path: str | Path, pretraining_list: str | Path) -> tuple[list[str], str]:
    """The test images that pre-training has seen, or whose patients it has seen, and why patients may be missed.

    Images are the same where their real paths are, or where one is a folder and the other a list of files in it.
    Patients are compared by name, where one list's ``dataset_dir`` is inside or equal to the other's, since else the
    same name may be another patient. The reason is empty where every patient is known, and by one rule.

    Args:
        datalist: with ``test``.
        path: its file.
        pretraining_list: JSON file of a pre-training.

    Raises:
        InputError: if the pre-training's list cannot be read.
    """
    seen = read_datalist(pretraining_list)
    check_datalist(seen, pretraining_list)
    test, entries = datalist["test"], [*seen["training"], *seen["validation"]]
    own, other = find_root(datalist, path), find_root(seen, pretraining_list)
    roots = [Path(os.path.realpath(root)) for root in (own, other)]
    related = roots[0].is_relative_to(roots[1]) or roots[1].is_relative_to(roots[0])
    patients = {str(entry["patient"]) for entry in entries if "patient" in entry} if related else set()
    found = set(find_common(locate_images(test, own), locate_images(entries, other)))
    found |= {index for index, entry in enumerate(test) if str(entry.get("patient", "")) in patients - {""}}
    reason = "" if related else f"{own} and {other} are unrelated folders"
    if related and not _rules(datalist, own) & _rules(seen, other):
        rules = [made.get("patient_rule", "an unknown rule") for made in (datalist, seen)]
        reason = f"patients are by {rules[0]} here and by {rules[1]} there"
    elif not all("patient" in entry for entry in [*test, *entries]):
        reason = reason or "not all images have a patient"
    return [first_file(test[index]["image"]) for index in sorted(found)], reason


def _rules(datalist: dict, root: Path) -> set[str]:
    """What the rule of the patients may mean: a table is named from the folder, or as it was typed."""
    rule = str(datalist.get("patient_rule", ""))
    if not rule.lower().endswith(".csv"):
        return {rule}
    return {os.path.realpath(place / rule) for place in (root, Path())}


def check_overlap(datalist: dict, path: str | Path, pretraining_list: str | Path, allow_overlap: bool) -> list[str]:
    """A line where patients could not be compared, and where ``allow_overlap`` is set one about what was seen.

    Raises:
        InputError: if pre-training has seen test images or patients, and ``allow_overlap`` is not set.
    """
    seen, reason = find_overlap(datalist, path, pretraining_list)
    told = f"{len(seen)} of {len(datalist['test'])} test images or their patients are in {pretraining_list}"
    if seen and not allow_overlap:
        raise InputError(
            f"{told}: {first_names(seen)}; pre-train without them, or give --allow_overlap True to test on them anyway."
        )
    lines = [f"warning: {told}, which is allowed: {first_names(seen)}; results on them are too good."] if seen else []
    missed = f"warning: patients could not be compared, only images: {reason}."
    return [*lines, missed] if reason and datalist["test"] else lines
