"""Pictures of true boxes, predicted boxes and heat maps for a person to look at."""

from collections.abc import Sequence

import nibabel
import numpy as np
from numpy import ndarray
from PIL import Image, ImageDraw

from ...visualize.tiles import Row

GREEN, RED = (0, 255, 0), (255, 40, 40)  # true, predicted
WIDTH = 320  # of a tile, pixels


def overlay(gray: ndarray, heat: ndarray) -> ndarray:
    """An image with a heat map over it, blue to red where it is high and clear where it is 0; in [0, 1].

    MONAI's ``blend_images`` needs matplotlib.

    Args:
        gray: in [0, 1], any shape.
        heat: in [0, 1], the same shape; the result has three channels more, last.
    """
    color = np.stack([1.5 - abs(4 * heat - middle) for middle in (3, 2, 1)], axis=-1).clip(0, 1)
    opacity = 0.6 * np.sqrt(heat)[..., None]
    return (1 - opacity) * gray[..., None] + opacity * color


def face_viewer(array: ndarray, affine: ndarray) -> tuple[ndarray, ndarray]:
    """An image turned as radiologists look at it, and how its axes were turned.

    Volumes come out in LPS orientation, so that a transposed slice of the last axis is axial with the patient's right
    on the left side and anterior on top. 2D images are upright when transposed, as MONAI's readers give them.

    Args:
        array: shape (*spatial).
        affine: from voxels to mm in RAS, of volumes.

    Returns:
        The array, and for each axis of the file, which one it became and whether it was kept (1) or flipped (-1).
    """
    orientation = np.array([[axis, 1] for axis in range(array.ndim)])
    if array.ndim == 3:  # a picture has no patient's axes
        own, wanted = nibabel.io_orientation(affine), nibabel.orientations.axcodes2ornt("LPS")
        orientation = nibabel.orientations.ornt_transform(own, wanted).astype(int)
    return nibabel.orientations.apply_orientation(array, orientation), orientation


def turn_boxes(boxes: ndarray, shape: Sequence[int], orientation: ndarray) -> ndarray:
    """Boxes in the axes of ``face_viewer``; shape (N, 2 spatial_dims).

    Args:
        boxes: in the axes of the file.
        shape: of the file.
        orientation: what ``face_viewer`` gave.
    """
    low, high = np.split(boxes, 2, axis=1)
    turned_low, turned_high = np.empty_like(low), np.empty_like(high)
    for axis, (new, sign) in enumerate(orientation):
        ends = (low[:, axis], high[:, axis])
        turned_low[:, new], turned_high[:, new] = ends if sign > 0 else (shape[axis] - ends[1], shape[axis] - ends[0])
    return np.hstack([turned_low, turned_high])


def draw_boxes(
    image: ndarray, heat: ndarray, truth: ndarray, predicted: ndarray, affine: ndarray, caption: str = ""
) -> Row:
    """One row: the image with true (green) and predicted (red) boxes, beside it the same with the heat map.

    Of a volume, the axial slice through the center of the first true box.

    Args:
        image: shape (*spatial); its percentiles 1 and 99 become black and white.
        heat: in [0, 1], shape (*spatial).
        truth: boxes, shape (N, 2 spatial_dims), N at least 1.
        predicted: boxes, shape (M, 2 spatial_dims).
        affine: of the file, from voxels to mm in RAS.
        caption: line of text above.
    """
    low, high = np.percentile(image, [1, 99])
    gray, orientation = face_viewer(((image - low) / max(high - low, 1e-12)).clip(0, 1), affine)
    turned, _ = face_viewer(heat, affine)
    boxes = [turn_boxes(kind, image.shape, orientation) for kind in (truth, predicted)]
    starts, ends = np.split(boxes[0][0], 2)
    depth = int(np.append((starts + ends) / 2, 0.5)[2])  # a picture is one slice
    gray, turned = (array.reshape(*array.shape[:2], -1)[..., depth].T for array in (gray, turned))
    spacing = np.empty(image.ndim)
    spacing[orientation[:, 0]] = np.linalg.norm(np.asarray(affine)[:-1, : image.ndim], axis=0)
    zoom = WIDTH / (gray.shape[1] * spacing[0]) * spacing  # pixels a voxel
    size = (WIDTH, max(1, round(gray.shape[0] * zoom[1])))
    tiles = []
    for picture in (overlay(gray, np.zeros_like(turned)), overlay(gray, turned)):
        tile = Image.fromarray((picture * 255).round().astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
        for kind, color in zip(boxes, (GREEN, RED), strict=True):
            _outline(tile, kind, depth, zoom, color)
        tiles.append(tile)
    return Row(tiles, [[caption]])


def _outline(tile: Image.Image, boxes: ndarray, depth: int, zoom: ndarray, color: tuple[int, int, int]) -> None:
    draw = ImageDraw.Draw(tile)
    for low, high in (np.split(box, 2) for box in boxes):
        if (low[2:] <= depth + 0.5).all() and (depth + 0.5 < high[2:]).all():
            (left, top), (right, bottom) = low[:2] * zoom[:2], high[:2] * zoom[:2]
            draw.rectangle((left, top, max(right - 1, left), max(bottom - 1, top)), outline=color, width=2)
