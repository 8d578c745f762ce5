"""Label maps written of the masks of each image."""

import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from PIL import Image as Picture

from ...bundle.values import type_word, type_words
from ...datalists.label_maps import check_geometry
from ...datalists.layouts import split_names
from ...images.dicom_seg.read import read_segments
from ...images.find import PIL_SUFFIXES, Image, first_file, read_image
from ...images.label_values import list_values
from ...utils.errors import InputError
from ...utils.files import user_path, write_json
from ...utils.parallel import parallel_map
from .masks import Case, Segment, check_complete, find_masks

MAX_CLASSES = 255  # of 8 bits, as label maps are written


class Merged(NamedTuple):
    """What a label map holds."""

    voxels: Counter[str]  # of each class
    shared: Counter[tuple[str, str]]  # voxels of two classes, the earlier and the later one


def merge_masks(
    directory: str | Path,
    output: str | Path,
    *,
    names: str | Sequence[str] | None = None,
    modalities: str | Sequence[str] | None = None,
    later_wins: bool = False,
    allow_missing: bool = False,
    label_threshold: float | None = None,
    workers: int | None = None,
) -> list[str]:
    """Write one label map an image of its masks, and say in lines what was written.

    A label map has the path of its image, lies on its grid, and holds the number of each class: 1 for the first name,
    0 elsewhere. It is a PNG for a picture, else NIfTI. ``dataset.json`` beside them has the names, as in nnU-Net.

    Args:
        directory: folder of images and masks in any format that is read.
        output: folder to write, outside of ``directory``, which does not exist or is empty.
        names: such as kidney,tumor, words of the files or of their folders; by default what the names of the masks add
            to those of their images, by the alphabet.
        modalities: words of the images, such as ct or flair,t1, where other files lie beside them.
        later_wins: a voxel of several masks is of the class that is named last; else such masks are refused.
        allow_missing: an image without a file for a class has none of it; else it is refused.
        label_threshold: a mask is where its value is above; by default everything but 0, and masks of more than two
            values are refused.
        workers: threads that read images.

    Raises:
        InputError: if there are no masks, or if one cannot be used.
    """
    root, target = Path(os.path.abspath(user_path(directory))), user_path(output)
    if target.resolve().is_relative_to(root.resolve()):
        raise InputError(f"{target} lies in {directory}, whose files are images and masks; name a folder beside it.")
    if target.is_dir() and any(target.iterdir()):
        raise InputError(f"{target} is not empty; name a new folder.")
    chosen = split_names(names)
    if len({*chosen} - {""}) < len(chosen):
        raise InputError(f"names must be different words, got {chosen}.")
    cases, classes, left_out = find_masks(root, chosen, split_names(modalities))
    check_complete(cases, classes, allow_missing)
    if len(classes) > MAX_CLASSES:
        raise InputError(f"{root} holds masks of {len(classes)} classes, where {MAX_CLASSES} are the most.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".merge-") as temporary:
        folder = Path(temporary, "maps")
        work = partial(_merge, root, folder, classes, later_wins, label_threshold)
        merged = list(parallel_map(work, cases, "merging masks", workers))
        labels = {"background": 0} | {name: number for number, name in enumerate(classes, 1)}
        write_json(folder / "dataset.json", {"labels": labels}, indent=2)
        if target.is_dir():
            target.rmdir()
        os.replace(folder, target)
    return [
        *left_out,
        *_describe(merged, classes),
        f"{target}: {len(cases)} label maps of {len(classes)} classes",
        f"go on with --labels {type_word(target)} --class_names {type_word(type_words(labels))}",
    ]


def _merge(
    root: Path, folder: Path, classes: Sequence[str], later_wins: bool, threshold: float | None, case: Case
) -> Merged:
    _, meta = read_image(case.image, root, resample=False)
    shape = tuple(meta["spatial_shape"].tolist())
    values = np.zeros(shape, np.uint8)
    shared = Counter[tuple[str, str]]()
    for number, name in enumerate(classes, 1):
        if name not in case.masks:
            continue
        mask = _read_mask(case, name, root, shape, meta.get("affine"), threshold)
        there = np.unique(values[mask], return_counts=True)
        shared += Counter({(classes[v - 1], name): n for v, n in zip(*map(np.ndarray.tolist, there), strict=True) if v})
        values[mask] = number
    if shared and not later_wins:
        raise InputError(
            f"{first_file(case.image)}: masks overlap, {_list_pairs(shared)}; give --later_wins True if such voxels "
            f"are of the class that is named later ({', '.join(classes)}; --names orders them)."
        )
    _write(folder / case.place, case.image, values, meta)
    counts = np.bincount(values.ravel(), minlength=len(classes) + 1).tolist()
    return Merged(Counter({name: n for name, n in zip(classes, counts[1:], strict=True) if n}), shared)


def _read_mask(
    case: Case, name: str, root: Path, shape: Sequence[int], affine: np.ndarray | None, threshold: float | None
) -> np.ndarray:
    """Whether each voxel of an image is in its mask of a class."""
    image = case.masks[name]
    if isinstance(image, Segment):
        if affine is None or len(shape) < 3:
            raise InputError(f"{image.file} is a segmentation of a single image, which has no place in space.")
        return read_segments(root / image.file, image.numbers, shape, affine)
    file = first_file(image)
    array, meta = read_image(image, root, resample=False)
    cure = "resample it to the grid of the image, such as by nibabel.processing.resample_from_to(mask, image, order=0)"
    if (own := tuple(meta["spatial_shape"].tolist())) != shape:
        sizes = [" x ".join(map(str, size)) for size in (own, shape)]
        raise InputError(f"the mask {file} has {sizes[0]} voxels where its image has {sizes[1]}; {cure}.")
    try:
        check_geometry(file, shape, affine, meta.get("affine"))
    except InputError as error:
        raise InputError(f"{str(error).replace('label map', 'mask').rstrip('.')}; {cure}.") from error
    pixels = np.round(array, 3).reshape(*shape, -1)  # slopes in float32 make 0.9999999 of 1
    if threshold is not None:
        return np.asarray((pixels > threshold).any(axis=-1))
    mask = np.asarray((pixels != 0).any(axis=-1))
    colors = np.unique(pixels[mask], axis=0)
    if len(colors) > 1 or (mask.all() and mask.size):
        found = list_values([f"{value:g}" for value in np.unique(array)])
        raise InputError(
            f"{file} holds the values {found} where a mask of one class has 0 and another one; it is taken for "
            f"{name} of {first_file(case.image)}: leave it out by --names, or give --label_threshold."
        )
    return mask


def _write(place: Path, image: Image, values: np.ndarray, meta: dict) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if first_file(image).lower().endswith(PIL_SUFFIXES):
        Picture.fromarray(values.T).save(f"{place}.png")
    else:
        nib.save(nib.Nifti1Image(values, meta["affine"]), f"{place}.nii.gz")


def _describe(merged: Sequence[Merged], classes: Sequence[str]) -> Iterator[str]:
    for name in classes:
        found = [part.voxels[name] for part in merged if part.voxels[name]]
        cure = "" if found else "; leave it out by --names"
        yield f"{name}: {sum(found)} voxels in {len(found)} label maps{cure}"
    shared = sum((part.shared for part in merged), Counter[tuple[str, str]]())
    if shared:
        yield f"masks overlap, and the later class is taken: {_list_pairs(shared)}"


def _list_pairs(shared: Counter[tuple[str, str]]) -> str:
    return list_values([f"{n} voxels of {one} and {other}" for (one, other), n in shared.most_common()])
