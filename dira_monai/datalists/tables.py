"""Tables of images: CSV files with a header line, and what their rows may call an image."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from ..images.find import Image, first_file, map_files
from ..utils.errors import InputError

FILE_COLUMNS = ("file", "image", "path")


def stem(file: str) -> str:
    """The file name without its suffix, or without both of ``.nii.gz``."""
    name = PurePosixPath(file).name
    return name[:-7] if name.lower().endswith(".nii.gz") else PurePosixPath(name).stem


def read_table(table: str | Path, kind: str) -> tuple[list[str], list[dict[str, str]]]:
    """The columns of a CSV file with a header line, and its rows; cells lose blanks around them, missing ones are "".

    Args:
        table: CSV file in UTF-8.
        kind: what an error calls it.

    Raises:
        InputError: if the file is missing, or not in UTF-8.
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
    """The wanted column, or the first of the usual ones that is there.

    Raises:
        InputError: if there is none; it names the option that says which, where there is one.
    """
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


def path_from(image: Image, directory: str | Path, start: str | Path) -> Image:
    """The path of an image from another folder; from / it begins with it."""
    home = os.path.abspath(start)
    called = map_files(image, lambda file: os.path.abspath(Path(directory, file)))
    return called if start == "/" else map_files(called, lambda file: os.path.relpath(file, home))
