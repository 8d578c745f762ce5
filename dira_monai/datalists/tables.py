"""Tables of images: CSV files with a header line, and what their rows may call an image."""

import csv
import io
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from itertools import accumulate, dropwhile, takewhile
from pathlib import Path, PurePosixPath

from ..images.find import SPLIT_WORDS, Image, files_of, first_file, is_series, map_files, stem
from ..utils.errors import InputError
from .layouts import begins_with

FILE_COLUMNS = ("file", "image", "path", "filename", "image path", "image index", "image id", "image name", "dicom id")
DELIMITERS = ",;\t|"
TABLES = (".csv", ".tsv")


def read_table(table: str | Path, kind: str) -> tuple[list[str], list[dict[str, str]]]:
    """The columns of a CSV file with a header line, and its rows; names and cells lose blanks around them.

    Cells stand between commas, semicolons, tabs or bars, whichever the header has most of outside of quotes, or what a
    first line such as ``sep=;`` says; the text is UTF-8 or UTF-16. Missing cells are "". Columns without a name are
    left out; of several with one name the first counts here, and ``pick_column`` refuses it.

    Raises:
        InputError: if the file is missing, empty, in another encoding, or no table; ``kind`` is what an error calls it.
    """
    if not Path(table).is_file():
        raise InputError(f"the {kind} {table} does not exist.")
    content = Path(table).read_bytes()
    try:
        text = content.decode(_encoding_of(content))
    except UnicodeDecodeError as error:
        raise InputError(f"the {kind} {table} is not in UTF-8: {error}; save it as CSV in UTF-8.") from error
    # not splitlines(), which also ends one at signs that cells may hold, as U+2028; programs add a mark to a mark
    lines = [*dropwhile(lambda line: not line.strip(), io.StringIO(text.lstrip("\ufeff"), newline=""))]
    if lines and lines[0].lower().startswith("sep=") and len(lines[0].strip()) == 5:
        delimiter = lines.pop(0).strip()[4]
    else:
        delimiter = max(DELIMITERS, key=re.sub('"[^"]*"', "", lines[0]).count) if lines else ","
    try:
        head, *rows = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    except (csv.Error, ValueError) as error:
        cause = error if lines else "it is empty"
        raise InputError(f"the {kind} {table} is no CSV file with a header line: {cause}.") from error
    columns = [name.strip() for name in head]
    filled = [[*map(str.strip, row), *[""] * len(columns)] for row in rows if any(map(str.strip, row))]
    places = {name: columns.index(name) for name in columns if name}
    return [name for name in columns if name], [{name: row[places[name]] for name in places} for row in filled]


def _encoding_of(content: bytes) -> str:
    """UTF-16 by its mark, or by the 0 that each letter of a header has there; else UTF-8."""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    return ("utf-16-be", "utf-16-le", "utf-8-sig")[content[:2].find(b"\0")]


def _plain(name: str) -> str:
    """A column's name as it is compared: without case, blanks, ``_`` and ``-``."""
    return "".join(letter for letter in name.lower() if letter not in " _-")


def find_column(columns: Sequence[str], names: Iterable[str]) -> str | None:
    """The first of the names, or of what differs in case, blanks, ``_`` and ``-`` alone, that is there; else None.

    Raises:
        InputError: if there are two of the latter, as Patient ID and PatientID.
    """
    for name in names:
        alike = {name: 0} if name in columns else {own: 0 for own in columns if _plain(own) == _plain(name)}
        if len(alike) > 1:
            raise InputError(f"the columns {' and '.join(alike)} mean the same; rename all but one.")
        if alike:
            return next(iter(alike))
    return None


def find_split_column(columns: Sequence[str], cells: Sequence[Mapping[str, str]]) -> str:
    """The column split, or else the first of words of splits alone, train and another one; "" where there is none."""
    if named := find_column(columns, ("split",)):
        return named
    for name in columns:
        cased = (cell[name].lower() for cell in cells)
        words = takewhile(SPLIT_WORDS.__contains__, cased)  # which ends with the first row of most columns
        lists = [SPLIT_WORDS[word] for word in words]
        if len(lists) == len(cells) and {"training"} < {*lists}:
            return name
    return ""


