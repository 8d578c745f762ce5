"""Classes of whole images: from a CSV file, or from one folder a class."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ..images.find import Image, first_file
from ..utils.errors import InputError
from .options import NO_CLASS, LabelOptions
from .patients import PATIENT_COLUMNS, choose_rule, find_patients
from .tables import FILE_COLUMNS, image_names, pick_column, read_table

LABEL_COLUMNS = ("label", "labels", "finding", "findings", "class", "diagnosis")


Label = int | list[int | None] | str


class Row(NamedTuple):
    """An image with what is said of it."""

    image: Image
    words: str | list[str]  # one cell, or one a class; for a label map its file
    patient: str = ""
    split: str = ""
    place: str = ""  # what an error calls it


def find_table(root: Path, labels: str | None) -> Path | None:
    """The CSV file of the labels: the given one, else ``labels.csv`` in the folder or the one above, else None.

    Raises:
        InputError: if a given one is no CSV file.
    """
    if labels is None:
        return next((path for path in (root / "labels.csv", root.parent / "labels.csv") if path.is_file()), None)
    if not str(labels).lower().endswith(".csv"):
        raise InputError(f"labels must be a CSV file where the task is classification, got {labels!r}.")
    given = Path(labels).expanduser()
    return root / given if (root / given).is_file() else given


def read_label_table(
    table: Path, root: Path, images: Sequence[Image], options: LabelOptions
) -> tuple[list[Row], list[dict]]:
    """The rows of a CSV file that name an image, and those that name none as ``image`` and ``reason``.

    A row names an image by its path (from ``root``, from the folder of the table, or from /), its file name, or its
    file name without suffix. There is one column of labels, or one a class where ``multi_label`` is set and all of them
    are there. Columns ``split`` and ``patient`` (``PATIENT_COLUMNS``) are taken along.

    Args:
        table: CSV file with a header line.
        root: the folder of the images.
        images: relative to ``root``.
        options: classes and column; by default the first of ``LABEL_COLUMNS`` that is there.

    Raises:
        InputError: if a column is missing, a row fits several images, or an image has rows that differ.
    """
    columns, cells = read_table(table, "table of labels")
    file = pick_column(table, columns, "file_column", None, FILE_COLUMNS)
    patient = next((name for name in PATIENT_COLUMNS if name in columns), "")
    single = _single_column(table, columns, options)
    index = index_images(images, root, table)
    found: dict[str, Row] = {}
    skipped = []
    for number, cell in enumerate(cells, start=2):
        place = f"{table}, row {number}"
        image = find_image(cell[file], index, place)
        if image is None:
            reason = f"{cell[file]} does not exist but is listed in {place}."
            skipped.append({"image": cell[file], "reason": reason})
            continue
        words = cell[single] if single else [cell[name] for name in options.class_names]
        row = Row(image, words, cell.get(patient, ""), cell.get("split", ""), place)
        other = found.setdefault(first_file(image), row)
        if other[1:4] != row[1:4]:
            raise InputError(f"{place} says {row[1:4]} of {cell[file]} where {other.place} says {other[1:4]}.")
    return list(found.values()), skipped


def _single_column(table: Path, columns: Sequence[str], options: LabelOptions) -> str:
    """The column of labels; "" where every class has a column of its own."""
    if options.label_column is None and options.multi_label and set(options.class_names) <= set(columns):
        if options.label_map:
            raise InputError(f"{table} has one column a class, so label_map is invalid, got {options.label_map}.")
        return ""
    return pick_column(table, columns, "label_column", options.label_column, LABEL_COLUMNS)


def index_images(images: Sequence[Image], root: Path, table: Path) -> list[dict[str, list[Image]]]:
    """Images by what a row may call them, from the strictest name to the loosest, as ``find_image`` needs them.

    Args:
        images: relative to ``root``.
        root: absolute path of their folder.
        table: the file with the row.
    """
    home = os.path.abspath(table.parent)
    tiers: list[dict[str, list[Image]]] = []
    for image in images:
        path, *others = image_names(image)
        full = root / path
        for level, name in enumerate((path, os.path.relpath(full, home), str(full), *others)):
            if level == len(tiers):
                tiers.append({})
            tiers[level].setdefault(name, []).append(image)
    return tiers


def find_image(name: str, index: Sequence[Mapping[str, list[Image]]], place: str) -> Image | None:
    """The image that a row means, or None where there is none.

    Args:
        name: what the row calls it.
        index: of ``index_images``.
        place: what an error calls the row.

    Raises:
        InputError: if it may be several.
    """
    name = os.path.normpath(name.replace("\\", "/")) if name else ""
    found = next((tier[name] for tier in index if name in tier), [])
    if len(found) > 1:
        both = " and ".join(first_file(image) for image in found[:2])
        raise InputError(f"{place} names {name}, which may be {both}; write the path from the folder of the images.")
    return found[0] if found else None


def read_class_folders(root: Path, images: Sequence[Image], splits: Sequence[str]) -> tuple[list[Row], list[dict]]:
    """Images with the name of the folder below ``root`` that they lie in, and those that lie in none.

    Args:
        root: folder of one folder a class, or of one folder a split with these in it.
        images: relative to ``root``.
        splits: of each image; where folders name them, the class folder lies below.
    """
    rows, skipped = [], []
    for image, split in zip(images, splits, strict=True):
        parts = _below_split(image, split)[:-1]
        if parts:
            rows.append(Row(image, parts[0], "", split, str(root / first_file(image))))
        else:
            reason = f"{first_file(image)} lies in no folder of a class, and there is no table labels.csv."
            skipped.append({"image": image, "reason": reason})
    return rows, skipped


def _below_split(image: Image, split: str) -> tuple[str, ...]:
    parts = PurePosixPath(first_file(image)).parts
    return parts[parts.index(split) + 1 :] if split else parts


def class_folder_patients(rows: Sequence[Row], root: Path, rule: str) -> tuple[str, list[str]]:
    """Rule and patients of images in class folders: the folders of the classes are never taken for patients.

    Args:
        rows: from ``read_class_folders``.
        root: the folder of the images.
        rule: of ``find_patients``, or "auto".
    """
    below: list[Image] = [
        row.image if isinstance(row.image, list) else "/".join(_below_split(row.image, row.split)[1:]) for row in rows
    ]
    rule = choose_rule(below) if rule == "auto" else rule
    return rule, find_patients(below, root, rule)


def parse_label(row: Row, options: LabelOptions) -> Label | None:
    """The label of an image: the number of its class, or for several labels a list of 1, 0 and None (not known).

    None where ``label_map`` leaves the row out, or where nothing is known of the image.

    Args:
        row: its words separated by ``|`` where there may be several labels.
        options: classes, and what words stand for them.

    Raises:
        InputError: if a word is no class, and in a column of one class if it is not 1, 0, -1, nan or empty.
    """
    if isinstance(row.words, list):
        label = [_state(word, name, row) for word, name in zip(row.words, options.class_names, strict=True)]
        return None if set(label) == {None} else label
    if not options.multi_label:
        name = _class_of(row.words, row, options) if row.words else None
        return None if name is None else options.class_names.index(name)
    names = [_class_of(word.strip(), row, options) for word in row.words.split("|")]
    return None if None in names else [int(name in names) for name in options.class_names]


def _state(word: str, name: str, row: Row) -> int | None:
    try:
        value = float(word or "nan")
    except ValueError:
        value = math.inf
    if value == -1 or math.isnan(value):
        return None
    if value in (0, 1):
        return int(value)
    raise InputError(f"{row.place}: column {name} must be 1, 0, or -1, nan or empty for not known, got {word!r}.")


def _class_of(word: str, row: Row, options: LabelOptions) -> str | None:
    """The class that a word stands for, "" where it says that there is none, None where it leaves the row out."""
    names = list(options.class_names)
    name = (options.label_map or {}).get(word, word)
    if name is None or name in names:
        return name
    if options.multi_label and name.lower() in NO_CLASS:
        return ""
    number = name.removesuffix(".0")  # as pandas writes whole numbers of a column with gaps
    if not options.multi_label and number.isdecimal() and int(number) < len(names):
        return names[int(number)]
    raise InputError(
        f"{row.place}: {word!r} is none of the classes {', '.join(names)}; "
        f'say what it is by --label_map "{{{word!r}: CLASS}}", or None instead of CLASS to leave such rows out.'
    )
