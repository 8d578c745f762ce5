"""Headers of DICOM files, and which files make one volume."""

import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import chain, groupby, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..utils.errors import InputError
from ..utils.optional_import import import_package

NO_IMAGES = {"SEG": "segmentation", "RTDOSE": "dose distribution"}  # by modality
NEW_KINDS = {"1.2.840.10008.5.1.4.1.1.66.7": "Label Map Segmentation Storage"}  # that pydicom 3.0 has no name of
# what may distinguish images at one position: AcquisitionNumber, TemporalPositionIdentifier, EchoTime, DiffusionBValue,
# TriggerTime, ImageType (magnitude and phase), AcquisitionTime
MARKS = ("0020|0012", "0020|0100", "0018|0081", "0018|9087", "0018|1060", "0008|0008", "0008|0032")
IMAGE_TYPE = MARKS.index("0008|0008")
# how the names of the transfer syntaxes begin whose pixels SimpleITK decodes
PLAIN = ("Implicit VR", "Explicit VR", "Deflated Explicit VR")
COMPRESSED = ("JPEG Baseline", "JPEG Extended", "JPEG Lossless", "JPEG-LS", "JPEG 2000 Image", "High-Throughput", "RLE")
GZIP = b"\x1f\x8b"
# a file that begins with its first element, of group 2 or 8, instead of 128 bytes and DICM
NO_PREAMBLE = re.compile(rb"[\x02\x08]\0[\0\x01\x05\x08\x12-\x18]\0")


class DicomHeader(NamedTuple):
    """What groups and orders the files of a series; positions in mm, in DICOM's own axes (LPS)."""

    file: Path
    series: str
    instance: str
    patient: str
    size: tuple[int, ...]
    number: int
    orientation: np.ndarray | None
    position: np.ndarray | None
    spacing: np.ndarray | None  # between rows and between columns
    modality: str
    rescale: tuple[str, str]  # slope and intercept
    pixel_type: int  # SimpleITK's number of the type of the rescaled values
    marks: tuple[str, ...]  # the values of MARKS
    bits: tuple[str, ...]  # samples of a pixel, and of each the bits allocated, the bits stored and the highest one

    @property
    def depth(self) -> float:
        """Distance in mm of the slice from the origin, along its own normal, to 1 um; 0 where it has no position."""
        if self.orientation is None or self.position is None:
            return 0.0
        return round(float(np.cross(self.orientation[:3], self.orientation[3:]) @ self.position), 3)


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
        text = str(reader.GetMetaData(tag)).strip(" \0") if reader.HasMetaDataKey(tag) else ""
        return text if text.isascii() and "\x1b" not in text else _decode(text, value("0008|0005"))

    number = value("0020|0013")
    spacing = _numbers(value("0028|0030"), 2)
    return DicomHeader(
        file=Path(file),
        series=value("0020|000e"),
        instance=value("0008|0018"),
        patient=value("0010|0020") or value("0020|000d"),  # the study, where the patient's name was removed
        size=tuple(reader.GetSize()),
        number=int(number) if number.lstrip("+-").isdigit() else 0,
        orientation=_numbers(value("0020|0037"), 6),
        position=_numbers(value("0020|0032"), 3),
        spacing=spacing if spacing is not None and spacing.min() > 0 else None,
        modality=value("0008|0060"),
        rescale=(value("0028|1053"), value("0028|1052")),
        pixel_type=reader.GetPixelIDValue(),
        marks=tuple(map(value, MARKS)),
        bits=tuple(map(value, ("0028|0002", "0028|0100", "0028|0101", "0028|0102"))),
    )


def _decode(text: str, character_set: str) -> str:
    """A value in the alphabets that its file names, else as UTF-8; SimpleITK gives the bytes as they are."""
    stored = text.encode(errors="surrogateescape")
    if not character_set:
        return stored.decode(errors="backslashreplace")
    charset = import_package("pydicom.charset", "a DICOM file")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # bytes of no such alphabet are replaced
        return charset.decode_bytes(stored, charset.convert_encodings(character_set.split("\\")), set())


