"""One digest of the data that a run was trained on."""

import hashlib
import json
import os
import random
import stat
from collections.abc import Mapping
from typing import Any

from ..datalists.checks import LISTS
from ..utils.errors import InputError
from ..utils.parallel import parallel_map

SAMPLE = 1000  # files whose content is read
READ = 2**29  # bytes that are read of all of them together
PART = 2**16  # bytes that are read at one place of a larger file


def data_sha256(datalist: Mapping[str, Any]) -> str:
    """SHA-256 of what is in the lists: order, labels, name and size of each file, and content of ``SAMPLE`` of them.

    The files whose content is read are drawn with a fixed seed, so that a start need not wait for 100,000. Each has an
    equal share of ``READ``: a smaller file is read as a whole, of a larger one pieces of 64 KiB at even distances, the
    first and the last at its ends, where compressed formats hold their checksum. So a change that keeps name and size
    is seen in small data sets and in compressed files that are drawn, else where a piece falls on it. Of a prepared
    image the SHA-256 is in the list. Names begin in the common folder and dates do not matter, so that a copy of the
    data is the same data. Files whose paths are not absolute (test images and label maps in pre-training) are not read
    by the run and count by name.

    Raises:
        InputError: if a file cannot be read.
    """
    values: list[str] = []  # flat lists of strings: 100,000 small ones would keep the garbage collector busy
    paths: list[str] = []
    sizes: dict[str, int] = {}
    for name in (*LISTS, "words"):
        for entry in datalist.get(name, []):
            own, others = _split(entry)
            values.append(repr((name, len(own), others)))
            paths += own
            for path in own[1:] if "sha256" in entry else own:
                sizes |= _measure(path)
    start = len(os.path.commonpath({os.path.dirname(path) for path in paths} or ["."]).rstrip(os.sep))
    drawn = random.Random(0).sample(list(sizes), min(len(sizes), SAMPLE))
    share = READ // max(1, len(drawn))
    read = list(parallel_map(lambda path: _digest(path, sizes[path], share), drawn, "digest of the data", None))
    names = [path[start:] for path in (*paths, *sizes)]
    return hashlib.sha256(json.dumps([values, names, list(sizes.values()), read]).encode()).hexdigest()


def _split(entry: Mapping[str, Any]) -> tuple[list[str], list[Any]]:
    """Absolute paths of images and label of an entry, without dots in them; its other values, the SHA-256 last."""
    images = [entry["image"]] if isinstance(entry["image"], str) else entry["image"]
    paths, others = [], []
    for value in (*images, entry.get("label")):
        if isinstance(value, str) and os.path.isabs(value):
            paths.append(os.path.normpath(value))
        else:
            others.append(value)
    return paths, [*others, entry.get("sha256")]


def _measure(path: str) -> dict[str, int]:
    """Size of a file by its path; of a folder, which is a DICOM series, the sizes of its files."""
    try:
        facts = os.stat(path)
        if not stat.S_ISDIR(facts.st_mode):
            return {path: facts.st_size}
        inside = sorted(file.path for file in os.scandir(path) if file.is_file())
        return {file: os.stat(file).st_size for file in inside}
    except OSError as error:
        raise _unreadable(path, error) from error


def _digest(path: str, size: int, share: int) -> str:
    """SHA-256 of a file, or of pieces at even distances of one that is larger than its share."""
    if size <= max(share, 2 * PART):
        places, length = [0], size
    else:
        gaps = max(1, share // PART - 1)
        places, length = [(size - PART) * number // gaps for number in range(gaps + 1)], PART
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            for place in places:
                file.seek(place)
                digest.update(file.read(length))
    except OSError as error:
        raise _unreadable(path, error) from error
    return digest.hexdigest()


def _unreadable(path: str, error: OSError) -> InputError:
    return InputError(f"{path} cannot be read for the record of the run: {error.strerror}.")
