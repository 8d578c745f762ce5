"""Whether stock MONAI, by which bundles train and infer, reads an image as ``ScanReader`` does, which lists it.

MONAI is imported with the first image, since no ``--help`` needs it.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import Any

import nibabel as nib
import numpy as np

from ..dicom.headers import is_dicom
from ..utils.errors import InputError, silence_needless
from .facts import find_distance
from .find import HIDDEN, ITK_SUFFIXES, NIFTI_SUFFIXES, PIL_SUFFIXES, Image, files_of, first_file, is_series, read_image
from .place import find_unit

OUR_READER = "dira_monai.ScanReader"
ITK = Lock()  # while it loads its parts it moves the working folder, and two threads never move it back
VALUE_TOLERANCE = 1e-5  # of the largest value: rounding of rescaled numbers


def name_reader(reader: Any) -> str | None:
    """The name of a reader as a configuration has it: of MONAI's its class, of others also the module; None stays."""
    if reader is None or isinstance(reader, str):
        return reader
    if getattr(reader, "resample", False):
        return OUR_READER
    kind = type(reader)
    return kind.__name__ if kind.__module__.startswith("monai.") else f"{kind.__module__}.{kind.__qualname__}"


def read_as_trained(
    image: Image, directory: str | Path, reader: str | None, option: str = "reader"
) -> tuple[np.ndarray, dict]:
    """Array and meta data of ``read_image``, of an image that the reader of a training reads alike.

    Of those of MONAI this is found out by reading the image twice. A reader of another package is the user's own.

    Args:
        image: relative to ``directory``.
        directory: the folder of the images.
        reader: its name; None: MONAI chooses one by the suffix; PILReader: for pictures as the bundles have it.
        option: that gives the training another reader.

    Raises:
        InputError: if the image is unreadable, a label map has channels or values without opacity, or MONAI reads
            another shape, other voxels or another place in space.
    """
    array, meta = read_image(image, directory, resample=reader == OUR_READER)
    if option == "label_reader" and array.ndim > len(meta["spatial_shape"]):
        numbers = "pydicom.dcmread(file).pixel_array" if is_series(image) else "numpy.array(PIL.Image.open(file))"
        cure = f"save the numbers of the classes as gray values (those of a palette: {numbers})"
        if len(meta["spatial_shape"]) == 3:
            cure = "make one label map of channels, or, of time points, a file of each"
        raise InputError(f"the label map {first_file(image)} has {array.shape[-1]} channels where 1 is needed; {cure}.")
    if option == "label_reader" and HIDDEN in meta.get("note", ""):
        raise InputError(
            f"the label map {first_file(image)} has transparent pixels with values, so opacity and values differ; save "
            "the right one as gray values without opacity."
        )
    no_picture = reader == "PILReader" and not first_file(image).lower().endswith(PIL_SUFFIXES)
    if no_picture and len(meta["spatial_shape"]) == 2:
        return array, meta  # ``check_pictures`` refuses it
    if reader is None or "." not in reader:
        paths = [Path(directory, file) for file in files_of(stock_path(image, Path(directory)))]
        if difference := _find_difference(array, meta, paths, reader):
            raise InputError(f"{first_file(image)} {difference}; give --{option} {OUR_READER}, or convert the image.")
    return array, meta


def tell_picture(image: Image, reader: Any, in_channels: int = 3) -> str:
    """What is unusual about a picture that a configuration's PILReader reads; what ``ScanReader`` refuses is refused.

    Args:
        image: absolute.
        reader: of the configuration; of another one the text is empty.
        in_channels: of the network.

    Raises:
        InputError: if ``ScanReader`` refuses it, or the configuration's reader reads a TIFF otherwise.
    """
    target = reader.get("_target_") if isinstance(reader, Mapping) else reader
    if str(target).rpartition(".")[2] != "PILReader" or not first_file(image).lower().endswith(PIL_SUFFIXES):
        return ""
    array, meta = read_image(image)
    files = [*map(Path, files_of(image))]
    tiff = files[0].suffix.lower() in (".tif", ".tiff")  # Pillow mixes up some that it maps into memory
    if tiff and (difference := _find_difference(array, meta, files, "PILReader")):
        raise InputError(f"{first_file(image)} {difference}; save it as PNG.")
    gray = "its colors become gray" if array.ndim > 2 and in_channels == 1 else ""
    return "; ".join(filter(None, [meta.get("note"), gray]))


def read_gray_factor(file: Path) -> int:
    """What Pillow multiplies values of a gray picture of 2 or 4 bits by, so that the highest becomes 255; else 1."""
    if not (file.is_file() and file.name.lower().endswith(PIL_SUFFIXES)):
        return 1
    from PIL import Image as Picture

    with Picture.open(file) as image:
        bits = re.search(r"'L;([24])'", str(image.tile))
    return 255 // (2 ** int(bits[1]) - 1) if bits else 1


