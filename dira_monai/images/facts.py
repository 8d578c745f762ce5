"""Facts of images, and whether one can be trained on."""

import hashlib
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

import nibabel as nib
import numpy as np
from numpy.typing import ArrayLike

from ..dicom.headers import list_series
from ..utils.errors import InputError
from ..utils.optional_import import import_package
from .find import NIFTI_SUFFIXES, PIL_SUFFIXES, Image, files_of, first_file, is_series, read_image

MAX_CLASSES = 32  # values of what may be a label map
FEW = 8  # values that a label map has nearly everywhere
WHOLE = 2**20  # voxels of a small image
SAMPLE = 4096  # voxels that tell whether it is worth while to count all
Item = TypeVar("Item")
WORLD_AXES = {letter: axis for axis, letters in enumerate(("RL", "AP", "SI")) for letter in letters}
FORMATS = "PNG, JPEG, TIFF, BMP, NIfTI, MGZ, NRRD, MHD or DICOM"
GEOMETRY_TOLERANCE = 0.1  # of a voxel's shortest edge, at any corner: rounded headers differ by 0.01 and less


def measure_image(image: Image, directory: str | Path = ".", resample: bool = True) -> dict:
    """The facts of ``measure_array`` of one image, which is read in full.

    Raises:
        InputError: if the image is missing or unreadable.
    """
    return measure_array(first_file(image), *read_image(image, directory, resample))


def measure_array(name: str, array: np.ndarray, meta: dict) -> dict:
    """``shape``, ``channels``, ``spacing``, ``axcodes``, ``range``, ``mean``, ``note`` and what lists do not show.

    These are of what ``read_image`` gives. Shape and spacing (mm, None for pictures) are those of the spatial axes,
    axcodes is the orientation of a volume, such as LPS, else None; range is [lowest, highest], and note is an empty
    text or says what is unusual. few_values says that it holds so few values that it may be a label map, blurred_map
    the same of a JPEG, which adds others; images of the same pixels, in whatever format and order of a volume's axes,
    have the same digest.

    Raises:
        InputError: if the image is constant, or if voxels are NaN or infinite.
    """
    rank = len(meta["spatial_shape"])
    low, high = float(array.min()), float(array.max())
    if not np.isfinite([low, high]).all():
        raise InputError(f"{name} holds {np.count_nonzero(~np.isfinite(array))} NaN or infinite voxels.")
    if low == high:
        raise InputError(f"{name} holds the value {low:g} everywhere.")
    lengths = np.linalg.norm(np.asarray(meta.get("affine", np.eye(4)))[:-1, :rank], axis=0)
    notes = [meta["note"]] if "note" in meta else []
    if array.dtype.kind in "iu" and high - low < 8:
        notes.append(f"whole numbers {low:g} to {high:g} only, perhaps a label map")
    return {
        "shape": [int(length) for length in array.shape[:rank]],
        "channels": array.shape[rank] if array.ndim > rank else 1,
        "spacing": [_short(length) for length in lengths] if "affine" in meta else None,
        "axcodes": "".join(nib.aff2axcodes(np.asarray(meta["affine"]))) if rank == 3 and "affine" in meta else None,
        "range": [_short(low), _short(high)],
        "mean": _short(float(array.mean(dtype=np.float64))),
        "note": "; ".join(notes),
        "few_values": _has_few_values(array, rank),
        "blurred_map": name.lower().endswith((".jpg", ".jpeg")) and not _sample_looks_like_image(array, rank),
        "digest": _digest(_upright(array, meta["affine"]) if rank == 3 and "affine" in meta else array),
    }


def find_outline(image: Image, directory: str | Path = ".") -> list[int]:
    """The lengths of an image's axes, sorted, without those of 1, by its header alone.

    Raises:
        Exception: whatever decoders raise of a broken file.
    """
    from PIL import Image as Picture

    path, files = Path(directory, first_file(image)), len(files_of(image))
    if path.is_dir():
        (slices,) = list_series(path)
        path, files = slices[0], len(slices)
    name = path.name.lower()
    if name.endswith(PIL_SUFFIXES):
        with Picture.open(path) as picture:
            lengths: Sequence[int] = picture.size
    elif name.endswith(NIFTI_SUFFIXES):
        lengths = nib.load(path).shape[:3]
    else:
        reader = import_package("SimpleITK", path).ImageFileReader()
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        lengths = (*reader.GetSize(), files if is_series(image) else 1)
    return sorted(length for length in lengths if length > 1)