def read_tags(file: str | Path, names: list[str] | None = None) -> Any:
    """The data set of a file that has a header (see ``read_header``), by pydicom, without pixels; all tags by default.

    Sequences are what SimpleITK does not show. A file may lack the preamble of 128 bytes.
    """
    dcmread = import_package("pydicom", file).dcmread
    return dcmread(file, stop_before_pixels=True, specific_tags=names, force=True)


def is_dicom(file: Path) -> bool:
    """Whether a file is DICOM by its first bytes, or by its name .dcm or .dcm.gz; a DICOMDIR is no image."""
    name = file.name.lower()
    if name == "dicomdir":
        return False
    if name.endswith((".dcm", ".dcm.gz")):
        return True
    try:
        with file.open("rb") as stream:
            head = stream.read(132)
    except OSError:
        return False
    bare = not file.suffix or file.suffix[1:].isdigit()  # a UID as a name ends in digits
    return head[128:] == b"DICM" or bool(bare and NO_PREAMBLE.match(head))


def unreadable(file: str | Path, otherwise: str = "it is cut off or no DICOM image") -> InputError:
    """The error of a file that SimpleITK does not read, with the reason that its first bytes tell, or else another."""
    reason = _find_reason(file)
    if not reason and not is_dicom(Path(file)):
        cure = "; give the .img beside it" if Path(file).suffix.lower() == ".hdr" else ""
        otherwise = f"it is no DICOM file, and its name is of no other format that can be read{cure}"
    return InputError(f"{file} cannot be read: {reason or otherwise}.")


def _find_reason(file: str | Path) -> str:
    with open(file, "rb") as stream:
        if stream.read(2) == GZIP:
            return "it is packed by gzip"
    kind, syntax = _find_kind(file)
    if _is_other_object(kind):
        return f"it is no image but of the kind {kind}"
    if syntax and not syntax.startswith(PLAIN + COMPRESSED):
        return f"its pixels are compressed as {syntax}, where SimpleITK decodes JPEG, JPEG-LS, JPEG 2000, HTJ2K and RLE"
    names = ["PhotometricInterpretation", "PixelRepresentation", "BitsStored"]
    with suppress(Exception):  # whatever pydicom raises of a damaged file: the caller has a better sentence
        if syntax and [read_tags(file, names).get(name) for name in names] == ["MONOCHROME1", 1, 12]:
            return "its MONOCHROME1 pixels are signed and of 12 bits, which SimpleITK does not turn round"
    return ""


def find_misread(header: DicomHeader) -> str:
    """Why SimpleITK 2.5 makes other values of the pixels than the header says; empty where it does not."""
    samples, allocated, stored, highest = (int(bits) if bits.isdigit() else 0 for bits in header.bits)
    if 0 < stored < allocated and 0 < highest != stored - 1:
        return f"its {stored} bits end at bit {highest} (HighBit), where SimpleITK takes those up to bit {stored - 1}"
    if samples > 1 and allocated > 8 and _find_kind(header.file)[1].startswith("RLE"):
        return f"its colors of {allocated} bits are compressed by RLE, whose bytes SimpleITK mixes up"
    return ""


def _find_kind(file: str | Path) -> tuple[str, str]:
    """The names of what a file holds and of its transfer syntax; empty where it is no DICOM file or damaged."""
    pydicom = import_package("pydicom", file)
    with suppress(Exception):
        meta = pydicom.filereader.read_file_meta_info(file)
        kind = meta.MediaStorageSOPClassUID
        return NEW_KINDS.get(kind, kind.name), meta.TransferSyntaxUID.name
    return "", ""


def _is_other_object(kind: str) -> bool:
    return kind.endswith("Storage") and "Image" not in kind


def _numbers(text: str, count: int) -> np.ndarray | None:
    try:
        values = np.array([float(part) for part in text.split("\\")])
    except ValueError:
        return None
    return values if len(values) == count and np.isfinite(values).all() else None


