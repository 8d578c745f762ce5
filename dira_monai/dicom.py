"""DICOM series: which files make one volume, in which order, and the volume itself.

SimpleITK reads them (JPEG, JPEG-LS, JPEG 2000, HTJ2K and RLE need nothing more); it is imported with the first file.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from monai.data.utils import orientation_ras_lps

from .dicom_frames import read_frames
from .errors import InputError
from .packages import import_package
from .slices import Slices, check_slices, describe, straighten

# how the names of the transfer syntaxes begin whose pixels SimpleITK decodes
PLAIN = ("Implicit VR", "Explicit VR", "Deflated Explicit VR")
COMPRESSED = ("JPEG Baseline", "JPEG Extended", "JPEG Lossless", "JPEG-LS", "JPEG 2000 Image", "High-Throughput", "RLE")


class DicomHeader(NamedTuple):
    """What groups and orders the files of a series; positions in mm, in DICOM's own axes (LPS)."""

    file: Path
    series: str
    patient: str
    size: tuple[int, ...]
    number: int
    orientation: np.ndarray | None
    position: np.ndarray | None
    modality: str = ""
    rescale: tuple[str, str] = ("", "")  # slope and intercept

    @property
    def depth(self) -> float:
        """Distance in mm of the slice from the origin, along its own normal."""
        if self.orientation is None or self.position is None:
            return 0.0
        return float(np.cross(self.orientation[:3], self.orientation[3:]) @ self.position)


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
        modality=value("0008|0060"),
        rescale=(value("0028|1053"), value("0028|1052")),
    )


def _numbers(text: str, count: int) -> np.ndarray | None:
    try:
        values = np.array([float(part) for part in text.split("\\")])
    except ValueError:
        return None
    return values if len(values) == count and np.isfinite(values).all() else None


def group_series(files: Iterable[Path], images_only: bool = False) -> list[list[Path]]:
    """The volumes that the files make, each a list of files in slice order, sorted by their first files.

    One volume is what shares folder, series, slice size and orientation. Files at the same position (time points,
    echoes, diffusion directions) become volumes of their own, in the order of their instance numbers. A multi-frame
    file, a file without a position (an X-ray) and a file whose header cannot be read stand alone.

    Args:
        files: any files, each of which is opened.
        images_only: leave out segmentations and files whose header cannot be read.
    """
    volumes: list[list[Path]] = []
    stacks: dict[tuple[Any, ...], list[list[DicomHeader]]] = {}
    for file in files:
        header = read_header(file)
        if images_only and (header is None or header.modality == "SEG"):
            continue
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


def read_series(files: Sequence[Path], resample: bool = True) -> tuple[np.ndarray, dict]:
    """One volume from its files in any order, axes (x, y, z) and channels last, with MONAI's meta data (affine in RAS).

    Stored values are rescaled (CT: HU), and MONOCHROME1 is turned round so that high values are bright. Uneven gaps and
    a gantry tilt are resampled to an even, upright grid; the entry ``note`` says either.

    Args:
        files: the slices, or one multi-frame file.
        resample: False: a tilt stays as a shear in the affine and uneven gaps are refused, so that voxels are those
            that stock MONAI reads.

    Raises:
        InputError: if a file is no DICOM image or compressed in an unknown way, if slices are missing or share a
            position, or if a package is missing.
    """
    sitk = import_package("SimpleITK", files[0])
    headers = [_need_header(file) for file in files]
    if all(header.position is not None and header.orientation is not None for header in headers):
        headers.sort(key=lambda header: header.depth)
    image = _load(sitk, headers)
    array, meta = _to_array(sitk, image), _to_meta(image)
    frames = image.GetSize()[2] if image.GetDimension() > 2 else 1
    order, slices = np.arange(frames), _slices_of(headers, np.array(image.GetSpacing()[:2]))
    if len(headers) == 1 and frames > 1:
        order, slices = read_frames(files[0])
    if slices is None:
        return array, meta
    check_slices(slices, str(headers[0].file), resample)
    array, affine, note = array[:, :, order], slices.affine, describe(slices, None)
    if resample and note:
        array, affine, note = straighten(array, slices)
    meta |= {"affine": affine, "original_affine": affine.copy(), "spatial_shape": np.array(array.shape[:3])}
    return array, meta | ({"note": note} if note else {})


def _slices_of(headers: Sequence[DicomHeader], spacing: np.ndarray) -> Slices | None:
    positions = [header.position for header in headers if header.position is not None]
    if len(headers) < 2 or len(positions) < len(headers) or headers[0].orientation is None:
        return None
    return Slices(np.array(positions), headers[0].orientation, spacing)


def _need_header(file: Path) -> DicomHeader:
    header = read_header(file)
    if header is None:
        reason = _compression(file) or "it is cut off or no DICOM image"
        raise InputError(f"{file} cannot be read: {reason}.")
    if header.modality == "SEG":
        raise InputError(f"{file} is a DICOM segmentation and no image.")
    return header


def _load(sitk: ModuleType, headers: Sequence[DicomHeader]) -> Any:
    names = [str(header.file) for header in headers]
    series = sitk.ImageSeriesReader()
    series.SetImageIO("GDCMImageIO")
    series.SetFileNames(names)
    series.SetSpacingWarningRelThreshold(np.inf)  # the note tells of uneven gaps, once
    if len({header.rescale for header in headers}) > 1:  # PET: else all slices take the number type of the first one
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
            reason = _compression(name) or "it is cut off or its pixels cannot be decoded"
            raise InputError(f"{name} cannot be read: {reason}.") from error


def _compression(file: str | Path) -> str:
    """How the pixels are compressed, in words, where SimpleITK does not decode them; else empty."""
    pydicom = import_package("pydicom", file)
    try:
        syntax = pydicom.filereader.read_file_meta_info(file).TransferSyntaxUID
    except Exception:  # no DICOM file at all, or a damaged header: whoever asked has a better sentence
        return ""
    if syntax.name.startswith(PLAIN + COMPRESSED):
        return ""
    return (
        f"its pixels are compressed as {syntax.name}, where SimpleITK decodes JPEG, JPEG-LS, JPEG 2000, HTJ2K and RLE"
    )


def _to_array(sitk: ModuleType, image: Any) -> np.ndarray:
    array = sitk.GetArrayFromImage(image)
    axes = tuple(reversed(range(image.GetDimension())))
    return array.transpose(axes if image.GetNumberOfComponentsPerPixel() == 1 else (*axes, len(axes)))


def _to_meta(image: Any) -> dict:
    rank = image.GetDimension()
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (rank, rank))[:3, :3] * np.array(image.GetSpacing()[:3])
    affine[:3, 3] = image.GetOrigin()[:3]
    affine = orientation_ras_lps(affine)
    meta = {"affine": affine, "original_affine": affine.copy(), "space": "RAS"}
    return {**meta, "spatial_shape": np.array(image.GetSize()[:3])}
