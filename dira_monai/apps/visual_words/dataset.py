"""Cubes of visual words for training, read from the disk one by one."""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor
from torch.utils.data import Dataset

from ...utils.errors import InputError

SPLITS = ("training", "validation")
KIND = "visual words of dira_monai"
MAKE = "make them with python -m dira_monai visual-words"


def read_words(words_dir: str | Path | None) -> dict[str, Any]:
    """What ``words.json`` in a folder of the command ``visual-words`` says.

    Raises:
        InputError: if no folder is given or there is no such file.
    """
    if not words_dir:
        raise InputError(f"words_dir must name a folder of visual words; {MAKE}.")
    path = Path(words_dir) / "words.json"
    try:
        words = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); {MAKE}.") from error
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error}); {MAKE}.") from error
    if not isinstance(words, dict) or words.get("kind") != KIND:
        raise InputError(f"{path} holds no {KIND}; {MAKE}.")
    return words


class WordDataset(Dataset):
    """Cubes with the number of their visual word; the array is mapped into memory, in each worker by itself.

    Attributes:
        words: what ``read_words`` gives.
        classes: number of words.
        rows: of each cube: patient, word, scale, then start and size of its box; int64, (N, 3 + 2 spatial_dims).
    """

    def __init__(
        self,
        words_dir: str | Path | None,
        split: str,
        *,
        patch_size: Sequence[int] | None = None,
        in_channels: int | None = None,
    ) -> None:
        """Open a split (training or validation), of ``patch_size`` and ``in_channels`` where these are given.

        Raises:
            InputError: if the folder or the split is none, or cubes are of another size.
        """
        if split not in SPLITS:
            raise InputError(f"split must be {' or '.join(SPLITS)}, got {split!r}.")
        self.words = read_words(words_dir)
        self.path = Path(str(words_dir)) / f"{split}.npy"
        self.rows = np.array(self.words[split]["rows"], dtype=np.int64)
        self.classes = len(self.words["words"])
        found = self.array.shape
        if len(found) < 3 or len(found) != (self.rows.shape[1] + 1) // 2 or found[0] != len(self.rows):
            raise InputError(f"{self.path} has shape {found}, not {len(self.rows)} cubes as words.json says; {MAKE}.")
        size = None if patch_size is None else list(patch_size)
        for name, wanted, own in (("patch_size", size, list(found[2:])), ("in_channels", in_channels, found[1])):
            if wanted is not None and wanted != own:
                raise InputError(f"{self.path} has cubes of {name} {own} where the run has {wanted}; {MAKE}.")

    @cached_property
    def array(self) -> ndarray:
        """The cubes, (N, C, *patch_size), read when they are indexed.

        Raises:
            InputError: if the file is missing or incomplete.
        """
        try:
            return np.load(self.path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise InputError(f"{self.path} cannot be read ({error}); {MAKE}.") from error

    def __getstate__(self) -> dict[str, Any]:
        """All but the array, of which pickle would make a copy for each worker."""
        return {name: value for name, value in self.__dict__.items() if name != "array"}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, item: int | tuple[int, int]) -> dict[str, Tensor | int]:
        """``image``, (C, *patch_size), of the stored type, ``word`` and ``seed``; a plain index has seed 0."""
        index, seed = item if isinstance(item, tuple) else (item, 0)
        return {"image": torch.from_numpy(self.array[index].copy()), "word": int(self.rows[index, 1]), "seed": seed}