def pick_column(
    table: str | Path, columns: Sequence[str], option: str | None, wanted: str | None, defaults: Sequence[str]
) -> str:
    """The wanted column, or the first of the usual ones that is there, see ``find_column``.

    Raises:
        InputError: if there is none, which names the option that says which, or two of that name.
    """
    name = wanted if wanted in columns else None if wanted else find_column(columns, defaults)
    if name is None:
        wish = wanted or ", ".join(defaults)
        hint = f": name one by --{option}" if option else ""
        raise InputError(f"{table} has no column {wish}; its columns are {', '.join(columns)}{hint}.")
    if columns.count(name) > 1:
        raise InputError(f"{table} has {columns.count(name)} columns {name}; rename all but one.")
    return name


def composed(text: str) -> str:
    """With letters and accents as one sign each: macOS and some archives keep them apart, though they look the same."""
    return unicodedata.normalize("NFC", text)


def image_names(image: Image) -> list[str]:
    """What a table may call an image: path, name, name without suffix; of a DICOM series also its folder's two.

    An image of several modalities may have these names of each of its files, what the names of these begin with, and
    those of their folder.
    """
    paths = [PurePosixPath(composed(file)) for file in files_of(image)[: 1 if is_series(image) else None]]
    names = [name for path in paths for name in (str(path), path.name, stem(path.name))]
    if len(paths) > 1:
        parts = zip(*(re.split(r"([_\-. ]+)", stem(path.name)) for path in paths), strict=False)
        names.append("".join(part for part, *_ in takewhile(lambda same: len({*same}) == 1, parts)).rstrip("_-. "))
    return [*names, str(paths[0].parent), paths[0].parent.name] if isinstance(image, list) else names


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
            tiers[level][composed(name)].append(image)
    return [*tiers.values()]


def needless_folders(names: Sequence[str], index: Sequence[Container[str]]) -> int:
    """How many characters to leave out at the start of all names of a table, so that some name an image.

    These are folders that all of them begin with, such as ``CheXpert-v1.0-small/train/``, and the fewest that will do.
    """
    cleaned = [clean_name(name) for name in names if name]
    folders = [name.split("/")[:-1] for name in cleaned]
    shared = [same[0] for same in takewhile(lambda parts: len({*parts}) == 1, zip(*folders, strict=False))]
    cuts = [0, *accumulate(len(folder) + 1 for folder in shared)]
    found = (cut for cut in cuts if any(name[cut:] in tier for name in cleaned for tier in index))
    return next(found, 0)


def find_image(name: str, index: Sequence[Mapping[str, list[Image]]], place: str, cut: int = 0) -> Image | None:
    """The image that a row means by a name, or None where there is none; a name of several is refused.

    Args:
        name: in the row.
        index: of ``index_images``.
        place: what an error calls the row.
        cut: of ``needless_folders``.
    """
    name = clean_name(name)[cut:] if name else ""
    found = next((tier[name] for tier in index if name in tier), [])
    if len(found) > 1:
        both = " and ".join(first_file(image) for image in found[:2])
        raise InputError(f"{place} names {name}, which may be {both}; write the path from the folder of the images.")
    return found[0] if found else None


def find_groups(names: Iterable[str], images: Sequence[Image]) -> dict[str, list[Image]]:
    """The images of each patient or folder that a table names: a folder of theirs, or what their names begin with."""
    wanted, found = {composed(name) for name in names if name}, defaultdict[str, list[Image]](list)
    for image in images:
        path = PurePosixPath(composed(first_file(image)))
        start = "" if is_series(image) else begins_with(stem(path.name), wanted)
        if name := next((part for part in reversed(path.parent.parts) if part in wanted), start):
            found[name].append(image)
    return found


def clean_name(name: str) -> str:
    """A path as a table has it, with ``/`` and without ``./``."""
    return os.path.normpath(composed(name).replace("\\", "/"))


def path_from(image: Image, directory: str | Path, start: str | Path) -> Image:
    """The path of an image from another folder; from / it begins with it."""
    home = os.path.abspath(start)
    called = map_files(image, lambda file: os.path.abspath(Path(directory, file)))
    return called if start == "/" else map_files(called, lambda file: os.path.relpath(file, home))