def _upright(array: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """A view of a volume with the axes nearest to R, A, S: converters of DICOM turn rows around."""
    return nib.orientations.apply_orientation(array, nib.io_orientation(affine))


def _has_few_values(array: np.ndarray, rank: int) -> bool:
    """Whether there are at most 32 different whole numbers or colors, and few for the number of voxels."""
    pixels = array.reshape(-1, *array.shape[rank:])
    for part in (pixels[:: max(1, len(pixels) // SAMPLE)], pixels):
        values = np.unique(part, axis=0)
        if len(values) > min(MAX_CLASSES, len(pixels) ** 0.5) or (values != np.round(values)).any():
            return False
    return True


def _sample_looks_like_image(array: np.ndarray, rank: int) -> bool:
    pixels = array.reshape(-1, *array.shape[rank:])
    return looks_like_image(pixels[:: max(1, len(pixels) // SAMPLE)], 1)


def looks_like_image(array: np.ndarray, rank: int) -> bool:
    """Whether the values but the most frequent one spread as gray values do, and no label map, also as a JPEG, has."""
    if _has_few_values(array, rank):
        return False
    others = np.sort(np.unique(array, return_counts=True)[1])[:-1]
    return bool(2 * others[-FEW:].sum() < others.sum())


def _digest(array: np.ndarray) -> str:
    """Of shape and values, a large volume by slices, since a copy of it in another type takes memory."""
    found = hashlib.blake2b(repr(array.shape).encode(), digest_size=12)
    for part in array if array.size > WHOLE else [array]:
        found.update((np.asarray(part, dtype="<f4") + np.float32(0)).tobytes())  # no -0
    return found.hexdigest()


def turn(values: Sequence, own: str | None, axcodes: str | None) -> list:
    """Values of a volume's axes in their order once it is turned from the orientation ``own`` to ``axcodes``."""
    if own is None or axcodes is None:
        return list(values)
    places = [WORLD_AXES[letter] for letter in own]
    return [values[places.index(WORLD_AXES[letter])] for letter in axcodes]


def resampled_shape(shape: ArrayLike, spacing: ArrayLike, wanted: ArrayLike) -> np.ndarray:
    """The shape that ``Spacing`` of MONAI makes: the centers of the outer voxels stay where they are.

    Args:
        shape: voxels, (..., D).
        spacing: mm, (..., D).
        wanted: mm to resample to, (D,).
    """
    return np.round((np.asarray(shape) - 1) * np.asarray(spacing) / np.asarray(wanted) + 1).astype(int)


def loaded_shape(
    facts: Mapping[str, Any],
    axcodes: str | None = None,
    spacing: Sequence[float] | None = None,
    image_size: int | None = None,
) -> list[int]:
    """The shape that ``pretrain_preprocessing`` gives an image before it is padded.

    Args:
        facts: of the file, see ``measure_array``.
        axcodes: orientation that it is turned to.
        spacing: mm that it is resampled to.
        image_size: voxels that its longest side is resized to.
    """
    own, known = facts.get("axcodes"), facts.get("spacing")
    shape = turn(facts["shape"], own, axcodes)
    if spacing is not None and known is not None:
        shape = resampled_shape(shape, turn(known, own, axcodes), spacing).tolist()
    scale = 1 if image_size is None else image_size / max(shape)
    return [round(length * scale) for length in shape]


def find_distance(shape: Sequence[int], affine: np.ndarray, other: np.ndarray) -> float:
    """The most mm that a corner of an image lies away by another affine; 0 within a tenth of a voxel.

    Args:
        shape: voxels, of 2 or 3 axes.
        affine: from voxels to mm.
        other: the same, by others.
    """
    rank, affine = len(shape), np.asarray(affine)
    corners = np.array([[*corner, *[0] * (3 - rank), 1] for corner in product(*((0, n - 1) for n in shape))])
    away = float(np.linalg.norm(corners @ (affine - other)[:3].T, axis=1).max())
    near = away <= GEOMETRY_TOLERANCE * np.linalg.norm(affine[:3, :rank], axis=0).min()  # nan is not near
    return 0.0 if near else away


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def check_facts(name: str, facts: dict, spatial_dims: int, in_channels: int) -> None:
    """Refuse facts of another number of spatial dimensions or channels than the network's; gray fits 3 channels."""
    rank, channels = len(facts["shape"]), facts["channels"]
    if rank != spatial_dims:
        raise InputError(f"{name} has {rank} spatial dimensions where spatial_dims is {spatial_dims}.")
    if channels == in_channels or (channels == 1 and in_channels == 3):
        return
    count = f"{channels} differing channels" if channels > 1 else "1 channel"
    times = ", or, of time points, make a file of each" if rank == 3 and channels > 4 else ""
    raise InputError(f"{name} has {count} where in_channels is {in_channels}; pass --in_channels {channels}{times}.")
