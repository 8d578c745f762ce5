"""Whether images that a model is judged by, or other images of the same patients, took part in its training."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .datalist import find_root
from .errors import InputError
from .listing import check_datalist
from .patients import choose_rule, find_patients, read_patient_table
from .scans import Image, find_images, first_file

USED = ("training", "validation")  # validation chose the weights


def find_leaks(
    images: Sequence[Image], directory: str | Path, datalist: str | Path, patient: str = "auto"
) -> tuple[list[dict[str, str]], str]:
    """The images that are, or whose patients are, in the training or validation list; and the patient rule.

    Each is an object with ``image``, ``patient``, ``list`` (training or validation) and ``by`` (image or patient).
    Images are compared by their absolute paths without links, patients by their names, wherever the files lie.

    Args:
        images: the ones that are tested, relative to ``directory``.
        directory: folder of the images.
        datalist: JSON file that the model was trained with, with ``image`` and ``patient`` in every entry.
        patient: a rule of ``find_patients`` or a CSV file; "auto": the datalist's ``patient_rule``, or else
            ``choose_rule`` of all images of the folder.

    Raises:
        InputError: if the datalist is missing or broken, an image has no patient, or the rule gives the datalist's own
            images other patients than it names, so that nobody would be recognized.
    """
    content = _read(datalist)
    everything = find_images(directory)
    rule = patient if patient != "auto" else _rule_of(content, datalist) or choose_rule(everything)
    known = dict(zip(map(first_file, everything), _patients(everything, directory, rule), strict=True))
    root = content.get("dataset_dir") or directory
    _check_rule(content, root, rule, datalist)
    files, people = dict[str, str](), dict[str, str]()
    for name in USED:
        files |= {_real(root, entry["image"]): name for entry in content[name]}
        people |= {str(entry["patient"]): name for entry in content[name]}
    leaks = []
    for image in images:
        person = known[first_file(image)]
        if not person:
            raise InputError(f"{first_file(image)} has no patient in the patient table {rule}.")
        found = {"image": files.get(_real(directory, image)), "patient": people.get(person)}
        by = next((key for key, name in found.items() if name), None)
        if by:
            leaks.append({"image": first_file(image), "patient": person, "list": str(found[by]), "by": by})
    return leaks, rule


def _read(datalist: str | Path) -> dict[str, Any]:
    if not Path(datalist).is_file():
        raise InputError(f"the datalist {datalist} does not exist, so it cannot be checked who was trained on.")
    try:
        content = json.loads(Path(datalist).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"the datalist {datalist} cannot be read as JSON ({error}).") from error
    check_datalist(content, datalist)
    for name in USED:
        for index, entry in enumerate(content[name]):
            if "patient" not in entry:
                raise InputError(
                    f"{datalist} has no 'patient' in entry {index} of {name!r}, so it cannot be checked who was "
                    "trained on."
                )
    return content


def _rule_of(content: Mapping[str, Any], datalist: str | Path) -> str:
    """The rule that the datalist was made by; a table lies in the folder of its images, or where the rule says."""
    rule = str(content.get("patient_rule") or "")
    if not rule.lower().endswith(".csv") or Path(rule).is_file():
        return rule
    return str(find_root(dict(content), datalist) / rule)


def _real(directory: str | Path, image: Image) -> str:
    return os.path.realpath(Path(directory, first_file(image)))


def _patients(images: Sequence[Image], directory: str | Path, rule: str) -> list[str]:
    if rule.lower().endswith(".csv"):
        return [patient for patient, _ in read_patient_table(rule, images)]
    return find_patients(images, directory, rule)


def _check_rule(content: Mapping[str, Any], root: str | Path, rule: str, datalist: str | Path) -> None:
    """A PatientID needs no check: it is the same wherever it is read."""
    if "dicom" in rule:
        return
    entries = [entry for name in USED for entry in content[name]]
    for entry, found in zip(entries, _patients([entry["image"] for entry in entries], root, rule), strict=True):
        if found != str(entry["patient"]):
            raise InputError(
                f"the patient rule {rule} gives {first_file(entry['image'])} the patient {found!r} where {datalist} "
                f"has {str(entry['patient'])!r}, so patients cannot be compared; give the rule or table of that list "
                "by --patient."
            )
