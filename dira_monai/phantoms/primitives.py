"""Random geometric primitives painted into images, with the class of each voxel, in 2D and 3D: formulas and a seed."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy import ndarray
from scipy.ndimage import gaussian_filter

from .anatomy import generator

REACH = 1.4  # distance from the middle of the farthest point of any shape, in half-axes


def _length(parts: ndarray) -> ndarray:
    return np.sqrt(np.square(parts).sum(0))


def _tube(u: ndarray) -> ndarray:
    bent = np.concatenate([u[:1] + 0.6 * np.square(u[-1:]) - 0.3, u[1:-1]])
    return (_length(bent) < 0.25) & (abs(u[-1]) < 1)


SHAPES: dict[str, Callable[[ndarray], ndarray]] = {  # inside or not, of places in half-axes from the middle, (d, *grid)
    "ellipsoid": lambda u: _length(u) < 1,
    "box": lambda u: abs(u).max(0) < 0.8,
    "octahedron": lambda u: abs(u).sum(0) < 1.2,
    "cone": lambda u: (_length(u[:-1]) < 0.45 * (0.9 - u[-1])) & (u[-1] > -0.9),
    "shell": lambda u: abs(_length(u) - 0.8) < 0.2,
    "tube": _tube,
    "lobes": lambda u: _length(u) < 0.65 + 0.35 * np.cos(4 * np.arctan2(u[1], u[0])),
    "cross": lambda u: (np.partition(abs(u), -2, axis=0)[-2] < 0.3) & (abs(u).max(0) < 1),
}


def draw_primitives(
    seed: int | Sequence[int],
    shape: Sequence[int],
    count: Sequence[int] = (6, 20),
    size: Sequence[float] = (0.08, 0.4),
    behind: ndarray | None = None,
) -> tuple[ndarray, ndarray]:
    """An image with primitives, and its classes: 0 the background, then the number of the shape in ``SHAPES``, from 1.

    After PrimGeoSeg (Tadokoro et al., BMVC 2023, https://arxiv.org/abs/2401.03665). Each primitive has a shape, place,
    turn, half-axes, gray value and texture of its own; some let shine through what lies behind, and where they overlap
    the later one counts. Edges are blurred, then come a bias field and noise.

    Args:
        seed: one or several integers of at least 0.
        shape: channels, which have gray values of their own, and voxels of two or three axes.
        count: least and largest number of primitives, from 1.
        size: least and largest half-axis before it is stretched, as part of the geometric mean of the axes, in (0, 1].
        behind: what they are painted on, in [0, 1], of ``shape``; None: a gray that varies smoothly.

    Returns:
        Gray values, float32 in [0, 1], of ``shape``, and classes, uint8, (*spatial).
    """
    rng = generator(seed, 0)
    channels, *axes = shape
    dims, length = len(axes), float(np.exp(np.log(axes).mean()))
    place = np.stack(np.meshgrid(*(np.arange(n, dtype=np.float32) for n in axes), indexing="ij"))
    plain = rng.uniform(size=(channels, *[1] * dims)) + rng.uniform(0, 0.1) * _waves(rng, place / length, 2)
    image = np.array(plain if behind is None else behind, np.float32)
    classes, levels = np.zeros(axes, np.uint8), image.reshape(channels, -1).mean(1, keepdims=True)
    number = int(rng.integers(count[0], count[1] + 1))
    turns = np.linalg.qr(rng.normal(size=(number, dims, dims)))[0]
    for turn in turns:
        kind, middle = int(rng.integers(len(SHAPES))), rng.uniform(0, axes)
        half = length * np.exp(rng.uniform(*np.log(size)) + rng.uniform(-0.4, 0.4, dims))
        value = (levels + 0.1 + 0.8 * rng.uniform(size=levels.shape)) % 1  # 0.1 from the background's, at least
        texture, share = rng.uniform(0, 0.15), min(1.0, rng.uniform(0.5, 1.5))
        box = tuple(slice(max(0, int(m - REACH * max(half))), int(m + REACH * max(half)) + 1) for m in middle)
        moved = place[(slice(None), *box)] - middle.astype(np.float32).reshape(-1, *[1] * dims)
        inside = list(SHAPES.values())[kind](np.tensordot((turn / half).T.astype(np.float32), moved, 1))
        under, paint = image[(slice(None), *box)], value + texture * _waves(rng, moved[:, inside] / length, 6)
        under[:, inside] += np.float32(share) * (paint - under[:, inside])
        classes[box][inside] = kind + 1
    image = gaussian_filter(image, [0, *[rng.uniform(0.3, 0.8)] * dims], mode="nearest")
    image *= np.exp(np.float32(rng.uniform(0, 0.3)) * _waves(rng, place / length, 0.6))
    image += np.float32(rng.uniform(0, 0.05)) * rng.standard_normal(image.shape, np.float32)
    return image.clip(0, 1), classes


def _waves(rng: np.random.Generator, place: ndarray, frequency: float, count: int = 3) -> ndarray:
    """A smooth random field of variance 1 at places (d, *grid): cosines of random directions, float32, (*grid)."""
    field = np.zeros(place.shape[1:], np.float32)
    for direction in rng.normal(size=(count, len(place))) * (2 * np.pi * frequency / np.sqrt(len(place))):
        field += np.cos(np.tensordot(direction.astype(np.float32), place, 1) + np.float32(rng.uniform(0, 2 * np.pi)))
    return field * np.float32(np.sqrt(2 / count))
