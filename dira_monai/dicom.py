"""DICOM series: which files make one volume, in which order, and the volume itself.

SimpleITK reads them (JPEG, JPEG-LS, JPEG 2000 and RLE need nothing more); it is imported when the first file comes.
"""

import importlib
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from monai.data.utils import orientation_ras_lps

from .errors import InputError

GAP_TOLERANCE = 0.1  # slice gaps may differ from their median by this part of it
TILT_TOLERANCE = 1.0  # degrees between the stacking direction and the slice normal


class DicomHeader(NamedTuple):
    """What groups and orders the files of a series; positions in mm, in DICOM's own axes (LPS)."""

    file: Path
    series: str
    patient: str
    size: tuple[int, ...]
    number: int
    orientation: np.ndarray | None
    position: np.ndarray | None

    @property
    def depth(self) -> float:
        """Distance in mm of the slice from the origin, along its own normal."""
        if self.orientation is None or self.position is None:
            return 0.0
        return float(np.cross(self.orientation[:3], self.orientation[3:]) @ self.position)


def import_package(name: str, file: str | Path) -> ModuleType:
    """The optional package that a file needs.

    Raises:
        InputError: if it is not installed; the sentence says how to install it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"{file} needs the package {name}: pip install {name}") from error


def read_header(file: str | Path) -> DicomHeader | None:
    """The header of one file, or None where it is no DICOM image (a report, a plan, a broken file)."""
    reader = import_package("SimpleITK", file).ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(file))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None

    def value(tag: str) -> str:
        return str(reader.GetMetaData(tag)).strip(" \0") if reader.HasMetaDataKey(tag) else ""

    number = value("0020|0013")
    return DicomHeader(
        file=Path(file),
        series=value("0020|000e"),
        patient=value("0010|0020") or value("0020|000d"),  # the study, where the patient's name was removed
        size=tuple(reader.GetSize()),
        number=int(number) if number.lstrip("+-").isdigit() else 0,
        orientation=_numbers(value("0020|0037"), 6),
        position=_numbers(value("0020|0032"), 3),
    )


def _numbers(text: str, count: int) -> np.ndarray | None:
    try:
        values = np.array([float(part) for part in text.split("\\")])
    except ValueError:
        return None
    return values if len(values) == count and np.isfinite(values).all() else None


def group_series(files: Iterable[Path]) -> list[list[Path]]:
    """The volumes that the files make, each a list of files in slice order, sorted by their first files.

    One volume is what shares folder, series, slice size and orientation. Files at the same position (time points,
    echoes, diffusion directions) become volumes of their own, in the order of their instance numbers. A multi-frame
    file, a file without a position (an X-ray) and a file whose header cannot be read stand alone.
    """
    volumes: list[list[Path]] = []
    stacks: dict[tuple[Any, ...], list[list[DicomHeader]]] = {}
    for file in files:
        header = read_header(file)
        if header is None or header.orientation is None or header.position is None or header.size[2:] != (1,):
            volumes.append([file])
            continue
        parallel = stacks.setdefault((file.parent, header.series, header.size), [])
        for stack in parallel:
            if np.allclose(stack[0].orientation, header.orientation, atol=0.01):  # type: ignore[arg-type]
                stack.append(header)
                break
        else:
            parallel.append([header])
    for parallel in stacks.values():
        for stack in parallel:
            volumes += _split_repeats(stack)
    return sorted(volumes)


def _split_repeats(stack: Sequence[DicomHeader]) -> list[list[Path]]:
    volumes: list[list[Path]] = []
    seen: dict[float, int] = {}
    for header in sorted(stack, key=lambda header: (round(header.depth, 3), header.number, header.file)):
        repeat = seen.get(round(header.depth, 3), 0)
        seen[round(header.depth, 3)] = repeat + 1
        if repeat == len(volumes):
            volumes.append([])
        volumes[repeat].append(header.file)
    return volumes


def read_series(files: Sequence[Path]) -> tuple[np.ndarray, dict]:
    """One volume from its files in any order, axes (x, y, z) and channels last, with MONAI's meta data (affine in RAS).

    Stored values are rescaled (CT: HU), and MONOCHROME1 is turned round so that high values are bright. Uneven gaps are
    read as even ones of the mean length and a gantry tilt stays as a shear; the entry ``note`` says either.

    Raises:
        InputError: if a file is no DICOM image or SimpleITK is missing.
    """
    sitk = import_package("SimpleITK", files[0])
    headers = [_need_header(file) for file in files]
    if all(header.position is not None and header.orientation is not None for header in headers):
        headers.sort(key=lambda header: header.depth)
    names = [str(header.file) for header in headers]
    series = sitk.ImageSeriesReader()
    series.SetImageIO("GDCMImageIO")
    series.SetFileNames(names)
    series.SetSpacingWarningRelThreshold(np.inf)  # the note tells of uneven gaps, once
    try:
        image = series.Execute() if len(names) > 1 else sitk.ReadImage(names[0], imageIO="GDCMImageIO")
    except RuntimeError:
        _find_broken(sitk, names)
        raise
    return _to_array(sitk, image), _to_meta(image, describe_slices(headers))


def _need_header(file: Path) -> DicomHeader:
    header = read_header(file)
    if header is None:
        raise InputError(f"{file} cannot be read: it is cut off or no DICOM image.")
    return header


def _find_broken(sitk: ModuleType, names: Sequence[str]) -> None:
    for name in names:
        try:
            sitk.ReadImage(name, imageIO="GDCMImageIO")
        except RuntimeError as error:
            raise InputError(f"{name} cannot be read: it is cut off or its pixels cannot be decoded.") from error


def _to_array(sitk: ModuleType, image: Any) -> np.ndarray:
    array = sitk.GetArrayFromImage(image)
    axes = tuple(reversed(range(image.GetDimension())))
    return array.transpose(axes if image.GetNumberOfComponentsPerPixel() == 1 else (*axes, len(axes)))


def _to_meta(image: Any, note: str) -> dict:
    rank = image.GetDimension()
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (rank, rank))[:3, :3] * np.array(image.GetSpacing()[:3])
    affine[:3, 3] = image.GetOrigin()[:3]
    affine = orientation_ras_lps(affine)
    meta = {"affine": affine, "original_affine": affine.copy(), "space": "RAS"}
    return {**meta, "spatial_shape": np.array(image.GetSize()[:3]), **({"note": note} if note else {})}


def describe_slices(headers: Sequence[DicomHeader]) -> str:
    """What is unusual about slices in their order: uneven gaps, gantry tilt; else empty."""
    notes = []
    positions = [header.position for header in headers if header.position is not None]
    if len(headers) > 1 and len(positions) == len(headers) and headers[0].orientation is not None:
        gaps = np.array([after.depth - before.depth for before, after in pairwise(headers)])
        median = np.median(gaps)
        if (abs(gaps - median) > GAP_TOLERANCE * median).any():
            notes.append(f"uneven slice gaps {gaps.min():.3g} to {gaps.max():.3g} mm")
        length = float(np.linalg.norm(positions[-1] - positions[0]))
        angle = np.degrees(np.arccos(min(gaps.sum() / length, 1.0))) if length else 0.0
        if angle > TILT_TOLERANCE:
            notes.append(f"slices sheared by {angle:.0f} degrees (gantry tilt)")
    return "; ".join(notes)
