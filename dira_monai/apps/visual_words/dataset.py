"""Cubes of visual words for training, read from the disk one by one."""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor
from torch.utils.data import Dataset

from ...utils.errors import InputError
from ...utils.files import atomic_write

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


def write_words(words: Mapping[str, Any], words_dir: str | Path) -> None:
    """Write ``words.json``, complete or not at all."""
    with atomic_write(Path(words_dir) / "words.json") as file:
        file.write((json.dumps(words) + "\n").encode())


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
        """Open a split.

        Args:
            words_dir: folder of the command ``visual-words``.
            split: training or validation.
            patch_size: that the cubes must have; None: any.
            in_channels: that the cubes must have; None: any.

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
        for name, wanted, own in (
            ("patch_size", None if patch_size is None else list(patch_size), list(found[2:])),
            ("in_channels", in_channels, found[1]),
        ):
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


def describe_words(found: Mapping[str, Any], output: str | Path) -> Iterator[str]:
    """What a person should know of a search, a line each.

    Args:
        found: what ``visual_words`` gives.
        output: folder of its files.
    """
    settings, words, features = found["settings"], found["words"], found["features"]
    if "last_mse" in features:
        yield (
            f"auto-encoder: mean squared error {features['first_mse']:.4f} in the first step, "
            f"{features['last_mse']:.4f} in the last; the mean image has {features['mse_of_mean_image']:.4f}"
        )
    for split, name in zip(SPLITS, ("neighbors", "validation_neighbors"), strict=True):
        if (count := len(found[split]["patients"])) < settings[name]:
            yield f"note: {name} is {settings[name]}, but there are {count} {split} patients: each word has all of them"
    if reused := sum(word["reused"] for word in words):
        yield f"note: {len(words)} words of {len(found['training']['patients'])} patients: {reused} reuse a reference"
    counts = [len(found[split]["rows"]) for split in SPLITS]
    size = " x ".join(map(str, found["patch_size"]))
    yield f"{output}: {len(words)} words, {counts[0]} training and {counts[1]} validation cubes of {size}"
    yield f"look at {Path(output) / 'words.png'}: a row is one word in several patients"
