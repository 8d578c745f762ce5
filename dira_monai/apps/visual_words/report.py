"""What a person should know of visual words: a picture, to see whether a word is the same anatomy in all, and lines."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ...transforms.views import to_unit
from ...visualize.tiles import Row, draw_grid, make_tile, middle_slices
from .dataset import SPLITS, WordDataset


def spread(count: int, wanted: int) -> list[int]:
    """At most ``wanted`` numbers below ``count``, evenly spread from the first to the last."""
    return sorted({round(position) for position in np.linspace(0, count - 1, min(wanted, count)).tolist()})


def draw_words(
    words_dir: str | Path, rows: int = 6, training: int = 4, validation: int = 2, width: int = 192
) -> Image.Image:
    """A table of cubes of the patch's size: a row for each of some words, a column for each of some patients.

    Words are evenly spread over all. Training patients come first, from the nearest (the reference itself) to the
    farthest neighbor, then likewise validation patients. Volumes are shown as in ``middle_slices``. ``width`` is the
    least of a tile, in pixels.
    """
    splits = {split: WordDataset(words_dir, split) for split in SPLITS}
    words = splits["training"].words["words"]
    table = []
    for number in spread(len(words), rows):
        tiles, titles = list[Image.Image](), list[str]()
        for (split, data), wanted in zip(splits.items(), (training, validation), strict=True):
            neighbors = words[number][split]
            for rank in spread(len(neighbors), wanted):
                tiles.append(make_tile(_cube(data, number, neighbors[rank]), width))
                titles.append(f"{split} {rank + 1}: {data.words[split]['patients'][neighbors[rank]]}")
        table.append(Row(tiles, [[f"word {number}"], titles]))
    return draw_grid(table)


def _cube(data: WordDataset, word: int, patient: int) -> np.ndarray:
    index = int(np.flatnonzero((data.rows[:, :3] == (patient, word, 0)).all(axis=1))[0])
    return middle_slices(to_unit(torch.from_numpy(data.array[index].copy()))[0])


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
