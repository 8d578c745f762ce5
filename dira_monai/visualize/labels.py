"""Pictures of what a fine-tuned network says, alone or beside the truth."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from .tiles import BACKGROUND, TITLE, WIDTH, Row, draw_grid, make_tile, middle_slices

COLORS = ((0, 0, 0), (230, 60, 60), (60, 170, 240), (250, 200, 40), (90, 200, 90), (190, 90, 220), (250, 140, 40))
OPACITY = 0.45


def center_of(classes: Tensor) -> list[int] | None:
    """Where the middle of all that is not background lies, in voxels; None where there is only background."""
    found = classes > 0
    total = int(found.sum())
    if total == 0:
        return None
    others = [[other for other in range(found.ndim) if other != axis] for axis in range(found.ndim)]
    counts = [found.sum(dim=axes).double().cpu() for axes in others]  # a list of all places would take long
    return [round(float(count @ torch.arange(len(count), dtype=torch.float64)) / total) for count in counts]


def paint(image: Tensor, classes: Tensor | None = None, center: Sequence[int] | None = None) -> np.ndarray:
    """A picture, (rows, columns, 3) of 8 bits: an image in [0, 1], and over it the classes in color."""
    gray = middle_slices(image, center).clip(0, 1)[..., None] * np.full(3, 255.0)
    if classes is not None:
        numbers = middle_slices(classes, center).round().astype(int)
        return _blend(gray, numbers)
    return gray.round().astype(np.uint8)


def outline(picture: np.ndarray, truth: np.ndarray, pred: np.ndarray, least: int = WIDTH) -> np.ndarray:
    """A picture with the prediction in color and a line around the truth, in the color of its class.

    Args:
        picture: 8 bits, (rows, columns, 3).
        truth: class of each pixel, (rows, columns); 0 is background.
        pred: the same of the prediction.
        least: the picture is enlarged by the whole number that makes its shorter side about as long, in pixels.

    Returns:
        8 bits, (rows, columns, 3).
    """
    zoom = max(1, round(least / min(truth.shape)))
    picture, truth, pred = (a.repeat(zoom, 0).repeat(zoom, 1) for a in (picture, truth, pred))
    painted = _blend(picture, pred)
    edge = np.zeros(truth.shape, dtype=bool)
    for axis in (0, 1):
        differs = np.diff(truth, axis=axis) != 0
        before = [slice(None, -1) if a == axis else slice(None) for a in (0, 1)]
        behind = [slice(1, None) if a == axis else slice(None) for a in (0, 1)]
        edge[tuple(before)] |= differs
        edge[tuple(behind)] |= differs
    line = edge & (truth > 0)
    painted[line] = _colors(truth)[line]
    return painted


def _colors(classes: np.ndarray) -> np.ndarray:
    """The color of each pixel's class, (rows, columns, 3); the colors repeat where there are more classes."""
    return np.array(COLORS)[np.where(classes > 0, (classes - 1) % (len(COLORS) - 1) + 1, 0)]


def _blend(picture: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The picture with the classes in color over it, 8 bits."""
    blended = np.where(classes[..., None] > 0, (1 - OPACITY) * picture + OPACITY * _colors(classes), picture)
    return blended.round().astype(np.uint8)


def draw_overlay(image: Tensor, classes: Tensor, names: Sequence[str], caption: str = "") -> Image.Image:
    """An image, the same with the classes over it in color, and the names of these.

    Args:
        image: one channel in [0, 1], (*spatial); a volume in RAS is cut through the middle of its classes.
        classes: their numbers, of the same shape; 0 is the background.
        names: of all classes, background first.
        caption: line of text at the top.
    """
    center = center_of(classes)
    legend = Image.new("RGB", (WIDTH, max(1, len(names)) * TITLE), BACKGROUND)
    draw = ImageDraw.Draw(legend)
    for number, name in enumerate(names[1:], 1):
        top, count = (number - 1) * TITLE, int((classes == number).sum())
        draw.rectangle((0, top, 12, top + 12), fill=COLORS[(number - 1) % (len(COLORS) - 1) + 1])
        draw.text((18, top), f"{name} {count}", fill=(255, 255, 255))
    tiles = [make_tile(paint(image, shown, center)) for shown in (None, classes)]
    return draw_grid([Row([*tiles, legend], [[caption], ("image", "prediction", "voxels")])])


def draw_bars(names: Sequence[str], truth: Tensor, pred: Tensor, width: int = WIDTH) -> Image.Image:
    """A bar for the probability of each class; its name is marked "+" where present, "?" where not known."""
    bars = Image.new("RGB", (width, max(1, len(names)) * (TITLE + 8)), BACKGROUND)
    draw = ImageDraw.Draw(bars)
    for row, (name, value, p) in enumerate(zip(names, truth.tolist(), pred.tolist(), strict=True)):
        top, present = row * (TITLE + 8), value == 1
        draw.rectangle((0, top + 16, round(p * (width - 1)), top + 26), fill=COLORS[4] if present else COLORS[2])
        mark = "+" if present else "?" if value != value else " "
        draw.text((0, top + 2), f"{mark} {name} {p:.2f}", fill=(255, 255, 255))
    return bars
