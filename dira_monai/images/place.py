"""Where the voxels of NIfTI, NRRD and MetaImage files lie, and which other programs place them elsewhere."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from ..utils.errors import InputError
from .facts import find_distance

MILLIMETERS = {1: 1000.0, 3: 0.001}  # by the code of the unit: meters, micrometers; all others are taken as mm
UNITS = {  # in mm
    r"mm|milli\w*": 1.0,
    r"nm|nano\w*": 1e-6,
    r"[u\u00b5\u03bc]m|micro\w*": 0.001,
    r"cm|centi\w*": 10.0,
    r"m|met(er|re)s?": 1000.0,
}
SPACING = ("space directions", "spacings", "elementspacing", "elementsize")  # keys of which one is the size of voxels
ITK_HEADER = 2**16  # bytes that hold the header of an NRRD or MetaImage file
FIELDS = [  # of a header, where its voxels lie
    *("pixdim", "xyzt_units", "qform_code", "sform_code"),
    *(f"{name}_{axis}" for name, axes in (("quatern", "bcd"), ("qoffset", "xyz"), ("srow", "xyz")) for axis in axes),
]


def find_place(file: Path) -> tuple[np.ndarray, str]:
    """The affine from voxels to mm in RAS, as nibabel has it, and where other programs differ, in words or empty.

    That is the sform, else the qform, else nibabel's guess. ITK 5.4 takes the qform where the code of the sform is not
    1, a guess of its own where neither is set, the spacing of pixdim, and no shear.

    Raises:
        InputError: if the affine has no inverse, or the file is of another kind (CIFTI: values on a surface).
    """
    image = nib.load(file)
    if not isinstance(image, nib.Nifti1Pair):
        raise InputError(f"{file} is a {type(image).__name__}, which is no volume of voxels.")
    header, affine = image.header, np.array(image.affine, float)
    rank, unit = len(_spatial(image)), find_unit(header)
    if not np.isfinite(affine).all() or np.linalg.matrix_rank(affine[:3, :rank]) < rank:
        raise InputError(f"{file} has no valid affine ({_describe(header)}); write its header anew.")
    affine[:3] *= unit
    with image.file_map.get("header", image.file_map["image"]).get_prepare_fileobj("rb") as stream:
        pixdim = type(header).from_fileobj(stream, check=False)["pixdim"][1:4].astype(float)  # nibabel mends its own
    cause = _find_difference(header, _spatial(image), affine, pixdim)
    notes = [cause, f"lengths in {'meters' if unit > 1 else 'micrometers'} are read as mm" if unit != 1 else ""]
    return affine, "; ".join(filter(None, notes))


def copy_place(source: Path, target: Path) -> None:
    """Give a NIfTI file all of another one's header that says where its voxels lie, so that no program parts them."""
    fields, image = nib.load(source).header, nib.load(target, mmap=False)  # which is written anew
    header = image.header.copy()
    for name in FIELDS:
        header[name] = fields[name]
    nib.save(type(image)(np.asarray(image.dataobj), None, header), target)


def set_affine(file: Path, affine: np.ndarray) -> None:
    """Put a 2D label map (NIfTI) where its slice lies, with a third axis of length 1 where that is no plane of x, y."""
    image = nib.load(file, mmap=False)  # the file is written anew
    array = np.asarray(image.dataobj)
    nib.save(type(image)(array if np.allclose(affine[2, :2], 0) else array[..., None], affine, image.header), file)


