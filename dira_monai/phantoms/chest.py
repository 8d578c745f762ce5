"""The built-in data sets: synthetic chest CT, chest X-rays, and primitives in 2D and 3D, with labels."""

import gzip
import io
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
from numpy import ndarray
from PIL import Image
from tqdm import tqdm

from ..utils.errors import InputError
from ..utils.files import atomic_write, user_path
from .anatomy import ORGANS, Patient, draw_patient, generator, render
from .primitives import draw_primitives

VERSION = 1  # of the generator: grows when the same seed no longer gives the same data
SPLITS = {2: "val", 3: "test", 7: "test"}  # by case number modulo 10; the others are train

KINDS = ("ct", "xray", "primitives_2d", "primitives_3d")
README = """Synthetic data, not patients: {kind} phantoms with {content}, for trying out and testing software.
Made by dira_monai.phantom.write_phantoms, generator version {version}, kind {kind}, seed {seed}.
Nothing measured on these images says anything about a method's value in the clinic.
"""

XRAY_FIELD, XRAY_SIZE = 310.0, 256  # side of the square X-ray in mm, and in pixels by default


class ChestCT(NamedTuple):
    """A synthetic CT volume; the axes of the arrays are RAS+: right, anterior, superior."""

    image: ndarray  # int16, HU
    organs: ndarray  # uint8, see ORGANS; vessels and nodules inside a lung are lung
    nodules: ndarray  # uint8, 0 or the number of the nodule, from 1
    affine: ndarray  # (4, 4), voxels to mm


class ChestXray(NamedTuple):
    """A synthetic posterior-anterior chest X-ray: row 0 is superior, column 0 is the patient's right."""

    image: ndarray  # uint8 (rows, columns), bone is bright
    organs: ndarray  # uint8 (rows, columns): the visible lung fields and the heart in front of them, see ORGANS
    boxes: list[tuple[int, ...]]  # one a nodule: left, top, right, bottom in pixels, the last two exclusive
    label: int  # 1 where the patient has a nodule


def _axis(count: int, spacing: float) -> ndarray:
    return (np.arange(count) - (count - 1) / 2) * spacing


def _blur(values: ndarray, axes: Sequence[int]) -> ndarray:
    for axis in axes:
        values = (values + np.roll(values, 1, axis) + np.roll(values, -1, axis)) / 3
    return values


def chest_ct(seed: int | Sequence[int], shape: Sequence[int] = (112, 96, 80), spacing: float = 3.0) -> ChestCT:
    """A synthetic chest CT of the patient ``seed``, the same patient as in ``chest_xray``.

    The patient's name is one or several integers of at least 0. ``shape`` counts voxels to the right, anterior and
    superior of an edge of ``spacing`` mm; the chest is in the middle, about 320 x 230 x 240 mm large.
    """
    patient, rng = draw_patient(seed), generator(seed, 1)
    axes = [_axis(count, spacing) for count in shape]
    hu, organs, nodules = render(patient, rng, axes, spacing)
    noise = rng.standard_normal(hu.shape, dtype=np.float32)
    hu += 10 * noise + _blur(noise, (0, 1, 2)) * np.where(organs == ORGANS["lung"], np.float32(160), np.float32(50))
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = [axis[0] for axis in axes]
    return ChestCT(np.clip(np.rint(hu), -1024, 3071).astype(np.int16), organs, nodules, affine)


def _boxes(patient: Patient, size: int) -> list[tuple[int, ...]]:
    center, radius = patient.nodules[:, [0, 2]], patient.nodules[:, 3:]
    low, high = (size / 2 - (center + r) * size / XRAY_FIELD for r in (radius, -radius))
    return [tuple(box) for box in np.hstack([np.floor(low), np.ceil(high)]).astype(int).tolist()]


def chest_xray(seed: int | Sequence[int], size: int = XRAY_SIZE) -> ChestXray:
    """A synthetic chest X-ray of the patient ``seed``: parallel projection, attenuation of bone as at low energy.

    ``size`` is the number of rows and columns; the field is 310 mm large at every size.
    """
    patient, rng = draw_patient(seed), generator(seed, 1)
    count, step = min(size, 192), 4.0  # finer pixels are interpolated
    side = _axis(count, XRAY_FIELD / count)
    volume = render(patient, rng, [side, _axis(64, step), side], max(2.0, XRAY_FIELD / count))
    hu, organs, _ = (part[::-1, :, ::-1].transpose(2, 0, 1) for part in volume)

    def project(values: ndarray) -> ndarray:
        thickness = Image.fromarray(values.sum(axis=2, dtype=np.float32) * step)
        return np.asarray(thickness.resize((size, size), Image.Resampling.BICUBIC))

    water = project(1 + hu / 1000 + 3 * np.maximum(hu / 1000 - 0.12, 0))  # mm
    level = 1 - np.exp(-0.008 * water) * (1 + 0.015 * rng.standard_normal(water.shape, dtype=np.float32))
    low, high = np.percentile(level, [1, 99.7])
    image = np.rint(np.clip((level - low) / (high - low), 0, 1) ** 1.5 * 255).astype(np.uint8)
    lung, heart = (_blur(project(organs == ORGANS[name]), (0, 1) * 3) for name in ("lung", "heart"))
    shadows = np.select([heart > 10, lung > 40], [np.uint8(ORGANS["heart"]), np.uint8(ORGANS["lung"])], np.uint8(0))
    return ChestXray(image, shadows, _boxes(patient, size), int(len(patient.nodules) > 0))


