"""The boxes that a person drew: read from a table, or made from the connected components of masks."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy import ndarray

from .errors import InputError
from .localization import component_boxes
from .patients import read_table
from .reader import SUFFIXES, ScanReader
from .scans import Image, find_images, first_file, measure_images

FILE_COLUMNS = ("file", "image", "path", "image index")
FINDING_COLUMNS = ("finding", "label", "finding label")
# of the axes x, y and z; the names with brackets are those of ChestX-ray14's BBox_List_2017.csv
LOW_COLUMNS = (("x", "left", "bbox [x"), ("y", "top"), ("z",))
HIGH_COLUMNS = (("right",), ("bottom",), ())
SIZE_COLUMNS = (("w", "width"), ("h", "height", "h]"), ("d", "depth"))
TOLERANCE = 1e-3  # voxels that a box may stand out of its image: rounding of decimals


class Truth(NamedTuple):
    """The true boxes of one finding in one image."""

    image: Image  # relative to the folder
    finding: str  # a class
    boxes: ndarray  # (N, 2 spatial_dims), see ``localization``
    shape: tuple[int, ...]  # voxels along each spatial axis of the file


def class_of(word: str, class_names: Sequence[str], label_map: Mapping[str, str | None], where: str) -> str | None:
    """The class that a word of a table stands for, or None where ``label_map`` says that it is left out.

    Args:
        word: as it stands in the table.
        class_names: of the classifier.
        label_map: from words to classes or None.
        where: what an error begins with.

    Raises:
        InputError: if it is no class.
    """
    name = label_map.get(word, word)
    if name is None or name in class_names:
        return name
    raise InputError(
        f"{where}: the finding {name!r} is none of the classes {', '.join(class_names)}; "
        f'say what it is by --label_map "{{{word!r}: CLASS}}", or None to leave it out.'
    )


def read_boxes(
    table: str | Path, directory: str | Path, class_names: Sequence[str], label_map: Mapping[str, str | None]
) -> list[Truth]:
    """The boxes of a CSV file, by image and finding in the order of the table.

    The table has a column file, image or path; one finding or label; x and y or left and top; and w and h, width and
    height, or right and bottom; for volumes also z and d or depth. The unit is a voxel of the file's array, x along its
    first axis: of a PNG x runs to the right and y down. An image is named by its path, or the end of it, with or
    without suffix.

    Args:
        table: the file.
        directory: folder of the images, searched with its sub-folders.
        class_names: of the classifier.
        label_map: see ``class_of``.

    Raises:
        InputError: if a column or an image is missing, or a box is empty, outside of its image or of no class.
    """
    header, cells = read_table(table, "table of boxes")
    columns = [name.strip().lower() for name in header]
    rows = [{name.strip().lower(): cell for name, cell in row.items()} for row in cells]
    found: dict[tuple[str, str], list[tuple[ndarray, str]]] = defaultdict(list)
    index, images = _index(directory), dict[str, Image]()
    for number, row in enumerate(rows, start=2):
        where = f"{table}, row {number}"
        finding = class_of(_cell(row, columns, FINDING_COLUMNS, where), class_names, label_map, where)
        if finding is not None:
            image = _find(_cell(row, columns, FILE_COLUMNS, where), index, directory, where)
            images[first_file(image)] = image
            found[first_file(image), finding].append((_read_box(row, columns, where), where))
    shapes = _shapes(images, directory)
    for (name, _), boxes in found.items():
        for box, where in boxes:
            _check_box(box, shapes[name], f"{where}: the box of {name}")
    return [
        Truth(images[name], finding, np.array([box for box, _ in boxes]), shapes[name])
        for (name, finding), boxes in found.items()
    ]


def _pick(columns: Sequence[str], wanted: Sequence[str]) -> str | None:
    return next((name for name in wanted if name in columns), None)


def _cell(row: Mapping[str, str], columns: Sequence[str], wanted: Sequence[str], where: str) -> str:
    name = _pick(columns, wanted)
    if name is None:
        raise InputError(f"{where}: there is no column {' or '.join(wanted)}; the columns are {', '.join(columns)}.")
    return row[name]


def _number(row: Mapping[str, str], columns: Sequence[str], wanted: Sequence[str], where: str) -> float:
    text = _cell(row, columns, wanted, where)
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{where}: {_pick(columns, wanted)} must be a number, got {text!r}.") from None


def _read_box(row: Mapping[str, str], columns: Sequence[str], where: str) -> ndarray:
    low, high = [], []
    dims = 3 if _pick(columns, LOW_COLUMNS[2]) else 2
    for lows, highs, sizes in list(zip(LOW_COLUMNS, HIGH_COLUMNS, SIZE_COLUMNS, strict=True))[:dims]:
        low.append(_number(row, columns, lows, where))
        if _pick(columns, highs):
            high.append(_number(row, columns, highs, where))
        else:
            high.append(low[-1] + _number(row, columns, sizes + highs, where))
    return np.array(low + high)


def _check_box(box: ndarray, shape: tuple[int, ...], where: str) -> None:
    low, high = np.split(box, 2)
    text, size = ", ".join(f"{value:g}" for value in box), " x ".join(map(str, shape))
    if len(low) != len(shape):
        raise InputError(f"{where} has {len(low)} axes, {text}, where the image has {len(shape)}.")
    if not (high > low).all():
        raise InputError(f"{where} is empty: it reaches from {low.tolist()} to {high.tolist()}.")
    if (low < -TOLERANCE).any() or (high > np.array(shape) + TOLERANCE).any():
        raise InputError(
            f"{where} lies outside of the image of {size}: it reaches from {low.tolist()} to {high.tolist()}."
        )


def read_masks(
    folder: str | Path,
    directory: str | Path,
    class_names: Sequence[str],
    label_map: Mapping[str, str | None],
    finding: str | None = None,
) -> list[Truth]:
    """One box for each connected component of each label of each mask; masks of zeros have none.

    Args:
        folder: of the masks; each is named like its image, as in ``read_boxes``.
        directory: folder of the images.
        class_names: of the classifier.
        label_map: see ``class_of``; the words are the labels, as in "1".
        finding: the class that every label over 0 stands for.

    Raises:
        InputError: if a mask has no image, another shape than it, broken numbers, or a label that is no class.
    """
    found: dict[tuple[str, str], list[ndarray]] = defaultdict(list)
    index, masks = _index(directory), find_images(folder)
    partners = [_find(_bare(first_file(mask)), index, directory, str(Path(folder, first_file(mask)))) for mask in masks]
    images = {first_file(image): image for image in partners}
    shapes = _shapes(images, directory)
    for mask, name in zip(masks, map(first_file, partners), strict=True):
        where = str(Path(folder, first_file(mask)))
        labels = _read_mask(mask, folder, shapes[name])
        for value in np.unique(labels[labels > 0]):
            word = f"{value:g}" if finding is None else finding
            kind = class_of(word, class_names, label_map, where)
            if kind is not None:
                found[name, kind].append(component_boxes(labels == value))
    return [Truth(images[name], kind, np.concatenate(boxes), shapes[name]) for (name, kind), boxes in found.items()]


def _read_mask(mask: Image, folder: str | Path, shape: tuple[int, ...]) -> ndarray:
    reader, files = ScanReader(), [mask] if isinstance(mask, str) else mask
    array, _ = reader.get_data(reader.read([Path(folder, file) for file in files]))
    if array.shape != shape:
        sizes = [" x ".join(map(str, lengths)) for lengths in (array.shape, shape)]
        raise InputError(f"{Path(folder, files[0])} has the shape {sizes[0]} where its image has {sizes[1]}.")
    if (wrong := array[array != np.round(array)]).size:
        raise InputError(f"{Path(folder, files[0])} must hold whole numbers, got {wrong[0]:g}.")
    return array


def _bare(file: str) -> str:
    suffix = next((known for known in (*SUFFIXES[::-1], ".dcm") if file.lower().endswith(known)), "")
    return file[: len(file) - len(suffix)]


def _names(image: Image) -> list[str]:
    """The path without suffix; of a DICOM series also that of its folder."""
    file = first_file(image)
    return [_bare(file)] if isinstance(image, str) else [_bare(file), str(PurePosixPath(file).parent)]


def _index(directory: str | Path) -> dict[str, list[Image]]:
    """The images of a folder by the last part of their names."""
    index: dict[str, list[Image]] = defaultdict(list)
    for image in find_images(directory):
        for last in {PurePosixPath(name).name for name in _names(image)}:
            index[last].append(image)
    return index


def _find(name: str, index: Mapping[str, list[Image]], directory: str | Path, where: str) -> Image:
    """The one image that has the path ``name`` or else ends with it, in the row or of the mask ``where``."""
    bare, root = _bare(name), Path(directory).resolve().as_posix()
    near = index.get(PurePosixPath(bare).name, [])
    choices = (
        [image for image in near if first_file(image) == name],
        [image for image in near if bare in _names(image)],
        [image for image in near if any(f"{root}/{known}".endswith(f"/{bare}") for known in _names(image))],
    )
    chosen = next(filter(None, choices), [])
    if len(chosen) == 1:
        return chosen[0]
    if not chosen:
        raise InputError(f"{where}: the image {name!r} does not exist in {directory}.")
    others = ", ".join(first_file(image) for image in chosen[:3])
    raise InputError(f"{where}: the image {name!r} fits {len(chosen)} files of {directory}: {others}.")


def _shapes(images: Mapping[str, Image], directory: str | Path) -> dict[str, tuple[int, ...]]:
    facts = measure_images(list(images.values()), directory, strict=True)
    shapes = {name: tuple(fact["shape"]) for name, fact in zip(images, facts, strict=True) if isinstance(fact, dict)}
    ranks = {len(shape): name for name, shape in shapes.items()}
    if len(ranks) > 1:
        names = " and ".join(f"{name} ({rank})" for rank, name in sorted(ranks.items()))
        raise InputError(f"the boxed images must all have 2 or all 3 spatial axes, but there are {names}.")
    return shapes
