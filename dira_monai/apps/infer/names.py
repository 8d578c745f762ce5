"""Names of results: one for each image, made before anything runs, so that none overwrites another."""

import itertools
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath
from typing import Any

from monai.data import FolderLayoutBase

from ...images.reader import SUFFIXES
from ...utils.errors import InputError


def name_results(paths: Sequence[str], suffixes: Iterable[str], ending: str, taken: Iterable[str] = ()) -> list[str]:
    """The results' paths below the folder of the results, in folders like those of the images.

    The name is that of the image without its suffix, or with it where two would have the same name, and where that is
    not enough with a number. Letters of both cases are the same, as they are to some file systems.

    Args:
        paths: absolute, of the images.
        suffixes: that are left out of a name; of other names, such as UIDs, nothing is.
        ending: of the results, such as ``_seg.nii.gz``.
        taken: results of other images.
    """
    known = tuple(sorted({*suffixes, *SUFFIXES, ".dcm"}, key=len, reverse=True))
    root = os.path.commonpath([os.path.dirname(path) for path in paths] or ["."])
    whole = [PurePath(os.path.relpath(path, root)).as_posix() for path in paths]
    short = [_without_suffix(name, known) for name in whole]
    counts = Counter(name.lower() for pair in zip(short, whole, strict=True) for name in {*pair})
    used = {name.lower() for name in taken}
    choices = [[name, full] if counts[name.lower()] == 1 else [full] for name, full in zip(short, whole, strict=True)]
    return [_first_free(names, ending, used) for names in choices]


def _without_suffix(name: str, suffixes: Sequence[str]) -> str:
    ending = next((suffix for suffix in suffixes if name.lower().endswith(suffix)), "")
    stem = name[: len(name) - len(ending)]
    return stem if PurePath(name).name.lower() != ending else name


def _first_free(names: Sequence[str], ending: str, used: set[str]) -> str:
    """The first name that no other result has, if need be with a number; it is used then."""
    numbered = (f"{names[-1]}_{number}" for number in itertools.count(2))
    found = next(name for name in itertools.chain(names, numbered) if (name + ending).lower() not in used)
    used.add((found + ending).lower())
    return found + ending


def check_free(results: Iterable[Path], own: set[str]) -> None:
    """Refuse to overwrite what is no result of an earlier inference.

    Args:
        results: files that will be written.
        own: those that an earlier one wrote.

    Raises:
        InputError: names the first file.
    """
    for path in results:
        if path.exists() and str(path) not in own:
            raise InputError(f"{path}: exists and is not listed in infer.csv beside it; give another --output_dir")


class ResultNames(FolderLayoutBase):
    """MONAI's names of results, looked up in a table.

    Args:
        files: of the results, by the paths of the images.
    """

    def __init__(self, files: dict[str, Path]) -> None:
        self.files = files

    def filename(self, subject: str, **kwargs: Any) -> Path:
        """The file of the result of an image; its folder is made.

        Args:
            subject: path of the image.
            **kwargs: unused.
        """
        self.files[subject].parent.mkdir(parents=True, exist_ok=True)
        return self.files[subject]
