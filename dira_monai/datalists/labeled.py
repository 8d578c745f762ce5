"""From a folder of labeled scans to a datalist with training, validation and test."""

import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path, PurePosixPath

from ..dicom.headers import is_dicom
from ..images.facts import measure_each, measure_image
from ..images.find import Image, first_file
from ..utils.errors import InputError
from .classes import Label, Row
from .label_maps import measure_pair, refuse_wrong_classes
from .options import LabelOptions
from .sources import exclude_rows, find_label_maps, find_labels, parse_labels
from .splits import check_labeled, check_pictures, split_entries
from .unlabeled import majority, sort_out


def make_labeled_datalist(
    directory: str | Path, options: LabelOptions, *, strict: bool = False, workers: int | None = None
) -> dict:
    """The usable images of a folder with their labels, split by patient; ready for JSON; equal for equal files.

    ``training``, ``validation`` and ``test`` list ``image`` and ``patient`` as ``make_datalist`` does, the facts of
    ``measure_image``, and ``label``: for segmentation the file of the label map (with ``holds``: 1 for each class that
    is in it, else 0), for classification the number of the class, or 1, 0 or None (not known) for each class where
    ``multi_label`` is set. ``skipped`` lists ``image`` and ``reason``; ``excluded`` counts images by the reason for
    which the user leaves them out. ``load_decathlon_datalist`` of MONAI reads the lists.

    Label maps are found by ``find_pairs``; labels of images by ``read_label_table`` or, where there is no table, by
    ``read_class_folders``. Splits are those of the column ``split`` of a table, or of folders train, val and test that
    hold all images, also below ``images``; what they lack is drawn by ``split_entries``, which notes it in ``drawn``.
    Patients are those of the table, or else by ``choose_rule``, where ``patient`` is auto.

    Args:
        directory: folder that is searched with all its sub-folders.
        options: what the list depends on.
        strict: raise at the first image that cannot be used, instead of listing it in ``skipped``.
        workers: threads that read images, by default one a processor, at most 8.

    Raises:
        InputError: if an option is out of range, a word or most label maps fit no class, there is no usable image,
            ``check_labeled`` fails, or any image is unusable where ``strict`` is set.
    """
    options.check()
    root = Path(os.path.abspath(Path(directory).expanduser()))
    find = find_label_maps if options.task == "segmentation" else find_labels
    rows, skipped, excluded, rule = find(root, options)
    rows, other_splits = exclude_rows(rows, options.exclude_patients_of)
    labeled, unknown, other_words = parse_labels(rows, options)
    entries, unusable, spatial_dims = _measure(labeled, root, options, workers)
    skipped = [*skipped, *unknown, *unusable]
    if strict and skipped:
        raise InputError(skipped[0]["reason"])
    if not entries:
        first = skipped[0]["reason"] if skipped else "all are left out by their split or label."
        raise InputError(f"{root} holds no usable image with a label; the first: {first}")
    datalist = {
        "dataset_dir": str(root),
        **asdict(replace(options, spatial_dims=spatial_dims)),
        "patient_rule": rule,
        **split_entries(entries, options.test_fraction, options.validation_fraction, options.seed),
        "skipped": skipped,
        "excluded": excluded | other_splits | other_words,
    }
    check_labeled(datalist)
    return datalist


def _measure(
    labeled: Sequence[tuple[Row, Label]], root: Path, options: LabelOptions, workers: int | None
) -> tuple[list[tuple[dict, str]], list[dict], int]:
    """Entries with their splits, the images that cannot be used, and the number of spatial dimensions."""
    if options.task == "segmentation":
        pairs = [(row.image, str(label)) for row, label in labeled]
        facts = measure_each(partial(measure_pair, options=options), pairs, root, workers=workers)
        refuse_wrong_classes(facts, options)
    else:
        measure = partial(measure_image, resample=False)  # as stock MONAI, which trains, reads it
        facts = measure_each(measure, [row.image for row, _ in labeled], root, workers=workers)
    spatial_dims = options.spatial_dims or majority(facts)
    kept = [(row.image, row.patient, row.split) for row, _ in labeled]
    rows, skipped = sort_out(kept, facts, spatial_dims, options.in_channels, strict=False)
    labels = {first_file(row.image): label for row, label in labeled}
    entries = []
    for entry, split in rows:
        label = labels[first_file(entry["image"])]
        try:
            if spatial_dims == 2 and options.pictures_only:
                check_pictures({"image": entry["image"], "label": label})
            paths = {"image": _one_path(entry["image"], root), "label": label}
            entries.append((paths | {key: value for key, value in entry.items() if key != "image"}, split))
        except InputError as error:
            skipped.append({"image": entry["image"], "reason": str(error)})
    return entries, skipped, spatial_dims


def _one_path(image: Image, root: Path) -> str:
    """The path of an image; of a DICOM series its folder, as stock MONAI reads it, or its one file among others.

    Raises:
        InputError: if a series of several files shares its folder with other DICOM files: stock MONAI leaves out hidden
            files and those of other formats.
    """
    if isinstance(image, str):
        return image
    folder = PurePosixPath(image[0]).parent
    files = [file for file in (root / folder).iterdir() if file.is_file() and not file.name.startswith(".")]
    if len(image) == 1 and len(files) > 1:
        return image[0]
    others = sum(map(is_dicom, files)) - len(image)
    if others:
        raise InputError(
            f"{image[0]} begins a DICOM series of {len(image)} files in a folder with {others} others; "
            "move each series to a folder of its own."
        )
    return str(folder)
