"""From a folder of scans to a datalist: every image checked once, patients kept apart.

A datalist is MONAI's: an object with the lists ``training`` and ``validation``, here with facts of each image.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from ..bundle.header import check_values
from ..images.facts import FORMATS, measure_image
from ..images.find import count_formats, find_images, first_file, map_files, without_results
from ..images.measuring import measure_each
from ..utils.errors import InputError
from ..utils.files import user_path
from .checks import LISTS, check_datalist
from .classes import find_table
from .layouts import split_names
from .options import VALIDATION_FRACTION
from .patients import MAX_EXAMPLES, list_patients
from .rows import Found, Row, find_unlabeled, join_copies, majority
from .splits import SPLITS, folder_splits, split_entries
from .tables import FILE_COLUMNS, find_image, find_split_column, index_images, needless_folders, pick_column, read_table


def make_datalist(
    directory: str | Path,
    *,
    spatial_dims: int | None = None,
    in_channels: int | None = None,
    modalities: str | Sequence[str] | None = None,
    patient: str = "auto",
    patient_column: str | None = None,
    file_column: str | None = None,
    validation_fraction: float | None = None,
    seed: int = 0,
    include_test: bool = False,
    strict: bool = False,
    workers: int | None = None,
) -> dict:
    """The usable images of a folder, split by patient; ready for JSON, and the same for the same files and arguments.

    ``training`` and ``validation`` list ``image`` (relative to ``dataset_dir``; a list of files for a DICOM series),
    ``patient`` and the facts of ``measure_image``; ``skipped`` lists ``image`` and ``reason``; ``label_maps`` counts
    what ``Found.without_label_maps`` leaves out, ``named_as_maps`` what it takes anyway, ``excluded`` the images of
    other splits of a table. ``spacing`` may be None, which MONAI's collation refuses: batch ``image`` alone.

    Args:
        directory: folder that is searched with all its sub-folders.
        spatial_dims: 2 or 3; by default what most images have.
        in_channels: channels that every image must have, by default one a modality; gray images fit 3.
        modalities: such as flair,t1: an image is these files of a case, one a channel; others are left out.
        patient: auto, a rule of ``find_patients`` (dicom, name, folder, file, case, path, prefix1, ...), or a CSV file
            with the columns file, patient and perhaps split: training and validation, or any other word (test), which
            leaves images out.
        patient_column: name of the patient's column in the CSV file.
        file_column: name of the file's column in the CSV file.
        validation_fraction: part of the patients kept for validation, 0.1 by default. Where it is given, training and
            validation of a table are split anew; its other splits stay left out.
        seed: of the draw of these patients.
        include_test: take also what ``labels.csv``, in the folder or above it, or folders train and test give to test,
            on which a fine-tuning is measured.
        strict: stop at the first image that cannot be used, instead of listing it in skipped.
        workers: threads that read images, by default one a processor, at most 8.

    Raises:
        InputError: if there is no usable image, or only one patient, or any unusable image where ``strict`` is set.
    """
    options: dict[str, Any] = {
        "spatial_dims": spatial_dims,
        "in_channels": in_channels,
        "seed": seed,
        "validation_fraction": validation_fraction,
        "modalities": modalities,
        "patient": patient,
        "patient_column": patient_column,
        "file_column": file_column,
    }
    check_values(options, defaults=True)
    root, names = Path(os.path.abspath(user_path(directory))), split_names(modalities)
    found, count = _search(root, names)
    if not include_test:
        _mark_tests(found, file_column)
    found.fill = partial(found.fill_patients, patient, (patient_column, file_column))
    found.fill()
    found.exclude([word for word, name in SPLITS.items() if name != "test"])
    facts = found.drop_label_maps(measure_each(measure_image, [row.image for row in found.rows], root, strict, workers))
    spatial_dims, in_channels = spatial_dims or majority(facts), in_channels or len(names) or 1
    options |= {"spatial_dims": spatial_dims, "in_channels": in_channels, "modalities": names or None}
    entries = found.make_entries(facts, spatial_dims, in_channels, lambda row: {"image": row.image})
    entries, copies = join_copies(entries)
    if strict and found.skipped:
        raise InputError(found.skipped[0]["reason"])
    if not entries:
        first = found.skipped[0]["reason"] if found.skipped else "all belong to other splits of a table or folder."
        raise InputError(f"{root} holds no usable image among {count}; the first: {first}")
    datalist = {
        "dataset_dir": str(root),
        **options,
        "include_test": include_test,
        "patient_rule": found.patient_rule,
        "patient_examples": list_patients(entry for entry, _ in entries)[:MAX_EXAMPLES],
        **_split(entries, found.skipped, validation_fraction, seed),
        "copies": copies,
        **found.notes(),
    }
    check_datalist(datalist)
    return datalist


def _search(root: Path, modalities: Sequence[str]) -> tuple[Found, int]:
    """The images of a folder with a row each, those of several files joined, and the number of these files."""
    found, everything = Found.search(root)
    if not everything:
        if found.skipped:
            raise InputError(found.skipped[0]["reason"])
        others = count_formats(found.other_formats)
        raise InputError(f"{root} holds no {FORMATS} file{others and f', but {others}'}.")
    images = found.without_label_maps(everything)
    found.rows = [Row(image) for image in found.take_modalities(images, modalities)]
    return found, len(images)


def _mark_tests(found: Found, file_column: str | None) -> None:
    """Give the images the split test which a labeled list of the folder would have for test."""
    images = [row.image for row in found.rows]
    tests = {first_file(image) for image, word in zip(images, folder_splits(images), strict=True) if _is_test(word)}
    if table := find_table(found.root, None):
        with suppress(InputError):  # a table that names no images of this folder
            columns, cells = read_table(table, "table of labels")
            split = find_split_column(columns, cells)
            file = pick_column(table, columns, "file_column", file_column, FILE_COLUMNS)
            index = index_images(images, found.root, table)
            cut = needless_folders([cell[file] for cell in cells], index)
            named = [find_image(cell[file], index, str(table), cut) for cell in cells if _is_test(cell.get(split, ""))]
            tests |= {first_file(image) for image in named if image}
    found.rows = [row._replace(split="test") if first_file(row.image) in tests else row for row in found.rows]


def _is_test(word: str) -> bool:
    return SPLITS.get(word.lower()) == "test"


def _split(
    entries: Sequence[tuple[dict, str]], skipped: Sequence[dict], fraction: float | None, seed: int
) -> dict[str, Any]:
    """By the splits of a table, or drawn; an error says what was skipped, which may be why patients are missing."""
    if fraction is not None or {SPLITS[word.lower()] for _, word in entries} != {"training", "validation"}:
        entries = [(entry, "training") for entry, _ in entries]
    try:
        lists = split_entries(entries, 0, VALIDATION_FRACTION if fraction is None else fraction, seed)
    except InputError as error:
        if not skipped:
            raise
        causes = f"{len(skipped)} images were skipped, the first: {skipped[0]['reason']}"
        raise InputError(f"{str(error).rstrip('.')}; {causes}") from error
    return {key: lists[key] for key in (*LISTS[:2], "drawn")}


def inference_items(
    image: str | Sequence[str] | None, dataset_dir: str | None, output_dir: str
) -> list[dict[str, Any]]:
    """Entries for inference: the one image that is named, or every image of a folder but label maps and results in it.

    Label maps are those of ``find_unlabeled``.

    Args:
        image: path of a file or of the folder of one DICOM series, or the files of one.
        dataset_dir: folder that is searched where no image is named.
        output_dir: folder of the results, which are left out.

    Raises:
        InputError: if neither is given, or nothing is found.
    """
    if image is not None:
        for file in [image] if isinstance(image, str) else image:
            if not Path(file).exists():
                raise InputError(f"{file}: no such file")
        return [{"image": image}]
    if dataset_dir is None:
        raise InputError("nothing to restore: give --image FILE or --dataset_dir DIR")
    root = Path(dataset_dir)
    found = find_unlabeled(without_results(find_images(root), root, output_dir), root)
    if not found:
        raise InputError(f"{dataset_dir}: holds no image that can be read")
    return [{"image": map_files(image, lambda file: str(root / file))} for image in found]