def _png(pixels: ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def _nifti(voxels: ndarray, affine: ndarray) -> bytes:
    image = nibabel.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    return gzip.compress(image.to_bytes(), 6, mtime=0)  # no date: the same case is the same file


def _write(path: Path, content: bytes) -> None:
    """Write a file that is complete as soon as it has its name; one with the same content stays untouched."""
    if path.is_file() and path.read_bytes() == content:
        return
    with atomic_write(path) as file:
        file.write(content)


def _write_primitives(dims: int, root: Path, seed: int, numbers: Iterable[int]) -> None:
    """Write the images and the label maps of the cases where they are missing."""
    suffix, axes, count = ("png", (256, 256), (4, 16)) if dims == 2 else ("nii.gz", (96, 96, 96), (12, 40))
    for number in numbers:
        files = [root / f"{folder}/case_{number:04d}.{suffix}" for folder in ("images", "labels")]
        if all(file.is_file() for file in files):
            continue
        (image,), classes = draw_primitives((seed, number), (1, *axes), count, (0.05, 0.3))
        gray = np.rint(image * 255).astype(np.uint8) if dims == 2 else np.rint(image * 2000 - 1000).astype(np.int16)
        for file, values in zip(files, (gray, classes), strict=True):
            _write(file, _png(values) if dims == 2 else _nifti(values, np.eye(4)))


def _write_case(root: Path, kind: str, seed: int, number: int) -> tuple[list[str], list[str]]:
    """Write the files of a case that are missing; returns its rows for ``labels.csv`` and ``boxes.csv``."""
    folders, suffix = (("images", "labels", "nodules"), "nii.gz") if kind == "ct" else (("images", "masks"), "png")
    files = [f"{folder}/case_{number:04d}.{suffix}" for folder in folders]
    if not all((root / file).is_file() for file in files):
        if kind == "ct":
            volume = chest_ct((seed, number))
            contents = [_nifti(voxels, volume.affine) for voxels in volume[:3]]
        else:
            xray = chest_xray((seed, number))
            contents = [_png(xray.image), _png(np.uint8(255) * (xray.organs == ORGANS["lung"]))]
        for file, content in zip(files, contents, strict=True):
            if not (root / file).is_file():
                _write(root / file, content)
    patient = draw_patient((seed, number))
    label = f"{files[0]},{int(len(patient.nodules) > 0)},patient_{number:04d},{SPLITS.get(number % 10, 'train')}"
    return [label], [f"{files[0]},{','.join(map(str, box))},nodule" for box in _boxes(patient, XRAY_SIZE)]


def write_phantoms(directory: str | Path, kind: str = "ct", count: int = 24, seed: int = 0) -> None:
    """Write a synthetic data set; cases that are complete already are kept, so a larger ``count`` only adds cases.

    CT: NIfTI in ``images``, ``labels`` (see ``ORGANS``) and ``nodules`` (numbered). X-ray: PNG of 256 x 256 pixels in
    ``images`` and ``masks`` (lung fields 255), and ``boxes.csv``. Both: ``labels.csv`` with the label (1: has a
    nodule), the patient and the split of each case, 70% train, 10% val, 20% test. Primitives: PNG of 256 x 256 pixels,
    or NIfTI of 96 x 96 x 96 voxels from -1000 to 1000, in ``images``, and ``labels`` (see ``primitives.SHAPES``).

    Args:
        directory: folder to fill, made where missing; one with phantoms of another kind, seed or version is refused.
        kind: ``ct``, ``xray``, ``primitives_2d`` or ``primitives_3d``.
        count: number of cases, one a patient.
        seed: of the whole set; case i depends on the seed and i only.
    """
    if kind not in KINDS:
        raise InputError(f"kind must be {', '.join(KINDS[:-1])} or {KINDS[-1]}, got {kind!r}.")
    for name, value, least in (("count", count, 1), ("seed", seed, 0)):
        if type(value) is not int or value < least:
            raise InputError(f"{name} must be an integer of at least {least}, got {value!r}.")
    root = user_path(directory)
    dims = {"primitives_2d": 2, "primitives_3d": 3}.get(kind)
    content = "geometric shapes" if dims else "organs and nodules"
    note, text = root / "README.txt", README.format(kind=kind, content=content, seed=seed, version=VERSION).encode()
    if note.exists() and note.read_bytes() != text:
        raise InputError(f"{root} holds other data than {kind} phantoms of seed {seed}; name an empty folder.")
    _write(note, text)
    numbers = tqdm(range(count), f"{kind} phantoms", disable=count <= 10)
    if dims:
        _write_primitives(dims, root, seed, numbers)
    else:
        _write_tables(root, kind, [_write_case(root, kind, seed, number) for number in numbers])


def _write_tables(root: Path, kind: str, cases: Sequence[tuple[list[str], list[str]]]) -> None:
    """Write the rows of all cases."""
    tables = {"labels": "file,label,patient,split", "boxes": "file,left,top,right,bottom,finding"}
    for (name, header), rows in zip(tables.items(), zip(*cases, strict=True), strict=True):
        if name == "labels" or kind == "xray":
            _write(root / f"{name}.csv", "\n".join([header, *chain.from_iterable(rows), ""]).encode())
