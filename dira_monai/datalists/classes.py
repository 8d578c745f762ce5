"""Classes of whole images: from a CSV file, or from one folder a class."""

import math
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from ..images.find import Image, first_file, is_series
from ..utils.errors import InputError
from ..utils.files import user_path
from .label_maps import in_image_folders
from .layouts import split_names
from .options import LabelOptions, find_class, refuse_words, split_words
from .patients import PATIENT_COLUMNS, clean_patients
from .rows import Found, Label, Row
from .splits import folder_splits, split_word
from .tables import (
    FILE_COLUMNS,
    TABLES,
    composed,
    find_column,
    find_groups,
    find_image,
    find_split_column,
    index_images,
    needless_folders,
    pick_column,
    read_table,
)

LABEL_COLUMNS = ("label", "labels", "finding", "findings", "class", "diagnosis", "finding labels", "dx", "target")
TRUTH = {"true": "1", "false": "0"}  # as pandas writes a column of a class


def find_table(root: Path, labels: str | None) -> Path | None:
    """The CSV file of the labels: the given one, else ``labels.csv`` in the folder or the one above, else None."""
    if labels is None:
        return next((path for path in (root / "labels.csv", root.parent / "labels.csv") if path.is_file()), None)
    if not str(labels).lower().endswith(TABLES):
        raise InputError(f"labels must be a CSV or TSV file where the task is classification, got {labels!r}.")
    given = user_path(labels)
    return root / given if (root / given).is_file() else given


def find_labels(root: Path, options: LabelOptions) -> Found:
    """Images with the words of a table, or where there is none with the names of their folders, and with patients.

    With ``modalities`` an image is the files of a case, and a row names one of these files or the case.

    Raises:
        InputError: as ``read_label_table`` and ``find_patients`` do.
    """
    (sorted_out, everything), table = Found.search(root), find_table(root, options.labels)
    images = sorted_out.without_label_maps(everything)
    images = sorted_out.take_modalities(images, split_names(options.modalities))
    if table is None:
        found = _read_class_folders(root, images, options)
    else:
        found = _read_images_of_table(root, in_image_folders(images), table, options)
    found.label_maps, found.named_as_maps = sorted_out.label_maps, sorted_out.named_as_maps
    found.other_modalities = sorted_out.other_modalities
    found.excluded += sorted_out.excluded
    found.other_formats, found.skipped = sorted_out.other_formats, sorted_out.skipped + found.skipped
    return found


def _read_images_of_table(root: Path, images: Sequence[Image], table: Path, options: LabelOptions) -> Found:
    found = read_label_table(table, root, images, options)
    if not any(row.split for row in found.rows):
        splits = folder_splits([row.image for row in found.rows])
        found.rows = [row._replace(split=split) for row, split in zip(found.rows, splits, strict=True)]
    listed = {first_file(row.image) for row in found.rows}
    others = [image for image in images if first_file(image) not in listed]
    if len(others) > len(listed):  # a table of some images in a folder full of others
        found.excluded[f"without a row in {table.name}"] = len(others)
    else:
        for image in others:
            found.skip(image, f"{first_file(image)} has no row in {table}.")
    if options.patient == "auto" and any(row.patient for row in found.rows):
        found.patient_rule = found.table_rule(table)
    else:
        found.fill_patients(options.patient, (options.patient_column, options.file_column))
    return found


def read_label_table(table: Path, root: Path, images: Sequence[Image], options: LabelOptions) -> Found:
    """The rows of a CSV file that name an image; those that name none are skipped.

    A row names an image by its path (from ``root``, from the folder of the table, or from /, see also
    ``needless_folders``), its file name, or its file name without suffix. Where no row does, they name patients or
    folders, and all images of these, see ``find_groups``. There is one column of labels, or one a class
    where all of them are there. Columns ``split`` and ``patient`` (``PATIENT_COLUMNS``) are taken along.

    Args:
        table: CSV file with a header line.
        root: the folder of the images.
        images: relative to ``root``.
        options: classes and column; by default the first of ``LABEL_COLUMNS`` that is there.

    Raises:
        InputError: if a column is missing, no row names an image, a row fits several, an image has rows that differ, or
            as ``clean_patients`` does.
    """
    columns, cells = read_table(table, "table of labels")
    file = pick_column(table, columns, "file_column", options.file_column, (*FILE_COLUMNS, *PATIENT_COLUMNS))
    patient, split = _patient_column(table, columns, options), find_split_column(columns, cells)
    single = _single_column(table, columns, options)
    index = index_images(images, root, table)
    cut = needless_folders([cell[file] for cell in cells], index)
    people = clean_patients(table, [cell.get(patient, "") for cell in cells])
    named = [_list(find_image(cell[file], index, f"{table}, row {n}", cut)) for n, cell in enumerate(cells, start=2)]
    if not any(named):
        groups = find_groups([cell[file] for cell in cells], images)
        named = [groups.get(composed(cell[file]), []) for cell in cells]
    found, rows = Found(root, []), dict[str, Row]()
    for number, (cell, person, own) in enumerate(zip(cells, people, named, strict=True), start=2):
        place = f"{table}, row {number}"
        if not own:
            found.skip(cell[file], f"{cell[file]} does not exist but is listed in {place}.")
        words = cell[single] if single else [cell[name] for name in options.class_names]
        for image in own:
            row = Row(image, words, person, cell.get(split, ""), place)
            other = rows.setdefault(first_file(image), row)
            if other[1:4] != row[1:4]:
                raise InputError(
                    f"{place} says {row[1:4]} of {cell[file]} where {other.place} says {other[1:4]}; keep one."
                )
    found.rows = [*rows.values()]
    if not rows:
        first = f"the first of {len(cells)} is {cells[0][file]!r}" if cells else "it has none"
        like = first_file(images[0]) if images else "missing"
        raise InputError(
            f"no row of {table} names an image: {first} in the column {file}, and the first image is {like}; write "
            "names as they are, with leading zeros, or name another column by --file_column."
        )
    return found


