"""Pictures of true boxes, predicted boxes and heat maps for a person to look at."""

import numpy as np
from nibabel.affines import apply_affine
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from numpy import ndarray
from PIL import Image, ImageDraw

from ...visualize.tiles import Row

GREEN, RED = (0, 255, 0), (255, 40, 40)  # true, predicted
WIDTH = 320  # of a tile, pixels


def overlay(gray: ndarray, heat: ndarray) -> ndarray:
    """An image in [0, 1] with a heat map over it, blue to red where it is high and clear where it is 0.

    The result has three channels more, last. MONAI's ``blend_images`` needs matplotlib.
    """
    color = np.stack([1.5 - abs(4 * heat - middle) for middle in (3, 2, 1)], axis=-1).clip(0, 1)
    opacity = 0.6 * np.sqrt(heat)[..., None]
    return (1 - opacity) * gray[..., None] + opacity * color


def face_viewer(array: ndarray, affine: ndarray) -> tuple[ndarray, ndarray]:
    """An image turned as radiologists look at it, and the affine from its voxels to those of the turned one.

    Volumes come out in LPS orientation, so that a transposed slice of the last axis is axial with the patient's right
    on the left side and anterior on top. 2D images are upright when transposed, as MONAI's readers give them.
    """
    if array.ndim == 2:  # a picture has no patient's axes
        return array, np.eye(3)
    orientation = ornt_transform(io_orientation(affine), axcodes2ornt("LPS"))
    return apply_orientation(array, orientation), np.linalg.inv(inv_ornt_aff(orientation, array.shape))


def turn_boxes(boxes: ndarray, turn: ndarray) -> ndarray:
    """Boxes (N, 2 spatial_dims) in the axes of ``face_viewer``, by its affine."""
    ends = np.stack(np.split(boxes, 2, axis=1), axis=1)  # of no boxes too
    turned = apply_affine(turn, ends - 0.5) + 0.5  # half a voxel beside centers
    return np.sort(turned, axis=1).reshape(boxes.shape)


def draw_boxes(
    image: ndarray, heat: ndarray, truth: ndarray, predicted: ndarray, affine: ndarray, caption: str = ""
) -> Row:
    """One row: the image with true (green) and predicted (red) boxes, beside it the same with the heat map.

    Of a volume, the axial slice through the center of the first true box. The image's percentiles 1 and 99 become black
    and white.

    Args:
        image: shape (*spatial).
        heat: in [0, 1], same shape.
        truth: boxes, at least one.
        predicted: boxes.
        affine: of the file, from voxels to mm in RAS.
        caption: line of text above.
    """
    low, high = np.percentile(image, [1, 99])
    gray, turn = face_viewer(((image - low) / max(high - low, 1e-12)).clip(0, 1), affine)
    turned, _ = face_viewer(heat, affine)
    boxes = [turn_boxes(kind, turn) for kind in (truth, predicted)]
    center = boxes[0][0].reshape(2, -1).mean(axis=0)
    depth = int(np.append(center, 0.5)[2])  # a picture is one slice
    gray, turned = (array.reshape(*array.shape[:2], -1)[..., depth].T for array in (gray, turned))
    spacing = np.linalg.norm(np.asarray(affine)[:-1, : image.ndim] @ turn[:-1, :-1].T, axis=0)
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
