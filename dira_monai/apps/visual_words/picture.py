"""A picture of visual words, so that a person can see whether a word is the same anatomy in all its patients."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ...transforms.views import to_unit
from ...visualize.tiles import Row, draw_grid, make_tile, middle_slices
from .dataset import WordDataset


def spread(count: int, wanted: int) -> list[int]:
    """At most ``wanted`` numbers below ``count``, evenly spread from the first to the last."""
    return sorted({round(position) for position in np.linspace(0, count - 1, min(wanted, count)).tolist()})


def draw_words(
    words_dir: str | Path, rows: int = 6, training: int = 4, validation: int = 2, width: int = 192
) -> Image.Image:
    """A table of cubes of the patch's size: a row for each of some words, a column for each of some patients.

    Training patients come first, from the nearest (the reference itself) to the farthest neighbor, then likewise
    validation patients. Volumes are shown as three slices through their middle, see ``middle_slices``.

    Args:
        words_dir: folder of the command ``visual-words``.
        rows: words, evenly spread over all.
        training: training patients.
        validation: validation patients.
        width: least width of a tile, pixels.
    """
    splits = {name: WordDataset(words_dir, name) for name in ("training", "validation")}
    words = splits["training"].words["words"]
    table = []
    for number in spread(len(words), rows):
        tiles, titles = list[Image.Image](), list[str]()
        for (name, data), wanted in zip(splits.items(), (training, validation), strict=True):
            neighbors = words[number][name]
            for rank in spread(len(neighbors), wanted):
                tiles.append(make_tile(_cube(data, number, neighbors[rank]), width))
                titles.append(f"{name} {rank + 1}: {data.words[name]['patients'][neighbors[rank]]}")
        table.append(Row(tiles, [[f"word {number}"], titles]))
    return draw_grid(table)


def _cube(data: WordDataset, word: int, patient: int) -> np.ndarray:
    index = int(np.flatnonzero((data.rows[:, :3] == (patient, word, 0)).all(axis=1))[0])
    return middle_slices(to_unit(torch.from_numpy(data.array[index].copy()))[0])