def load_itk(files: Iterable[str]) -> None:
    """Have itk load its parts by the first file that MONAI reads by it, before threads do, see ``ITK``."""
    from monai.data import ITKReader

    first = next((file for file in files if not file.lower().endswith(PIL_SUFFIXES + NIFTI_SUFFIXES)), None)
    if first is not None:
        with suppress(Exception):  # the training tells what it cannot read
            reader = ITKReader()
            reader.get_data(reader.read(first))


def stock_path(image: Image, root: Path) -> Image:
    """The path of an image, or those of its channels.

    Of a DICOM series it is its folder, as stock MONAI reads it, or its one file among others.

    A series of several files that shares its folder with other DICOM files is refused: stock MONAI leaves out hidden
    files and those of other formats.
    """
    if isinstance(image, str) or not is_series(image):
        return image
    folder = PurePosixPath(image[0]).parent
    files = [file for file in (root / folder).iterdir() if file.is_file() and not file.name.startswith(".")]
    if len(image) == 1 and len(files) > 1:
        return image[0]
    if others := sum(map(is_dicom, files)) - len(image):
        raise InputError(
            f"{image[0]} begins a DICOM series of {len(image)} files in a folder with {others} others; "
            "move each series to a folder of its own."
        )
    return str(folder)


def _find_difference(array: np.ndarray, meta: dict, paths: Sequence[Path], reader: str | None) -> str:
    """How stock MONAI reads an image otherwise, behind the name of the image; empty where it does not."""
    from monai.transforms import LoadImage

    silence_needless()
    rank = len(meta["spatial_shape"])
    own = array[None] if array.ndim == rank else np.moveaxis(array, -1, 0)
    if paths[0].name.lower().endswith(ITK_SUFFIXES) and len(own) > 1 and own.dtype != np.float32:
        return f"holds vectors of {own.dtype}, of which stock MONAI reads float32 alone"  # found out in a minute
    by_itk = not paths[0].name.lower().endswith(PIL_SUFFIXES + NIFTI_SUFFIXES)
    try:
        with ITK if by_itk else nullcontext():
            stock = LoadImage(_make_reader(reader, paths, len(own)), ensure_channel_first=True)(paths)
    except Exception:  # whatever its readers raise
        return "cannot be read by stock MONAI"
    if stock.shape != own.shape:
        shapes = [" x ".join(map(str, shape)) for shape in (own.shape, stock.shape)]
        return f"is {shapes[0]} (channels first), and stock MONAI reads {shapes[1]}"
    tolerance = VALUE_TOLERANCE * max(1.0, float(np.abs(np.nan_to_num(own)).max()))
    if not np.allclose(stock, own, rtol=0, atol=tolerance, equal_nan=True):
        return f"holds other values than stock MONAI reads, by up to {np.nanmax(np.abs(stock.numpy() - own)):.3g}"
    if "affine" not in meta:
        return ""
    affine, theirs = np.asarray(meta["affine"]), np.asarray(stock.affine)
    if rank == 2:  # of which ScanReader keeps the spacing alone
        theirs = np.diag([*np.linalg.norm(theirs[:3, :2], axis=0), 1, 1])
    tilted = "tilt" in meta.get("note", "")  # of which MONAI makes upright slices, at the place of the first one
    if away := find_distance((*own.shape[1:3], 1) if tilted else own.shape[1:], affine, theirs):
        return f"lies up to {away:.3g} mm away from where stock MONAI has it{_find_cause(paths[0])}"
    return ""


def _find_cause(path: Path) -> str:
    """Why stock MONAI 1.6 places a NIfTI file elsewhere."""
    image = nib.load(path) if path.name.lower().endswith(NIFTI_SUFFIXES) else None
    if not isinstance(image, nib.Nifti1Pair):
        return ""
    if find_unit(image.header) != 1:
        return ", which takes all lengths for mm"
    return ", which takes the qform, even an unset one, unless pixdim is the voxel sizes of the sform to the last digit"


def _make_reader(name: str | None, paths: Sequence[Path], channels: int) -> Any:
    """What ``LoadImage`` takes; pictures are read as the bundles of 2D images do."""
    from monai.data import PILReader
    from PIL import ImageOps

    if name != "PILReader":
        return name

    def convert(image: Any) -> Any:
        mode = "L" if channels == 1 or len(paths) > 1 else "RGB"
        return ImageOps.exif_transpose(image).convert(image.mode if image.mode[0] in "IF" else mode)

    reader = PILReader(converter=convert)
    return reader if paths[0].name.lower().endswith(PIL_SUFFIXES) else None
