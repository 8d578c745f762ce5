"""Where the slices of a volume lie, and their resampling where they are uneven or sheared."""

from typing import NamedTuple

import numpy as np
from monai.data.utils import orientation_ras_lps
from scipy import ndimage

from ..utils.errors import InputError

GAP_TOLERANCE = 0.1  # slice gaps may differ from their median by this part of it
MISSING = 1.9  # a gap of so many times both its neighbors is that of a missing slice
TILT_TOLERANCE = 1.0  # degrees between the stacking direction and the slice normal


class Slices(NamedTuple):
    """Parallel slices in mm and in DICOM's own axes (LPS), in rising order along their normal."""

    positions: np.ndarray  # of the first pixels, shape (slices, 3)
    orientation: np.ndarray  # unit vectors along a row and along a column, shape (6,)
    spacing: np.ndarray  # between columns and between rows

    @property
    def axes(self) -> np.ndarray:
        """Unit vectors along a row, along a column and along the normal, as rows."""
        row, column = self.orientation[:3], self.orientation[3:]
        return np.stack([row, column, np.cross(row, column)])

    @property
    def offsets(self) -> np.ndarray:
        """Of each slice from the first one: along a row, along a column, along the normal; shape (slices, 3)."""
        return (self.positions - self.positions[0]) @ self.axes.T

    @property
    def gaps(self) -> np.ndarray:
        """Distances of neighbors along the normal."""
        return np.diff(self.offsets[:, 2])

    @property
    def uneven(self) -> bool:
        """Whether a gap differs from the median by more than the tolerance."""
        median = np.median(self.gaps)
        return bool((abs(self.gaps - median) > GAP_TOLERANCE * median).any())

    @property
    def tilt(self) -> float:
        """Degrees between the stacking direction and the normal, 0 within the tolerance."""
        sideways = np.linalg.norm(self.offsets[:, :2], axis=1).max()
        angle = float(np.degrees(np.arctan2(sideways, self.offsets[-1, 2])))
        return angle if angle > TILT_TOLERANCE else 0.0

    @property
    def affine(self) -> np.ndarray:
        """From voxels to mm in RAS: gaps all of their mean, a tilt as a shear."""
        return self.affine_of(self.positions[0], (self.positions[-1] - self.positions[0]) / (len(self.positions) - 1))

    def affine_of(self, origin: np.ndarray, step: np.ndarray) -> np.ndarray:
        """From voxels to mm in RAS, for the first voxel and the way between two slices in LPS."""
        affine = np.eye(4)
        affine[:3] = np.stack([*(self.axes[:2] * self.spacing[:, None]), step, origin], axis=1)
        return orientation_ras_lps(affine)


def check_slices(slices: Slices, name: str, resample: bool) -> None:
    """Nothing, where the slices make a volume.

    Raises:
        InputError: if two slices are at one place, if one is missing, or if gaps are uneven and not to be resampled.
    """
    gaps = slices.gaps
    if gaps.min() < 1e-3:
        raise InputError(f"{name}: several slices lie at one position (time points, echoes or directions).")
    neighbors = np.pad(gaps, 1)
    beside = np.maximum(neighbors[:-2], neighbors[2:])
    missing = np.flatnonzero((gaps > MISSING * beside) & (beside > 0))
    if len(missing):
        index = missing[0]
        raise InputError(
            f"{name}: a gap of {gaps[index]:.3g} mm beside gaps of {beside[index]:.3g} mm, where slices are missing."
        )
    if slices.uneven and not resample:
        raise InputError(
            f"{name}: uneven slice gaps of {gaps.min():.3g} to {gaps.max():.3g} mm, which stock MONAI would read as "
            "even ones."
        )


def straighten(array: np.ndarray, slices: Slices) -> tuple[np.ndarray, np.ndarray, str]:
    """The volume on an even, upright grid, its affine in RAS, and what was done, in words.

    Slices are shifted back along their rows and columns, then both neighbors of each new slice are blended (linear
    interpolation). The first and the last slice stay; the step is the one closest to the median gap that fits between
    them. What no slice reached holds the volume's lowest value.

    Args:
        array: columns, rows, slices and perhaps channels.
        slices: where they lie.
    """
    depths, gaps = slices.offsets[:, 2], slices.gaps
    shifts = slices.offsets[:, :2] / slices.spacing if slices.tilt else np.zeros((len(depths), 2))
    low = np.floor(shifts.min(axis=0) + 1e-3).astype(int)
    grown = np.ceil(shifts.max(axis=0) - 1e-3).astype(int) - low
    moved = np.stack([_shift(array[:, :, k], shifts[k] - low, grown, array.min()) for k in range(len(depths))], axis=2)
    steps = round(depths[-1] / float(np.median(gaps)))
    targets = np.linspace(0, depths[-1], steps + 1)
    below = np.clip(np.searchsorted(depths, targets, side="right") - 1, 0, len(gaps) - 1)
    result = np.empty((*moved.shape[:2], len(targets), *moved.shape[3:]), array.dtype)
    for index, (lower, target) in enumerate(zip(below, targets, strict=True)):
        weight = (target - depths[lower]) / gaps[lower]
        result[:, :, index] = _as(moved[:, :, lower] * (1 - weight) + moved[:, :, lower + 1] * weight, array.dtype)
    origin = slices.positions[0] + (low * slices.spacing) @ slices.axes[:2]
    return result, slices.affine_of(origin, slices.axes[2] * depths[-1] / steps), describe(slices, depths[-1] / steps)


def _shift(image: np.ndarray, shift: np.ndarray, grown: np.ndarray, air: float) -> np.ndarray:
    """The image on a larger canvas, moved by so many pixels."""
    canvas = np.full((*(image.shape[:2] + grown), *image.shape[2:]), air, np.result_type(image, np.float32))
    canvas[: image.shape[0], : image.shape[1]] = image
    if shift.any():
        full = (*shift, *(0 for _ in image.shape[2:]))
        canvas = ndimage.shift(canvas, full, order=1, mode="constant", cval=air)
    return _as(canvas, image.dtype)


def _as(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return (values.round() if dtype.kind in "iu" else values).astype(dtype)


def describe(slices: Slices, step: float | None) -> str:
    """What is unusual about the slices, and that it was resampled where a step in mm is given; else empty."""
    notes = []
    if slices.uneven:
        done = f", resampled to {step:.3g} mm" if step else ""
        notes.append(f"uneven slice gaps {slices.gaps.min():.3g} to {slices.gaps.max():.3g} mm{done}")
    if slices.tilt:
        notes.append(f"slices sheared by {slices.tilt:.3g} degrees (gantry tilt){', straightened' if step else ''}")
    return "; ".join(notes)