def read_itk_header(file: Path) -> tuple[float, str]:
    """Millimeters in what the header of an NRRD or MetaImage file has lengths in; what of it ITK 5.4 passes over."""
    with file.open("rb") as stream:
        head = stream.read(ITK_HEADER)
    head = re.split(rb"\r?\n\r?\n|^ElementDataFile", head, maxsplit=1, flags=re.MULTILINE)[0]
    found = re.findall(r"^(\w[\w ]*?) *[:=] *(.*)", head.decode("utf-8", "replace"), re.MULTILINE)
    fields = {key.lower(): value.strip() for key, value in found}
    told = next(filter(None, (fields.get(key) for key in ("space units", "units", "distanceunits"))), "")
    word = next(iter(told.replace('"', " ").split()), "mm")
    unit = next((mm for key, mm in UNITS.items() if re.fullmatch(key, word, re.IGNORECASE)), None)
    notes = [f"lengths in {word} are read as mm, where ITK programs take the numbers as mm"] if unit != 1 else []
    if unit is None:
        notes = [f"lengths in {word}, which are taken as mm"]
    if not any(key in fields for key in SPACING):
        notes.append("no voxel spacing, taken as 1 mm")
    function = (fields.get("elementtointensityfunctionslope", "1"), fields.get("elementtointensityfunctionoffset", "0"))
    if not all(re.fullmatch(rf"{number}(\.0*)?", text) for number, text in zip((1, 0), function, strict=True)):
        notes.append("stored values, ElementToIntensityFunction not applied")
    return unit or 1.0, "; ".join(notes)


def _spatial(image: Any) -> tuple[int, ...]:
    return tuple(image.shape[:3])


def find_unit(header: Any) -> float:
    """Millimeters in what a NIfTI header's lengths are in."""
    return MILLIMETERS.get(int(header["xyzt_units"]) % 8, 1.0)


def _find_difference(header: Any, shape: Sequence[int], affine: np.ndarray, pixdim: np.ndarray) -> str:
    """Why ITK 5.4 places a file elsewhere than the affine, and how far; empty where it does not."""
    codes = {form: int(header[f"{form}_code"]) for form in ("sform", "qform")}
    by_sform = codes["sform"] == 1 or (codes["sform"] > 0 and codes["qform"] == 0)
    chosen = header.get_sform() if by_sform else header.get_qform()
    if not any(codes.values()):
        chosen = np.diag([-1.0, -1.0, 1.0, 1.0])
    lengths = np.linalg.norm(chosen[:3, :3], axis=0)
    other = _without_shear(chosen, np.where(pixdim == 0, 1, pixdim))
    other[:3] *= find_unit(header)
    positive = (pixdim[: len(shape)] > 0).all()
    if not (away := find_distance(shape, affine, other)) and positive:
        return ""
    if not any(codes.values()):
        cause = "neither sform nor qform is set, so its place is a guess"
    elif not positive or not np.allclose(lengths[: len(shape)], pixdim[: len(shape)], rtol=0.01):
        cause = f"pixdim {_join(pixdim)} is not the size of its voxels, {_join(lengths)}"
    elif not by_sform and codes["sform"]:
        cause = "its qform differs from its sform, which is taken"
    else:
        cause = f"its axes are sheared by {_find_shear(affine):.2g} degrees"
    return f"{cause}; ITK programs place it up to {away:.3g} mm away"


def tell_shear(shape: Sequence[int], affine: np.ndarray) -> str:
    """Says that axes are not at right angles, so that ITK programs misplace a label map of them; "" where they are."""
    away = find_distance(shape, affine, _without_shear(affine, np.linalg.norm(affine[:3, :3], axis=0)))
    degrees = f"its axes are sheared by {_find_shear(affine):.2g} degrees"
    return f"{degrees}; ITK programs read a NIfTI file of it up to {away:.3g} mm away, or not at all" if away else ""


def _without_shear(affine: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The closest affine of which the axes are at right angles, with voxels of these sizes."""
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    left, _, right = np.linalg.svd(affine[:3, :3] / np.where(lengths > 0, lengths, 1))
    other = affine.copy()
    other[:3, :3] = left @ right * sizes
    return other


def _find_shear(affine: np.ndarray) -> float:
    """Degrees by which two axes are off a right angle, at most."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return float(np.degrees(np.arcsin(abs(np.triu(axes.T @ axes, 1)).max().clip(max=1))))


def _describe(header: Any) -> str:
    size = np.linalg.norm(header.get_sform()[:3, :3], axis=0)
    codes = f"sform {_join(size)} of code {int(header['sform_code'])}, qform of code {int(header['qform_code'])}"
    return f"{codes}, pixdim {_join(header['pixdim'][1:4])}, unit {1000 * find_unit(header):g} um"


def _join(numbers: np.ndarray) -> str:
    return " x ".join(f"{number:.6g}" for number in numbers)