def are_parallel(one: DicomHeader, other: DicomHeader) -> bool:
    """Whether two slices with a position have the same orientation and the same pixel spacing, or none."""
    if (one.spacing is None) != (other.spacing is None):
        return False
    same = one.spacing is None or np.allclose(one.spacing, other.spacing, rtol=1e-3, atol=0)  # type: ignore[arg-type]
    return same and np.allclose(one.orientation, other.orientation, atol=0.01)  # type: ignore[arg-type]


def group_series(files: Iterable[Path], images_only: bool = False) -> list[list[Path]]:
    """The volumes that the files make, each a list of files in slice order, sorted by their first files.

    One volume is what shares folder, series, patient, slice size, pixel spacing and orientation. Files at the same
    position (time points, echoes, diffusion directions) become volumes of their own: by the first tag of MARKS that
    distinguishes them, else in the order of their instance numbers; where nothing does, they stay one volume, which
    cannot be read. A multi-frame file, a file without a position (an X-ray), a copy of an instance and a file whose
    header cannot be read stand alone.

    Args:
        files: any files, each of which is opened.
        images_only: leave out segmentations, dose distributions, copies and files whose header cannot be read.
    """
    volumes: list[list[Path]] = []
    stacks: dict[tuple[Any, ...], list[list[DicomHeader]]] = defaultdict(list)
    for file in files:
        header = read_header(file)
        if images_only and (header is None or header.modality in NO_IMAGES):
            continue
        if header is None or header.orientation is None or header.position is None or header.size[2:] != (1,):
            volumes.append([file])
            continue
        parallel = stacks[file.parent, header.series, header.patient, header.size]
        stack = next((stack for stack in parallel if are_parallel(stack[0], header)), None)
        if stack is None:
            parallel.append(stack := [])
        stack.append(header)
    for stack in chain.from_iterable(stacks.values()):
        slices, copies = _split_copies(stack)
        volumes += _split_repeats(slices)
        volumes += [] if images_only else [[header.file] for header in copies]
    return sorted(volumes)


def list_series(folder: Path) -> list[list[Path]]:
    """The volumes of a folder, without its sub-folders; hidden files and what is no image are left out.

    Raises:
        InputError: if a DICOM file is cut off or damaged, which may be a slice.
    """
    files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    volumes = group_series(files, images_only=True)
    for file in sorted({*files}.difference(*volumes)):
        if is_dicom(file) and read_header(file) is None and not _is_other_object(_find_kind(file)[0]):
            raise unreadable(file)
    return volumes


def _split_copies(stack: Sequence[DicomHeader]) -> tuple[list[DicomHeader], list[DicomHeader]]:
    """The first file of each instance, and the others."""
    kept: dict[tuple[Any, ...], DicomHeader] = {}
    copies = []
    for header in stack:
        key = (header.depth, header.number, header.instance or header.file)  # the UID alone may be an anonymizer's
        if kept.setdefault(key, header) is not header:
            copies.append(header)
    return [*kept.values()], copies


def _split_repeats(stack: Sequence[DicomHeader]) -> list[list[Path]]:
    """Volumes, in slice order, that hold each position once, where anything distinguishes the images at a position."""
    stack = sorted(stack, key=lambda header: (header.depth, header.number, header.file))
    repeats = _count_repeats(stack)
    for marks in zip(*(header.marks for header in stack), strict=True):
        groups: dict[str, list[DicomHeader]] = defaultdict(list)
        for header, mark in zip(stack, marks, strict=True):
            groups[mark].append(header)
        if len(groups) == repeats > 1 and all(_count_repeats(group) == 1 for group in groups.values()):
            return [[header.file for header in group] for group in groups.values()]
    if len({(header.depth, header.number) for header in stack}) < len(stack):
        return [[header.file for header in stack]]
    positions = [[header.file for header in group] for _, group in groupby(stack, lambda header: header.depth)]
    return [[file for file in volume if file] for volume in zip_longest(*positions)]


def _count_repeats(stack: Sequence[DicomHeader]) -> int:
    """The most images that share a position."""
    return max(Counter(header.depth for header in stack).values())
