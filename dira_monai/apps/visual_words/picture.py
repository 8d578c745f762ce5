"""A picture of visual words, so that a person can see whether a word is the same anatomy in all its patients."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from ...transforms.views import to_unit
from ...visualize.tiles import GAP, TITLE, middle_slices
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
    chosen = spread(len(words), rows)
    tiles = dict[tuple[int, int], np.ndarray]()
    titles = dict[tuple[int, int], str]()
    for row, number in enumerate(chosen):
        column = 0
        for (name, data), wanted in zip(splits.items(), (training, validation), strict=True):
            neighbors = words[number][name]
            for rank in spread(len(neighbors), wanted):
                patient = neighbors[rank]
                tiles[row, column] = _tile(data, number, patient)
                titles[row, column] = f"{name} {rank + 1}: {data.words[name]['patients'][patient]}"
                column += 1
    return _table(tiles, titles, [f"word {number}" for number in chosen], width)


def _tile(data: WordDataset, word: int, patient: int) -> np.ndarray:
    index = int(np.flatnonzero((data.rows[:, :3] == (patient, word, 0)).all(axis=1))[0])
    return middle_slices(to_unit(torch.from_numpy(data.array[index].copy()))[0])


def _table(
    tiles: dict[tuple[int, int], np.ndarray], titles: dict[tuple[int, int], str], rows: list[str], width: int
) -> Image.Image:
    zoom = max(1, round(width / tiles[0, 0].shape[1]))
    height, width = (n * zoom for n in tiles[0, 0].shape)
    columns = 1 + max(column for _, column in tiles)
    panel = Image.new("L", (columns * (width + GAP) + GAP, len(rows) * (height + 2 * TITLE + GAP)), 40)
    text = ImageDraw.Draw(panel)
    for row, title in enumerate(rows):
        text.text((GAP, row * (height + 2 * TITLE + GAP) + 4), title, fill=255)
    for (row, column), picture in tiles.items():
        left, top = GAP + column * (width + GAP), row * (height + 2 * TITLE + GAP) + TITLE
        pixels = Image.fromarray((picture.clip(0, 1) * 255).round().astype(np.uint8))
        panel.paste(pixels.resize((width, height), Image.Resampling.NEAREST), (left, top + TITLE))
        fitting = int(width / text.textlength("x"))
        text.text((left, top + 4), titles[row, column][:fitting], fill=200)
    return panel
