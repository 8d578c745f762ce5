"""Where the labels of a folder come from: images with words, patients and splits, before anything is read."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..images.find import find_images, first_file
from ..utils.errors import InputError
from .classes import (
    Label,
    Row,
    class_folder_patients,
    find_table,
    parse_label,
    read_class_folders,
    read_label_table,
)
from .label_maps import find_pairs, in_image_folders
from .options import LabelOptions
from .patients import choose_rule, find_patients, read_patient_table
from .splits import LABELED_SPLITS, folder_splits

Found = tuple[list[Row], list[dict], dict[str, int], str]  # rows, skipped, excluded, rule of the patients


def find_label_maps(root: Path, options: LabelOptions) -> Found:
    """Images with label maps for words.

    Raises:
        InputError: as ``find_pairs`` and ``find_patients`` do.
    """
    pairs, skipped = find_pairs(root, options.labels)
    splits = folder_splits([image for image, _ in pairs])
    rows = [Row(image, label, split=split) for (image, label), split in zip(pairs, splits, strict=True)]
    rows, rule = _fill_patients(rows, root, options.patient)
    return rows, skipped, {}, rule


def find_labels(root: Path, options: LabelOptions) -> Found:
    """Images with the words of a table, or with the names of their folders.

    Raises:
        InputError: as ``read_label_table`` and ``find_patients`` do.
    """
    images, table = find_images(root), find_table(root, options.labels)
    if table is None:
        rows, skipped = read_class_folders(root, images, folder_splits(images))
        if options.patient.lower().endswith(".csv"):
            rows, rule = _fill_patients(rows, root, options.patient)
        else:
            rule, names = class_folder_patients(rows, root, options.patient)
            rows = [row._replace(patient=name) for row, name in zip(rows, names, strict=True)]
        return rows, skipped, {}, rule
    images = in_image_folders(images)
    rows, skipped = read_label_table(table, root, images, options)
    if not any(row.split for row in rows):
        splits = folder_splits([row.image for row in rows])
        rows = [row._replace(split=split) for row, split in zip(rows, splits, strict=True)]
    listed = {first_file(row.image) for row in rows}
    others = [image for image in images if first_file(image) not in listed]
    excluded = {}
    if len(others) > len(rows):  # a table of some images in a folder full of others
        excluded[f"without a row in {table.name}"] = len(others)
    else:
        skipped += [{"image": image, "reason": f"{first_file(image)} has no row in {table}."} for image in others]
    if options.patient == "auto" and any(row.patient for row in rows):
        return rows, skipped, excluded, _table_rule(table, root)
    rows, rule = _fill_patients(rows, root, options.patient)
    return rows, skipped, excluded, rule


def _fill_patients(rows: Sequence[Row], root: Path, rule: str) -> tuple[list[Row], str]:
    """The rows with patients by the rule, and with the splits of its table where they have none; and the rule."""
    images = [row.image for row in rows]
    if rule.lower().endswith(".csv"):
        table = read_patient_table(rule, images)
        filled = zip(rows, table, strict=True)
        kept = [row._replace(patient=name, split=row.split or split) for row, (name, split) in filled]
        return kept, _table_rule(Path(rule), root)
    rule = choose_rule(images) if rule == "auto" else rule
    names = find_patients(images, root, rule)
    return [row._replace(patient=name) for row, name in zip(rows, names, strict=True)], rule


def _table_rule(table: Path, root: Path) -> str:
    """The path of a table of patients: from ``root`` where it lies there, else from /."""
    path, home = (Path(os.path.abspath(place)) for place in (table, root))
    return path.relative_to(home).as_posix() if path.is_relative_to(home) else str(path)


def exclude_rows(rows: Sequence[Row], exclude: str | None) -> tuple[list[Row], dict[str, int]]:
    """Rows of training, validation and test, without the patients of the excluded split, and counts of the others.

    Raises:
        InputError: if there is no split of that name.
    """
    words = sorted({row.split for row in rows})
    if exclude is not None and exclude not in words:
        raise InputError(f"exclude_patients_of must be a split of the data ({', '.join(words)}), got {exclude!r}.")
    patients = {row.patient for row in rows if row.split == exclude} - {""}
    kept, excluded = [], Counter[str]()
    for row in rows:
        if row.split.lower() not in LABELED_SPLITS:
            excluded[row.split] += 1
        elif row.patient in patients:
            excluded[f"of patients of {exclude}"] += 1
        else:
            kept.append(row)
    return kept, dict(excluded)


def parse_labels(
    rows: Sequence[Row], options: LabelOptions
) -> tuple[list[tuple[Row, Label]], list[dict], dict[str, int]]:
    """Rows with their labels, those without a known label, and counts of the words that ``label_map`` leaves out.

    Raises:
        InputError: as ``parse_label`` does.
    """
    if options.task == "segmentation":
        return [(row, str(row.words)) for row in rows], [], {}
    kept: list[tuple[Row, Label]] = []
    unknown, excluded = [], Counter[str]()
    for row in rows:
        label = parse_label(row, options)
        if label is not None:
            kept.append((row, label))
        elif isinstance(row.words, str) and row.words:
            excluded[f"labeled {row.words}"] += 1
        else:
            unknown.append({"image": row.image, "reason": f"{row.place} has no label that is known."})
    return kept, unknown, dict(excluded)
