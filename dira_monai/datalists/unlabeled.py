"""From a folder of scans to a datalist: every image checked once, patients kept apart.

A datalist is MONAI's: an object with the lists ``training`` and ``validation``, here with facts of each image.
"""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..images.facts import FORMATS, check_facts, measure_each, measure_image
from ..images.find import Image, find_images, first_file, without_label_maps
from ..utils.errors import InputError
from .checks import LISTS, SPLITS, check_datalist
from .options import VALIDATION_FRACTION, check_arguments
from .patients import choose_rule, find_patients, read_patient_table
from .splits import choose_validation


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
    what ``without_label_maps`` leaves out, ``excluded`` the images of other splits of a table. ``spacing`` may be None,
    which MONAI's collation refuses: batch ``image`` alone.

    Args:
        directory: folder that is searched with all its sub-folders.
        spatial_dims: 2 or 3; by default what most images have.
        in_channels: channels that every image must have; gray images fit 3.
        patient: auto, dicom (PatientID), folder, file, or a CSV file with the columns file, patient and perhaps split:
            training and validation, or any other word (test), which leaves images out.
        patient_column: name of the patient's column in the CSV file.
        file_column: name of the file's column in the CSV file.
        validation_fraction: part of the patients kept for validation, 0.1 by default. Where it is given, training and
            validation of a table are split anew; its other splits stay left out.
        seed: of the draw of these patients.
        strict: stop at the first image that cannot be used, instead of listing it in skipped.
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
    facts = measure_each(measure_image, [image for image, _, _ in kept], root, strict, workers)
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
        **_split(rows, skipped, validation_fraction, seed),
        "skipped": skipped,
        "label_maps": len(found) - len(images),
        "excluded": dict(Counter(split for _, split in table if split.lower() not in SPLITS)),
    }
    check_datalist(datalist)
    return datalist


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


def _split(
    rows: Sequence[tuple[dict, str]], skipped: Sequence[dict], fraction: float | None, seed: int
) -> dict[str, list[dict]]:
    """By the splits of a table, or drawn; an error says what was skipped, which may be why patients are missing."""
    splits = [SPLITS[split.lower()] for _, split in rows]
    if fraction is not None or set(splits) != {"training", "validation"}:
        patients = [entry["patient"] for entry, _ in rows]
        try:
            drawn = choose_validation(patients, VALIDATION_FRACTION if fraction is None else fraction, seed)
        except InputError as error:
            if not skipped:
                raise
            causes = f"{len(skipped)} images were skipped, the first: {skipped[0]['reason']}"
            raise InputError(f"{str(error).rstrip('.')}; {causes}") from error
        splits = ["validation" if patient in drawn else "training" for patient in patients]
    entries = [entry for entry, _ in rows]
    return {key: [e for e, split in zip(entries, splits, strict=True) if split == key] for key in LISTS[:2]}
