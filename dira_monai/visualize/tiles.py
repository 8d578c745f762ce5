"""Pictures in a grid, for a person to look at."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from ..utils.files import atomic_write

NEWEST_PANELS = 10
COLUMNS = ("target", "distorted", "restored", "error")
BACKGROUND = "#282828"
WIDTH = 224  # of a tile, pixels
TITLE = 22  # height of a line of text above the tiles, pixels
GAP = 6  # between tiles, pixels


def middle_slices(image: Tensor, center: Sequence[int] | None = None) -> np.ndarray:
    """One 2D picture of a channel, (rows, columns): a 2D image upright, of a volume three slices.

    Images have their first axis from left to right as MONAI's readers give them. Volumes in RAS orientation are shown
    as radiologists do, the patient's right on the left side: axial beside coronal above sagittal, all through the voxel
    ``center``, by default the middle.
    """
    if image.ndim == 2:
        return image.float().cpu().numpy().T
    x, y, z = center or (n // 2 for n in image.shape)
    planes = (image[:, :, z], image[:, y, :], image[x, :, :])  # before the copy, which is slow of a whole volume
    axial, coronal, sagittal = (plane.float().cpu().numpy().T[::-1, ::-1] for plane in planes)
    height = max(axial.shape[0], coronal.shape[0] + sagittal.shape[0])
    width = max(coronal.shape[1], sagittal.shape[1])
    picture = np.zeros((height, axial.shape[1] + width), dtype=np.float32)
    picture[: axial.shape[0], : axial.shape[1]] = axial
    picture[: coronal.shape[0], axial.shape[1] : axial.shape[1] + coronal.shape[1]] = coronal
    below = slice(coronal.shape[0], coronal.shape[0] + sagittal.shape[0])
    picture[below, axial.shape[1] : axial.shape[1] + sagittal.shape[1]] = sagittal
    return picture


class Row(NamedTuple):
    """Pictures beside each other, and lines above them, each a text for each column, or for the first ones."""

    tiles: Sequence[Image.Image]
    lines: Sequence[Sequence[str]] = ()


def make_tile(picture: np.ndarray, width: int = WIDTH) -> Image.Image:
    """A picture, enlarged by the whole number that makes it about ``width`` pixels wide.

    It is in [0, 1], or of 8 bits, (rows, columns) or (rows, columns, 3).
    """
    if picture.dtype != np.uint8:
        picture = (picture.clip(0, 1) * 255).round().astype(np.uint8)
    zoom = max(1, round(width / picture.shape[1]))
    size = (picture.shape[1] * zoom, picture.shape[0] * zoom)
    return Image.fromarray(picture).resize(size, Image.Resampling.NEAREST)


def draw_grid(rows: Sequence[Row]) -> Image.Image:
    """One picture of several rows; all columns are as wide as the widest tile, and texts of several columns are cut."""
    width = max(tile.width for row in rows for tile in row.tiles)
    heights = [max(tile.height for tile in row.tiles) for row in rows]
    lefts = [GAP + column * (width + GAP) for column in range(max(len(row.tiles) for row in rows) + 1)]
    height = sum(heights) + sum(TITLE * len(row.lines) + GAP for row in rows)
    mode = "RGB" if any(tile.mode == "RGB" for row in rows for tile in row.tiles) else "L"
    grid = Image.new(mode, (lefts[-1], height), BACKGROUND)
    draw = ImageDraw.Draw(grid)
    fitting = int(width / draw.textlength("x"))  # letters
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for line in row.lines:
            for left, text in zip(lefts, line, strict=False):
                draw.text((left, top + 4), text if len(line) == 1 else text[:fitting], fill="white")
            top += TITLE
        for left, tile in zip(lefts, row.tiles, strict=False):
            grid.paste(tile, (left, top))
        top += height + GAP
    return grid


def draw_panel(
    target: Tensor, distorted: Tensor, restored: Tensor, caption: str = "", width: int = WIDTH
) -> Image.Image:
    """A row for each sample, under a caption: target, distorted (what the network saw), restored, the absolute error.

    Images in [0, 1] have the shape (B, C, *spatial); three channels are shown in color, else the first.
    """

    def tile(image: Tensor) -> Image.Image:
        slices = [middle_slices(channel) for channel in image]
        return make_tile(np.stack(slices, axis=-1) if len(slices) == 3 else slices[0], width)

    samples = zip(target, distorted, restored, (restored - target).abs(), strict=True)
    rows = [Row([tile(image) for image in sample]) for sample in samples]
    return draw_grid([Row(rows[0].tiles, [[caption], COLUMNS]), *rows[1:]])


def save_panel(panel: Image.Image, output_dir: Path, epoch: int) -> None:
    """Write a picture as ``panel.png``, the newest, and as that of its epoch in ``panels``.

    Of these stay the newest 10, and the 1st, 2nd, 4th, 8th, ... of all, which ``report.html`` shows.
    """
    folder = output_dir / "panels"
    for path in (folder / f"epoch_{epoch:04d}.png", output_dir / "panel.png"):
        save_picture(panel, path)
    older = sorted((int(path.stem[6:]), path) for path in folder.glob("epoch_*.png"))[:-NEWEST_PANELS]
    for number, path in older:
        place, off_grid = divmod(number, older[0][0])  # validations come at equal intervals, but the last
        if off_grid or place & (place - 1):
            path.unlink()


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a picture as PNG, whole or not at all."""
    with atomic_write(path) as file:
        picture.save(file, format="PNG")
