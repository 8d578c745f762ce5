"""One MONAI image reader for the formats that scans come in: those of Pillow, nibabel and ITK, and DICOM."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.data import ImageReader, NibabelReader, PILReader
from monai.utils import ensure_tuple
from numpy.lib.recfunctions import structured_to_unstructured
from PIL import ExifTags, ImageOps

from ..dicom.headers import is_dicom, list_series
from ..dicom.series import read_series, to_array, to_meta
from ..utils.errors import InputError
from ..utils.optional_import import import_package
from .facts import find_distance
from .find import HIDDEN, ITK_SUFFIXES, NIFTI_SUFFIXES, PIL_SUFFIXES, SUFFIXES
from .place import find_place, read_itk_header, tell_shear

# modes whose numbers are not gray values or colors: palette indices, opacity, bits, ink
PIL_MODES = {
    "I;16B": "I",
    "P": "RGB",
    "PA": "RGB",
    "RGBA": "RGB",
    "RGBX": "RGB",
    "CMYK": "RGB",
    "YCbCr": "RGB",
    "LA": "L",
    "1": "L",
}
WHITE_IS_0 = (262, 0)  # PhotometricInterpretation of TIFF: Pillow turns round 8 bits alone
SAMPLE_FORMAT, BITS, UNSIGNED, SIGNED = 339, 258, 1, 2  # tags of TIFF, and values of the first
NOT_OF_THE_FORMAT = "it is cut off or not of the format that its name says"
TOO_SHORT = "its data are missing or shorter than its header says"
CAUSES = {  # what decoders say, and what it means
    "cannot identify image file": f"{NOT_OF_THE_FORMAT}, or of a kind that this version of Pillow does not read",
    "Cannot work out file type": NOT_OF_THE_FORMAT,
    "is not a gzip file": NOT_OF_THE_FORMAT,
    "Could not create IO object": NOT_OF_THE_FORMAT,
    "end-of-stream marker": "it is cut off",
    "could the file be damaged": TOO_SHORT,
    "_nrrdEncoding": TOO_SHORT,
    "MetaImageIO": TOO_SHORT,  # its own reason is whatever errno held
    "Unable to determine ImageIO": NOT_OF_THE_FORMAT,
}


class ScanReader(ImageReader):
    """Reads one image: ``LoadImaged(keys="image", reader="dira_monai.reader.ScanReader")``.

    The suffix of the file chooses MONAI's own reader; any other name is taken as DICOM, where a list of files or a
    folder is one series, sorted by position. A list of other files is stacked as channels, which must lie on one grid.

    The array has spatial axes first and channels, where it has any, last. Axes of length 1 at the end are dropped, so a
    single slice is 2D; its affine holds the pixel spacing alone. A 2D image with three equal channels comes out gray.

    Args:
        resample: whether uneven or tilted DICOM slices are put on an even, upright grid. With False, voxels are
            those that stock MONAI reads: a tilt stays as a shear in the affine, uneven slices and frames without order
            are refused.

    ``read`` only keeps the names and ``get_data`` decodes: ``LoadImage`` answers an error of ``read`` by trying every
    other reader and then hides the reason, while an error of ``get_data`` reaches the user.
    """

    def __init__(self, resample: bool = True) -> None:
        self.resample = resample

    def verify_suffix(self, filename: Sequence[str | Path] | str | Path) -> bool:
        """Whether the names look like images of a known format; a name without a suffix is taken as DICOM."""
        files = self.read(filename)
        return all(file.name.lower().endswith((*SUFFIXES, ".dcm")) or not file.suffix for file in files)

    def read(self, data: Sequence[str | Path] | str | Path, **kwargs: Any) -> tuple[Path, ...]:
        """The names as paths; nothing is opened yet."""
        return tuple(map(Path, ensure_tuple(data)))

    def get_data(self, img: Sequence[Path]) -> tuple[np.ndarray, dict]:
        """The array and MONAI's meta data; ``affine`` is in mm and RAS, and missing for PNG and JPEG.

        The entry ``note`` is there where a file is usable but unusual.

        Args:
            img: what ``read`` returned.

        Raises:
            InputError: if a file is missing, empty, cut off or broken, or if the package for its format is missing.
        """
        if len(img) == 1 and img[0].is_dir():
            img = _only_series(img[0])
        for file in img:
            if not file.exists():
                raise InputError(f"{file} does not exist.")
            if file.stat().st_size == 0:
                raise InputError(f"{file} is empty (0 bytes).")
        try:
            several = len(img) > 1 and img[0].name.lower().endswith(SUFFIXES)
            return _stack(img) if several else _tidy(img[0], *_decode(img, self.resample))
        except InputError:
            raise
        except Exception as error:  # the decoders raise whatever they like
            raise InputError(f"{img[0]} cannot be read: {_cause(error)}.") from error


def _only_series(folder: Path) -> Sequence[Path]:
    """The slices of the one DICOM series that makes up a folder; what is no image (a report, a text) is left out."""
    series = list_series(folder)
    others = [] if series else [file for file in sorted(folder.iterdir()) if file.is_file() and is_dicom(file)]
    if others:
        read_series(others[:1])  # which tells what it is: a segmentation, a report
    if len(series) != 1:
        raise InputError(f"{folder} is a folder with {len(series)} DICOM series where one is needed.")
    return series[0]


def _stack(files: Sequence[Path]) -> tuple[np.ndarray, dict]:
    """Files of one image, one a channel, which lie on one grid."""
    (first, meta), *others = [_tidy(file, *_decode([file], resample=True)) for file in files]
    rank = len(meta["spatial_shape"])
    for file, (array, other) in zip(files, [(first, meta), *others], strict=True):
        cure = f"so they are no channels of one image; resample {file.name} to it"
        if array.ndim > rank:
            raise InputError(f"{file} has {array.shape[-1]} channels where a file of several has one.")
        if array.shape != first.shape:
            sizes = [" x ".join(map(str, shape)) for shape in (array.shape, first.shape)]
            raise InputError(f"{file} has {sizes[0]} voxels where {files[0].name} has {sizes[1]}, {cure}.")
        if "affine" in meta and (away := find_distance(array.shape, meta["affine"], other["affine"])):
            raise InputError(f"{file} lies up to {away:.3g} mm away from {files[0].name}, {cure}.")
    return np.stack([first, *(array for array, _ in others)], axis=-1), meta | {"original_channel_dim": -1}


def _decode(files: Sequence[Path], resample: bool) -> tuple[np.ndarray, dict]:
    name = files[0].name.lower()
    if name.endswith(PIL_SUFFIXES):
        with files[0].open("rb") as stream:  # opened here, since Pillow leaves a file open that it cannot decode
            return _read_picture(stream, files[0].name)
    if name.endswith(NIFTI_SUFFIXES):
        return _read_nifti(files[0])
    if name.endswith(ITK_SUFFIXES):
        return _read_itk(files[0])
    return read_series(files, resample)


def _read_nifti(file: Path) -> tuple[np.ndarray, dict]:
    image, note = nib.load(file), ""
    place: dict[str, Any] = {}
    if isinstance(image, nib.AnalyzeImage) and not isinstance(image, nib.Nifti1Pair):
        note = "Analyze, which tells no left from right: nibabel's order is taken"
    elif not isinstance(image, nib.MGHImage):
        affine, note = find_place(file)
        place = {"affine": affine, "original_affine": affine.copy()}
    reader = NibabelReader(squeeze_non_spatial_dims=True)
    array, meta = reader.get_data(reader.read(file))
    array = np.asarray(array)
    return array.astype(array.dtype.newbyteorder("="), copy=False), meta | place | ({"note": note} if note else {})


def _read_itk(file: Path) -> tuple[np.ndarray, dict]:
    """By SimpleITK, since itk needs a minute to load vectors, then refuses most, and moves the working folder."""
    sitk = import_package("SimpleITK", file)
    image = sitk.ReadImage(str(file))
    meta = to_meta(image)
    unit, note = read_itk_header(file)
    for name in ("affine", "original_affine"):
        meta[name][:3] *= unit
    shear = tell_shear(image.GetSize()[:3], meta["affine"]) if image.GetDimension() > 2 else ""
    note = "; ".join(filter(None, [shear, note]))
    return to_array(sitk, image), meta | ({"note": note} if note else {})


def _read_picture(stream: Any, name: str) -> tuple[np.ndarray, dict]:
    """Gray or RGB, upright as cameras tell it and viewers show it; not as the pixels are stored."""
    notes: list[str] = []
    kinds: list[int] = []  # of the numbers of a TIFF: signed or not, and bits

    def convert(image: Any) -> Any:
        if image.format in ("TIFF", "PNG") and (pages := image.n_frames) > 1:
            raise InputError(f"{name} has {pages} pages, where a picture has one; write each to a file of its own.")
        if image.format == "TIFF":
            kinds.extend(image.tag_v2.get(tag, (1,))[0] for tag in (SAMPLE_FORMAT, BITS))
        notes.extend(_find_notes(image))
        return _to_gray_or_rgb(ImageOps.exif_transpose(image))

    reader = PILReader(converter=convert)
    array, meta = reader.get_data(reader.read([stream]))
    if kinds == [SIGNED, 8] or (kinds == [UNSIGNED, 32] and array.min() < 0):
        sign = "signed" if kinds[0] == SIGNED else "unsigned"
        raise InputError(
            f"{name} holds {sign} numbers of {kinds[1]} bits, of which Pillow makes others; write 16 bits."
        )
    return array, meta | ({"note": "; ".join(notes)} if notes else {})


def _find_notes(image: Any) -> list[str]:
    """What is unusual about the pixels of a picture."""
    deep = ";16" in str(image.tile) and image.mode[0] != "I"  # before the rest, which loads the picture
    turned = image.getexif().get(ExifTags.Base.Orientation, 1)
    white = image.format == "TIFF" and image.mode[0] == "I" and image.tag_v2.get(WHITE_IS_0[0]) == WHITE_IS_0[1]
    notes = {
        "0 is white, and 16 bits stay as stored": white,
        "16 bits a color become 8": deep,
        f"turned upright by its EXIF orientation {turned}": turned in range(2, 9),
        HIDDEN: _hides_values(image),
    }
    return [note for note, holds in notes.items() if holds]


def _hides_values(image: Any) -> bool:
    """Whether pixels that are not seen, of opacity 0, have other values than 0."""
    if image.mode not in ("RGBA", "LA", "PA") and "transparency" not in image.info:
        return False
    pixels = np.asarray(image.convert("RGBA"))
    return bool(pixels[pixels[..., 3] == 0, :3].any())


def _to_gray_or_rgb(image: Any) -> Any:
    return image.convert(PIL_MODES[image.mode]) if image.mode in PIL_MODES else image


def _tidy(file: Path, array: np.ndarray, meta: dict) -> tuple[np.ndarray, dict]:
    if array.dtype.kind == "c":
        raise InputError(f"{file} holds complex numbers, which are no intensities.")
    array, rank = _drop_axes(array, meta)
    if array.ndim > rank + 1:
        shape = " x ".join(map(str, array.shape))
        raise InputError(f"{file} has {array.ndim} axes, {shape}, where 4 are the most.")
    if rank == 2 and array.shape[2:] == (3,) and (array == array[..., :1]).all():
        array = array[..., 0]
    meta["spatial_shape"] = np.array(array.shape[:rank])
    meta["original_channel_dim"] = -1 if array.ndim > rank else float("nan")
    if rank == 2 and "affine" in meta:
        meta["slice_affine"] = np.asarray(meta["affine"])  # in whatever plane the slice lies
        spacing = np.linalg.norm(meta["slice_affine"][:-1, :2], axis=0)
        meta["affine"] = np.diag([*spacing, 1.0, 1.0])
        meta["original_affine"] = meta["affine"].copy()
    return array, meta


def _drop_axes(array: np.ndarray, meta: dict) -> tuple[np.ndarray, int]:
    """The array with spatial axes first, channels last and no axis of length 1 at the end, and its spatial rank."""
    rank = len(meta["spatial_shape"])
    if array.dtype.names:  # color NIfTI: one record a voxel
        array = structured_to_unstructured(array)
    while array.ndim > rank and array.shape[rank] == 1:
        array = array.squeeze(rank)
    return (array.squeeze(2), 2) if rank == 3 and array.shape[2] == 1 else (array, rank)


def _cause(error: Exception) -> str:
    """The reason in a decoder's message, without addresses and full stop."""
    text = str(error)
    for words, reason in CAUSES.items():
        if words in text:
            return reason
    lines = [re.sub(r"^.*ERROR: (\w+\(0x\w+\): )?|^\[\w+\] ", "", line).strip(" .:") for line in text.splitlines()]
    return next((line for line in reversed(lines) if line), type(error).__name__)
