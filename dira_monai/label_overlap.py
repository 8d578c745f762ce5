"""Whether pre-training has seen the test images, or their patients."""

import os
from pathlib import Path

from .datalist import read_datalist
from .errors import InputError
from .listing import check_datalist, find_common, find_root, first_names, locate_images
from .scans import first_file


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
