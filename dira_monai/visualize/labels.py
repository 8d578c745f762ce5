"""Pictures of what a fine-tuned network says beside the truth."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from .tiles import BACKGROUND, TITLE, WIDTH, middle_slices

COLORS = ((0, 0, 0), (230, 60, 60), (60, 170, 240), (250, 200, 40), (90, 200, 90), (190, 90, 220), (250, 140, 40))
OPACITY = 0.45


def center_of(classes: Tensor) -> list[int] | None:
    """Where the middle of all that is not background lies, in voxels; None where there is only background."""
    places = (classes > 0).nonzero().float()
    return None if len(places) == 0 else [round(n) for n in places.mean(dim=0).tolist()]


def paint(image: Tensor, classes: Tensor | None = None, center: Sequence[int] | None = None) -> np.ndarray:
    """A picture, (rows, columns, 3) of 8 bits: an image in [0, 1], and over it the classes in color."""
    gray = middle_slices(image, center).clip(0, 1)[..., None] * np.full(3, 255.0)
    if classes is not None:
        numbers = middle_slices(classes, center).round().astype(int)
        color = np.array(COLORS)[np.where(numbers > 0, (numbers - 1) % (len(COLORS) - 1) + 1, 0)]
        gray = np.where(numbers[..., None] > 0, (1 - OPACITY) * gray + OPACITY * color, gray)
    return gray.round().astype(np.uint8)


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
