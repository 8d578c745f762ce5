"""Datalists as files: written and loaded."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from ..images.find import files_of, map_files
from ..utils.errors import InputError
from ..utils.files import atomic_write
from .checks import LISTS, check_datalist, entries_of, find_root


def write_datalist(datalist: dict, path: str | Path) -> None:
    """Write the datalist as JSON, complete or not at all; missing folders are made."""
    with atomic_write(path) as file:
        file.write((json.dumps(datalist, indent=1) + "\n").encode())


def load_datalist(path: str | Path, dataset_dir: str | Path | None = None) -> dict:
    """A datalist from JSON, checked, its ``image`` paths absolute; every other entry stays.

    Lists without ``patient``, as MONAI's tutorials have them, are taken as they are.

    Args:
        path: JSON file.
        dataset_dir: where its paths start; by default the folder that it names, or else the folder it lies in.

    Raises:
        InputError: if the file is missing, no JSON or fails ``check_datalist``, or if an image is missing.
    """
    datalist = read_datalist(path)
    check_datalist(datalist, path)
    make_absolute(datalist, path, dataset_dir)
    return datalist


def read_datalist(path: str | Path) -> dict:
    """What the JSON file holds, as it is; a missing or broken file is refused."""
    if not Path(path).is_file():
        raise InputError(f"the datalist {path} does not exist.")
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"the datalist {path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise InputError(f"the datalist {path} is not valid JSON: {error}.") from error


def make_absolute(
    datalist: dict,
    path: str | Path,
    dataset_dir: str | Path | None = None,
    lists: Sequence[str] = LISTS[:2],
    keys: Sequence[str] = ("image",),
) -> None:
    """Make ``dataset_dir`` and the files of all entries absolute, in place; a missing file is refused.

    Args:
        datalist: a checked one.
        path: its file.
        dataset_dir: where its paths start; by default ``find_root``.
        lists: the lists whose entries are meant.
        keys: the parts of an entry that are files.
    """
    root = Path(os.path.abspath(dataset_dir)) if dataset_dir else find_root(datalist, path)
    datalist["dataset_dir"] = str(root)
    for entry in entries_of(datalist, lists):
        for key in keys:
            entry[key] = map_files(entry[key], lambda file: str(root / file))
            for file in files_of(entry[key]):
                if not os.path.exists(file):  # a folder is a DICOM series
                    raise InputError(f"{file}, {'an' if key == 'image' else 'a'} {key} of {path}, does not exist.")
