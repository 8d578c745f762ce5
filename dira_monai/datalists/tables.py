"""Tables of images: CSV files with a header line, and what their rows may call an image."""

import csv
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from ..images.find import Image, first_file, map_files, stem
from ..utils.errors import InputError

FILE_COLUMNS = ("file", "image", "path")


def read_table(table: str | Path, kind: str) -> tuple[list[str], list[dict[str, str]]]:
    """The columns of a CSV file with a header line, and its rows; cells lose blanks around them, missing ones are "".

    A file that is missing or not in UTF-8 is refused; ``kind`` is what the error calls it.
    """
    if not Path(table).is_file():
        raise InputError(f"the {kind} {table} does not exist.")
    try:
        with open(table, newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            columns = list(reader.fieldnames or [])
            return columns, [{name: (row[name] or "").strip() for name in columns} for row in reader]
    except UnicodeDecodeError as error:
        raise InputError(f"the {kind} {table} is not in UTF-8: {error}.") from error


def pick_column(
    table: str | Path, columns: Sequence[str], option: str | None, wanted: str | None, defaults: Sequence[str]
) -> str:
    """The wanted column, or the first of the usual ones that is there; the error names the option that says which."""
    for name in [wanted] if wanted else defaults:
        if name in columns:
            return name
    wish = wanted or ", ".join(defaults)
    hint = f": name one by --{option}" if option else ""
    raise InputError(f"{table} has no column {wish}; its columns are {', '.join(columns)}{hint}.")


def image_names(image: Image) -> list[str]:
    """What a table may call an image: path, name, name without suffix; of a DICOM series also its folder's two."""
    path = PurePosixPath(first_file(image))
    names = [str(path), path.name, stem(path.name)]
    return names if isinstance(image, str) else [*names, str(path.parent), path.parent.name]


def index_images(images: Sequence[Image], root: Path, table: Path) -> list[dict[str, list[Image]]]:
    """Images by what a row may call them, from the strictest name to the loosest, as ``find_image`` needs them.

    Args:
        images: relative to ``root``.
        root: absolute path of their folder.
        table: the file with the row.
    """
    tiers: dict[int, dict[str, list[Image]]] = defaultdict(lambda: defaultdict(list))
    for image in images:
        path, *others = image_names(image)
        places = path, os.path.relpath(root / path, os.path.abspath(table.parent)), str(root / path)
        for level, name in enumerate((*places, *others)):
            tiers[level][name].append(image)
    return [*tiers.values()]


def find_image(name: str, index: Sequence[Mapping[str, list[Image]]], place: str) -> Image | None:
    """The image that a row means by a name, or None where there is none; a name of several is refused.

    ``index`` is of ``index_images``; ``place`` is what an error calls the row.
    """
    name = os.path.normpath(name.replace("\\", "/")) if name else ""
    found = next((tier[name] for tier in index if name in tier), [])
    if len(found) > 1:
        both = " and ".join(first_file(image) for image in found[:2])
        raise InputError(f"{place} names {name}, which may be {both}; write the path from the folder of the images.")
    return found[0] if found else None


def path_from(image: Image, directory: str | Path, start: str | Path) -> Image:
    """The path of an image from another folder; from / it begins with it."""
    home = os.path.abspath(start)
    called = map_files(image, lambda file: os.path.abspath(Path(directory, file)))
    return called if start == "/" else map_files(called, lambda file: os.path.relpath(file, home))
