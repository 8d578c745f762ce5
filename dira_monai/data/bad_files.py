"""Images that break while a run reads them: named in one sentence, or left out of a training, up to a number."""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..dicom.headers import is_dicom
from ..images.find import SUFFIXES, Image, files_of, first_file, is_series, read_image
from ..utils.errors import InputError, check_integers, find_input_error

LOGGER = logging.getLogger(__name__)
KEYS = ("image", "label")  # of an item that may be files
COUNTING = threading.Lock()  # of the threads that fill a cache


class BadFiles:
    """The items of a list that could not be loaded, which all workers of a data loader share.

    Attributes:
        data: entries of a datalist.
        most: how many items may be left out; the next one ends the run.
    """

    def __init__(self, data: Sequence[Mapping[str, Any]], most: int = 0) -> None:
        check_integers(0, max_bad_files=most)
        self.data, self.most = data, most
        self.bad = torch.zeros(len(data), dtype=torch.bool)
        if most:
            self.bad.share_memory_()

    def load(self, index: int, load: Callable[[int], Any]) -> Any:
        """What ``load`` makes of the item of an index, or of the next one that can be loaded.

        Raises:
            InputError: if a file of an item is missing or broken, or the image holds NaN, once ``most`` were left out.
            Exception: whatever else ``load`` raises of an item whose files are in order.
        """
        for place in range(index, index + len(self.data)):
            place %= len(self.data)
            if self.bad[place]:
                continue
            try:
                found = load(place)
                self._check_finite(found, self.data[place])
                return found
            except Exception as error:  # transforms raise whatever they like
                fault = find_input_error(error) or find_fault(self.data[place])
                if fault is None:
                    raise
                self._leave_out(place, fault)
        raise InputError(f"none of the {len(self.data)} images can be loaded.")

    @staticmethod
    def _check_finite(found: Any, item: Mapping[str, Any]) -> None:
        for key in ("image", *(["label"] if _images(item, "label") else [])):
            value = found.get(key)
            if isinstance(value, Tensor) and value.is_floating_point() and not value.isfinite().all():
                name = next(map(first_file, _images(item, key)), "an item")
                raise find_fault(item) or InputError(f"{name}: the transforms make NaN or infinite values of it.")

    def _leave_out(self, place: int, fault: InputError) -> None:
        with COUNTING:
            if self.bad[place]:  # by another thread meanwhile
                return
            self.bad[place] = True
            reason, count = str(fault).rstrip("."), int(self.bad.sum())
            if count <= self.most:
                LOGGER.warning(f"left out: {reason}; number {count} of at most {self.most}")
                return
        before = f" (and {self.most} files before it)" if self.most else ""
        raise InputError(
            f"{reason}{before}; mend it or take it out of the list; --max_bad_files {count} lets a training go on "
            "without so many of its training images."
        )


def find_fault(item: Mapping[str, Any]) -> InputError | None:
    """What is wrong with the image or the label map of a datalist's entry: missing, empty, broken, NaN; else None."""
    for key in KEYS:
        for image in _images(item, key):
            try:
                files = files_of(image)
                if missing := next((file for file in files if not Path(file).exists()), None):
                    raise InputError(f"{missing} does not exist.")
                if first_file(image).lower().endswith(SUFFIXES) or Path(files[0]).is_dir() or is_dicom(Path(files[0])):
                    array, _ = read_image(image)
                    if array.dtype.kind == "f" and (count := np.count_nonzero(~np.isfinite(array))):
                        raise InputError(f"{first_file(image)} holds {count} NaN or infinite voxels.")
            except InputError as error:
                return error
    return None


def _images(item: Mapping[str, Any], key: str) -> list[Image]:
    """The images that an entry names: one, or one a channel; none where it has a number or a tensor."""
    value = item.get(key)
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not all(isinstance(file, str) for file in value):
        return []
    return [value] if value and is_series(value) else list(value)
