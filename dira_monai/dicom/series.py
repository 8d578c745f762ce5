"""DICOM series: one volume from its files.

SimpleITK reads them (JPEG, JPEG-LS, JPEG 2000, HTJ2K and RLE need nothing more); it is imported with the first file.
"""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from monai.data.utils import orientation_ras_lps

from ..utils.errors import InputError
from ..utils.optional_import import import_package
from .frames import read_frames, read_region_size
from .geometry import Slices, check_slices, describe, straighten
from .headers import IMAGE_TYPE, NO_IMAGES, DicomHeader, are_parallel, find_misread, read_header, read_tags, unreadable

# what a slice of several must have: fields of its header, and their tags
PLACE = {"position": "ImagePositionPatient", "orientation": "ImageOrientationPatient", "spacing": "PixelSpacing"}


def read_series(files: Sequence[Path], resample: bool = True) -> tuple[np.ndarray, dict]:
    """One volume from its files in any order, axes (x, y, z) and channels last, with MONAI's meta data (affine in RAS).

    Stored values are rescaled (CT: HU), and MONOCHROME1 is turned round so that high values are bright. Uneven gaps and
    a gantry tilt are resampled to an even, upright grid; the entry ``note`` says either.

    Args:
        files: the slices, or one multi-frame file.
        resample: False: a tilt stays as a shear in the affine, uneven gaps and unsorted frames are refused, and frames
            that fall along their normal do so in the volume, so that voxels are those that stock MONAI reads by itk.

    Raises:
        InputError: if a file is no DICOM image or compressed in an unknown way, if one of several has no place in
            space, if slices are missing, share a position or are not parallel, or if a package is missing; without
            ``resample`` also if gaps are uneven or frames unsorted.
    """
    sitk = import_package("SimpleITK", files[0])
    headers = sorted((_need_header(file) for file in files), key=lambda header: header.depth)
    slices = slices_of(headers)
    image = _load(sitk, headers)
    array, meta = to_array(sitk, image), to_meta(image)
    frames = image.GetSize()[2] if image.GetDimension() > 2 else 1
    order = np.arange(frames)
    if len(headers) == 1 and frames > 1:
        order, slices = read_frames(files[0])
    if slices is None:
        affine, note = _find_pixel_size(headers[0], meta["affine"], resample)
        notes = [
            note,
            "frames without positions, in the order of the file" if frames > 1 else _unused_table(headers[0]),
        ]
        note = "; ".join(filter(None, notes))
        return array, meta | _affine_meta(affine) | ({"note": note} if note else {})
    check_slices(slices, str(headers[0].file), resample)
    note = describe(slices, None)
    if not resample:
        order, slices = _in_order_of_file(order, slices, files[0])
    array, affine = array[:, :, order], slices.affine
    if resample and note:
        array, affine, note = straighten(array, slices)
    meta |= _affine_meta(affine) | {"spatial_shape": np.array(array.shape[:3])}
    return array, meta | ({"note": note} if note else {})


def slices_of(headers: Sequence[DicomHeader]) -> Slices | None:
    """Where the slices of several files lie; None for a single file.

    Raises:
        InputError: if a slice has no valid position, orientation or pixel spacing, or others than the first.
    """
    first = headers[0]
    if len(headers) == 1:
        return None
    for header in headers:
        for field, name in PLACE.items():
            if getattr(header, field) is None:
                raise InputError(f"{header.file} has no valid {name}, so its place in the series is unknown.")
        if not are_parallel(first, header):
            raise InputError(f"{header.file} has another orientation or pixel spacing than {first.file}.")
    positions = np.array([header.position for header in headers])
    return Slices(positions, np.array(first.orientation), np.array(first.spacing)[::-1])


def _affine_meta(affine: np.ndarray) -> dict:
    return {"affine": affine, "original_affine": affine.copy()}


def _in_order_of_file(order: np.ndarray, slices: Slices, file: Path) -> tuple[np.ndarray, Slices]:
    """Rising frames as stock MONAI leaves them: those that fall in the file fall."""
    steps = set(np.diff(order).tolist())
    if steps == {-1}:
        return order[::-1], slices._replace(positions=slices.positions[::-1])
    if steps != {1}:
        raise InputError(f"{file} holds frames in another order than they lie in space, which stock MONAI would keep.")
    return order, slices


