"""Segments of DICOM segmentations (SEG), put on the grid of the series that they belong to."""

from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...dicom.frames import frame_value
from ...dicom.geometry import Slices
from ...dicom.headers import read_tags
from ...utils.errors import InputError
from ...utils.optional_import import import_package
from .grid import SAME_GRID

OPEN = 4  # files whose pixels are kept, one a thread, since their segments are asked for one by one


class Segments(NamedTuple):
    """What a segmentation holds."""

    series: set[str]  # UIDs of the series that it refers to
    numbers: dict[str, list[int]]  # of the segments of each label


def find_segments(file: Path) -> Segments | None:
    """What a file holds, without pixels; None where it is no segmentation."""
    try:
        data = read_tags(file, ["Modality", "SegmentSequence", "ReferencedSeriesSequence"])
    except Exception:  # whatever pydicom raises of a damaged file, which is told where it is read
        return None
    if data.get("Modality") != "SEG":
        return None
    numbers: dict[str, list[int]] = defaultdict(list)
    for segment in data.get("SegmentSequence") or []:
        if segment.SegmentNumber > 0:  # 0 is the background of a label map
            numbers[str(segment.SegmentLabel).strip()].append(int(segment.SegmentNumber))
    series = {str(item.SeriesInstanceUID) for item in data.get("ReferencedSeriesSequence") or []}
    return Segments(series, dict(numbers))


def read_segments(file: Path, numbers: Sequence[int], shape: Sequence[int], affine: np.ndarray) -> np.ndarray:
    """Whether each voxel of a volume is in one of the segments; of probabilities those above one half are.

    Each frame lies where its own position, orientation and pixel spacing say.

    Args:
        file: of the segmentation.
        numbers: of the segments.
        shape: voxels of the volume.
        affine: of the volume, from voxels to mm in RAS.

    Raises:
        InputError: if it cannot be decoded, or if a frame lies off the grid of the volume.
    """
    data, pixels = _load(file, file.stat().st_mtime_ns)
    shared = (data.get("SharedFunctionalGroupsSequence") or [None])[0]
    most = 1 if data.SegmentationType == "BINARY" else int(data.get("MaximumFractionalValue") or 1)
    mask, to_voxel = np.zeros(shape, bool), np.linalg.inv(affine)
    for frame, values in zip(data.PerFrameFunctionalGroupsSequence, pixels, strict=True):
        number = frame_value(frame, shared, "SegmentIdentificationSequence", "ReferencedSegmentNumber")
        if data.SegmentationType == "LABELMAP":
            inside = np.isin(values, numbers)
        else:
            inside = (2 * values.astype(int) > most) & (number in numbers)
        if inside.any():
            mask[_find_voxels(inside, to_voxel @ _plane(frame, shared), shape, file)] = True
    return mask


@lru_cache(maxsize=OPEN)
def _load(file: Path, _changed: int) -> tuple[Any, np.ndarray]:
    data = import_package("pydicom", file).dcmread(file)
    try:
        return data, data.pixel_array.reshape(-1, data.Rows, data.Columns)
    except Exception as error:  # whatever its decoders raise
        raise InputError(f"{file} cannot be read: {str(error).splitlines()[0].rstrip('.')}.") from error


def _plane(frame: Any, shared: Any) -> np.ndarray:
    """From column, row and 0 of a frame to mm in RAS."""
    position = frame_value(frame, shared, "PlanePositionSequence", "ImagePositionPatient")
    orientation = frame_value(frame, shared, "PlaneOrientationSequence", "ImageOrientationPatient")
    spacing = frame_value(frame, shared, "PixelMeasuresSequence", "PixelSpacing")
    origin = np.array(position, float)
    slices = Slices(origin[None], np.array(orientation, float), np.array(spacing, float)[::-1])
    return slices.affine_of(origin, slices.axes[2])


def _find_voxels(inside: np.ndarray, plane: np.ndarray, shape: Sequence[int], file: Path) -> tuple[np.ndarray, ...]:
    """The voxels of the pixels of a frame that are inside."""
    rows, columns = np.nonzero(inside)
    places = plane[:3, :2] @ np.stack([columns, rows]) + plane[:3, 3:]
    voxels = np.rint(places).astype(int)
    size = np.linalg.norm(plane[:3, :2], axis=0)  # of a pixel, in voxels
    beside = max(float(abs(places - voxels).max()), float(abs(size - 1).max() * max(inside.shape)))
    if beside > SAME_GRID or (voxels < 0).any() or (voxels >= np.array(shape)[:, None]).any():
        raise InputError(f"{file} lies on another grid than its series, by {beside:.2g} voxels, or beyond its edges.")
    return tuple(voxels)