def _list(image: Image | None) -> list[Image]:
    return [] if image is None else [image]


def _patient_column(table: Path, columns: Sequence[str], options: LabelOptions) -> str:
    """The column of the patient; "" where there is none."""
    if options.patient_column:
        pick_column(table, columns, "patient_column", options.patient_column, ())
    return options.patient_column or find_column(columns, PATIENT_COLUMNS) or ""


def _single_column(table: Path, columns: Sequence[str], options: LabelOptions) -> str:
    """The column of labels; "" where every class has a column of its own."""
    several = options.multi_label or find_column(columns, LABEL_COLUMNS) is None
    if options.label_column is None and several and set(options.class_names) <= set(columns):
        if options.label_map:
            raise InputError(f"{table} has one column a class, so label_map is invalid, got {options.label_map}.")
        return ""
    return pick_column(table, columns, "label_column", options.label_column, LABEL_COLUMNS)


def _read_class_folders(root: Path, images: Sequence[Image], options: LabelOptions) -> Found:
    """Images with the name of the folder that they lie in, below ``root`` or below the folder of their split.

    Folders that all of them share and that are no class are passed, and so are those of patients or folds above
    classes, as ``P01`` of ``P01/benign``. Those of the classes are never taken for patients.
    """
    found, below = Found(root, []), list[Image]()
    splits = folder_splits(images)
    paths = [PurePosixPath(first_file(image)).parts for image in images]
    starts = [[*map(split_word, p)].index(split) + 1 if split else 0 for p, split in zip(paths, splits, strict=True)]
    paths = [parts[start:] for parts, start in zip(paths, starts, strict=True)]
    while (
        len({parts[0] for parts in paths}) == 1
        and all(parts[2:] for parts in paths)
        and not _is_class(paths[0][0], options)
    ):
        paths = [parts[1:] for parts in paths]
    levels = [*zip(*(parts[:-1] for parts in paths), strict=False)]
    level = next((n for n, words in enumerate(levels) if any(_is_class(word, options) for word in {*words})), 0)
    for image, split, parts in zip(images, splits, paths, strict=True):
        name, kind, rest = first_file(image), parts[level], [*parts[:level], *parts[level + 1 :]]
        if rest:
            found.rows.append(Row(image, kind, split=split, place=str(root / name)))
            below.append(image if is_series(image) else "/".join(rest))
        else:
            found.skip(image, f"{name} lies in no folder of a class, and there is no table labels.csv.")
    found.fill_patients(options.patient, (options.patient_column, options.file_column), below)
    return found


def _is_class(word: str, options: LabelOptions) -> bool:
    try:
        return find_class(word, options) is not None
    except KeyError:
        return False


def parse_labels(found: Found, options: LabelOptions) -> None:
    """Give the rows their labels; leave out those that ``label_map`` leaves out, skip those of which nothing is known.

    Raises:
        InputError: as ``parse_label`` does; of words that are no class it names all.
    """
    rows, found.rows = found.rows, []
    words = [word for row in rows if isinstance(row.words, str) for word in split_words(row.words, options.multi_label)]
    refuse_words(
        words,
        lambda word: word and find_class(word, options),
        options.class_names,
        rows[0].place.rsplit(", row ", 1)[0] if rows else "",
    )
    for row in rows:
        label = parse_label(row, options)
        if label is not None:
            found.rows.append(row._replace(label=label))
        elif isinstance(row.words, str) and row.words:
            found.excluded[f"labeled {row.words}"] += 1
        else:
            found.skip(row.image, f"{row.place} has no label that is known.")


def parse_label(row: Row, options: LabelOptions) -> Label | None:
    """The label of an image: the number of its class, or for several labels a list of 1, 0 and None (not known).

    None where ``label_map`` leaves the row out, or where nothing is known of the image. Several labels of one column
    stand between ``|``, or as Python writes a list.

    Raises:
        InputError: if a word is no class; in a column of one class if it is not 1, 0, -1, nan or empty, or if several
            are 1 where ``multi_label`` is not set.
    """
    if isinstance(row.words, list):
        label = [_state(word, name, row) for word, name in zip(row.words, options.class_names, strict=True)]
        if options.multi_label:
            return None if set(label) == {None} else label
        present = [number for number, state in enumerate(label) if state]
        if len(present) > 1:
            raise InputError(f"{row.place} has {len(present)} of the classes; give --multi_label True.")
        return present[0] if present else None
    names = [find_class(word, options) for word in split_words(row.words, options.multi_label)]
    if options.multi_label:
        return None if None in names else [int(name in names) for name in options.class_names]
    return None if names[0] in (None, "") else options.class_names.index(names[0])


def _state(word: str, name: str, row: Row) -> int | None:
    try:
        value = float(TRUTH.get(word.lower(), word) or "nan")
    except ValueError:
        value = math.inf
    if value == -1 or math.isnan(value):
        return None
    if value in (0, 1):
        return int(value)
    raise InputError(f"{row.place}: column {name} must be 1, 0, or -1, nan or empty for not known, got {word!r}.")