def _find_pixel_size(header: DicomHeader, affine: np.ndarray, resample: bool) -> tuple[np.ndarray, str]:
    """The affine of a file without slices, with the size of its pixels where GDCM has another, and a note on a guess.

    GDCM asks the detector in an X-ray, and does not look at the calibrated regions of ultrasound.
    """
    found = np.linalg.norm(affine[:3, :2], axis=0)
    size, guessed = (
        None if header.spacing is None else header.spacing[::-1],
        header.spacing is None and (found == 1).all(),
    )
    if guessed:
        size = read_region_size(header.file)
    if size is not None and resample:
        return affine * [*size / found, 1, 1], ""
    if not guessed:
        return affine, ""
    regions = "" if size is None else f", its ultrasound regions have {size[0]:g} x {size[1]:g} mm"
    return affine, f"no pixel spacing, taken as 1 mm{regions}"


def _unused_table(header: DicomHeader) -> str:
    """Says that stored values are to be looked up in a table, which ITK does not do, where that is so; else empty."""
    name = "ModalityLUTSequence"
    if any(header.rescale):  # a file has either
        return ""
    return f"stored values, {name} not applied" if name in read_tags(header.file, [name]) else ""


def _need_header(file: Path) -> DicomHeader:
    header = read_header(file)
    if header is None:
        raise unreadable(file)
    if header.modality in NO_IMAGES:
        cure = "; dira-monai merge-masks makes a label map of it" if header.modality == "SEG" else ""
        raise InputError(f"{file} is a DICOM {NO_IMAGES[header.modality]} and no image{cure}.")
    if reason := find_misread(header):
        raise InputError(f"{file} would be misread: {reason}; decompress or mend it by dcmtk or gdcm, or write PNG.")
    if "MOSAIC" in header.marks[IMAGE_TYPE].upper().split("\\"):
        raise InputError(f"{file} is a mosaic, a volume as slices side by side in one picture; unpack it by dcm2niix.")
    return header


def _load(sitk: ModuleType, headers: Sequence[DicomHeader]) -> Any:
    names = [str(header.file) for header in headers]
    series = sitk.ImageSeriesReader()
    series.SetImageIO("GDCMImageIO")
    series.SetFileNames(names)
    series.SetSpacingWarningRelThreshold(np.inf)  # the note tells of uneven gaps, once
    without = [header.file for header in headers if not any(header.rescale)]
    if 0 < len(without) < len(headers):
        raise InputError(f"{without[0]} has no rescale slope and intercept where other slices of its series have them.")
    kinds = {(header.rescale, header.pixel_type) for header in headers}
    if len(kinds) > 1:  # PET: else all slices take the number type of the first one
        series.SetOutputPixelType(sitk.sitkFloat32)
    try:
        return series.Execute() if len(names) > 1 else sitk.ReadImage(names[0], imageIO="GDCMImageIO")
    except RuntimeError:
        _find_broken(sitk, names)
        raise


def _find_broken(sitk: ModuleType, names: Sequence[str]) -> None:
    for name in names:
        try:
            sitk.ReadImage(name, imageIO="GDCMImageIO")
        except RuntimeError as error:
            raise unreadable(name, "it is cut off or its pixels cannot be decoded") from error


def to_array(sitk: ModuleType, image: Any) -> np.ndarray:
    """The voxels of a SimpleITK image, axes (x, y, z) and channels last."""
    array = sitk.GetArrayFromImage(image).T
    return array if image.GetNumberOfComponentsPerPixel() == 1 else np.moveaxis(array, 0, -1)


def to_meta(image: Any) -> dict:
    """MONAI's meta data of a SimpleITK image of 2 or more axes; the affine is in RAS."""
    rank, axes = image.GetDimension(), min(image.GetDimension(), 3)
    affine = np.eye(4)
    direction = np.reshape(image.GetDirection(), (rank, rank))[:axes, :axes]
    affine[:axes, :axes] = direction * np.array(image.GetSpacing()[:axes])
    affine[:axes, 3] = image.GetOrigin()[:axes]
    shape = np.array(image.GetSize()[:3])
    return {**_affine_meta(orientation_ras_lps(affine)), "space": "RAS", "spatial_shape": shape}
