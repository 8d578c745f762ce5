"""Pictures of restorations for a person to look at."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from ..utils.files import atomic_write

COLUMNS = ("target", "distorted", "restored", "error")


TITLE = 22  # height of the line of text above the tiles, pixels


GAP = 6  # between tiles, pixels


def middle_slices(image: Tensor, center: Sequence[int] | None = None) -> np.ndarray:
    """One 2D picture of a channel, (rows, columns): a 2D image upright, of a volume three slices.

    Images have their first axis from left to right as MONAI's readers give them. Volumes in RAS orientation are shown
    as radiologists do, the patient's right on the left side: axial beside coronal above sagittal.

    Args:
        image: one channel, (*spatial).
        center: voxel that the slices go through; by default the middle.
    """
    array = image.float().cpu().numpy()
    if array.ndim == 2:
        return array.T
    x, y, z = center or (n // 2 for n in array.shape)
    axial, coronal, sagittal = (s.T[::-1, ::-1] for s in (array[:, :, z], array[:, y, :], array[x, :, :]))
    height = max(axial.shape[0], coronal.shape[0] + sagittal.shape[0])
    width = max(coronal.shape[1], sagittal.shape[1])
    picture = np.zeros((height, axial.shape[1] + width), dtype=np.float32)
    picture[: axial.shape[0], : axial.shape[1]] = axial
    picture[: coronal.shape[0], axial.shape[1] : axial.shape[1] + coronal.shape[1]] = coronal
    below = slice(coronal.shape[0], coronal.shape[0] + sagittal.shape[0])
    picture[below, axial.shape[1] : axial.shape[1] + sagittal.shape[1]] = sagittal
    return picture


def _picture(image: Tensor) -> np.ndarray:
    """The picture of an image (C, *spatial): of three channels (rows, columns, 3), else of the first one."""
    slices = [middle_slices(channel) for channel in image]
    return np.stack(slices, axis=-1) if len(slices) == 3 else slices[0]


def draw_panel(target: Tensor, distorted: Tensor, restored: Tensor, caption: str = "", width: int = 224) -> Image.Image:
    """A table of pictures, a row for each sample: target, distorted, restored, and the absolute error.

    Args:
        target: images in [0, 1], shape (B, C, *spatial); three channels are shown in color, else the first.
        distorted: what the network saw.
        restored: what it made of it.
        caption: line of text at the top.
        width: least width of a tile, pixels.
    """
    samples = [(t, d, r, (r - t).abs()) for t, d, r in zip(target, distorted, restored, strict=True)]
    tiles = [[_picture(image) for image in sample] for sample in samples]
    zoom = max(1, round(width / tiles[0][0].shape[1]))
    height, width = (n * zoom for n in tiles[0][0].shape[:2])
    size = (len(COLUMNS) * (width + GAP) + GAP, 2 * TITLE + len(tiles) * (height + GAP))
    panel = Image.new("RGB" if tiles[0][0].ndim == 3 else "L", size, "#282828")
    text = ImageDraw.Draw(panel)
    text.text((GAP, 4), caption, fill="white")
    for column, name in enumerate(COLUMNS):
        text.text((GAP + column * (width + GAP), TITLE), name, fill="white")
        for row, sample in enumerate(tiles):
            pixels = (sample[column].clip(0, 1) * 255).round().astype(np.uint8)
            tile = Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST)
            panel.paste(tile, (GAP + column * (width + GAP), 2 * TITLE + row * (height + GAP)))
    return panel


def save_panel(panel: Image.Image, output_dir: Path, epoch: int) -> None:
    """Write a picture as ``panel.png``, the newest, and as that of its epoch in ``panels``."""
    for path in (output_dir / "panels" / f"epoch_{epoch:04d}.png", output_dir / "panel.png"):
        with atomic_write(path) as file:
            panel.save(file, format="PNG")
