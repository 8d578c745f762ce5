"""Where the frames of a multi-frame DICOM file lie (enhanced CT, MR and PET); the size of pixels of ultrasound."""

from pathlib import Path
from typing import Any

import numpy as np

from ..utils.errors import InputError
from .geometry import Slices
from .headers import read_tags

SHARED = (  # what must be the same in all frames
    ("PixelValueTransformationSequence", "RescaleSlope"),
    ("PixelValueTransformationSequence", "RescaleIntercept"),
    ("PixelMeasuresSequence", "PixelSpacing"),
)


def read_frames(file: Path) -> tuple[np.ndarray, Slices | None]:
    """The numbers of the frames in rising order along their normal, and where they then lie.

    ITK's reader takes the frames in the order of the file and, where their gaps differ, a spacing of 1 mm; so pydicom
    reads the functional groups. Frames without positions (an ultrasound film) keep their order, with None.

    Raises:
        InputError: if frames are not parallel, have different rescale values or pixel spacings or in part no position,
            or if pydicom is missing.
    """
    data = read_tags(file)
    frames = data.get("PerFrameFunctionalGroupsSequence") or []
    shared = (data.get("SharedFunctionalGroupsSequence") or [None])[0]

    def values(group: str, tag: str) -> list[Any]:
        return [frame_value(frame, shared, group, tag) for frame in frames]

    positions = values("PlanePositionSequence", "ImagePositionPatient")
    orientations = values("PlaneOrientationSequence", "ImageOrientationPatient")
    spacings = values("PixelMeasuresSequence", "PixelSpacing")
    without = [value is None for value in (*positions, *orientations, *spacings)]
    if all(without[: len(positions)]):
        return np.arange(int(data.get("NumberOfFrames", 1))), None
    if any(without):
        raise InputError(f"{file} holds frames without position, orientation or pixel spacing beside others.")
    if np.ptp(np.array(orientations, float), axis=0).max() > 0.01:
        raise InputError(f"{file} holds frames of different orientations, which make no volume.")
    for group, tag in SHARED:
        if len(found := {str(value) for value in values(group, tag)}) > 1:
            raise InputError(f"{file} holds frames of different {tag}: {', '.join(sorted(found)[:4])}.")
    rows_columns = np.array(spacings[0], float)
    slices = Slices(np.array(positions, float), np.array(orientations[0], float), rows_columns[::-1])
    order = np.argsort(slices.offsets[:, 2], kind="stable")
    return order, slices._replace(positions=slices.positions[order])


def read_region_size(file: Path) -> np.ndarray | None:
    """Size of pixels in mm, columns first, by the calibrated regions of an ultrasound image; None where they differ."""
    tag, centimeters = "SequenceOfUltrasoundRegions", 3
    sizes = {
        (abs(float(region.PhysicalDeltaX)) * 10, abs(float(region.PhysicalDeltaY)) * 10)
        for region in read_tags(file, [tag]).get(tag) or []
        if region.PhysicalUnitsXDirection == region.PhysicalUnitsYDirection == centimeters
    }
    return np.array(sizes.pop()) if len(sizes) == 1 else None


def frame_value(frame: Any, shared: Any, group: str, tag: str) -> Any:
    """A value of the functional groups: the frame's own, else the one that all frames share, else None."""
    for item in (frame, shared):
        if item is not None and item.get(group):
            return item.get(group)[0].get(tag)
    return None
