"""The boxes that a person drew: read from a table, or made from the connected components of masks."""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray

from ...datalists.label_maps import check_geometry, in_image_folders
from ...datalists.options import REST
from ...datalists.patients import PATIENT_COLUMNS
from ...datalists.tables import FILE_COLUMNS, find_image, index_images, pick_column, read_table
from ...images.facts import measure_array
from ...images.find import Image, find_images, first_file, read_image, stem
from ...images.measuring import measure_each
from ...images.reader import SUFFIXES
from ...utils.errors import InputError
from .metrics import component_boxes

FINDING_COLUMNS = ("finding", "label", "finding label", "class name", "class", "target")
AXES = (  # columns of the lower end, the upper end and the size; with brackets: ChestX-ray14's BBox_List_2017.csv
    (("x", "left", "x_min", "xmin", "bbox [x"), ("right", "x_max", "xmax"), ("w", "width")),
    (("y", "top", "y_min", "ymin"), ("bottom", "y_max", "ymax"), ("h", "height", "h]")),
    (("z",), (), ("d", "depth")),
)
OVERSHOOT = 1  # voxels that a box may stand out of its image: it was counted from 1, or drawn to the last pixel
Boxes = Mapping[tuple[str, str], Sequence[ndarray]]  # by image and finding


class GroundTruth(NamedTuple):
    """The true boxes of one finding in one image."""

    image: Image  # relative to the folder
    finding: str  # a class
    boxes: ndarray  # (N, 2 spatial_dims), see ``metrics``
    shape: tuple[int, ...]  # voxels along each spatial axis of the file


def class_of(word: str, class_names: Sequence[str], label_map: Mapping[str, str | None], where: str) -> str | None:
    """The class that a word of a table stands for, or None where ``label_map`` (to classes or None) excludes it.

    Raises:
        InputError: if it is no class; begins with ``where``.
    """
    name = label_map.get(word, word if word in class_names else label_map.get(REST, word))
    if name is None or name in class_names:
        return name
    raise InputError(
        f"{where}: the finding {name!r} is none of the classes {', '.join(class_names)}; "
        f'say what it is by --label_map "{{{word!r}: CLASS}}", or None to leave it out.'
    )


def read_boxes(
    table: str | Path,
    directory: str | Path,
    class_names: Sequence[str],
    label_map: Mapping[str, str | None],
    strict: bool = False,
) -> tuple[list[GroundTruth], list[str]]:
    """The boxes of a CSV file, by image and finding in the order of the table, and of the other rows what is wrong.

    The table has a column of files (``FILE_COLUMNS``, ``PATIENT_COLUMNS``); one of ``FINDING_COLUMNS``; and those of
    ``AXES``: x and y, w and h or the like, for volumes also z and d. A row without numbers there has no box. The unit
    is a voxel of the file's array, x along its first axis: of a PNG x runs to the right and y down; a box ends before
    right and bottom. An image is named as in a table of labels (``read_label_table``), with any suffix or none. Rows of
    images that are not there are excluded.

    Args:
        table: the file.
        directory: folder of the images, searched with its sub-folders.
        class_names: of the classifier.
        label_map: see ``class_of``.
        strict: raise at a row whose image is not there.

    Raises:
        InputError: if a column is missing, a box is empty, outside of its image or of no class, or a name fits several
            images.
    """
    header, cells = read_table(table, "table of boxes")
    columns = [name.strip().lower() for name in header]
    file = pick_column(table, columns, None, None, (*FILE_COLUMNS, *PATIENT_COLUMNS))  # patientId of RSNA is a file
    word = pick_column(table, columns, None, None, FINDING_COLUMNS)
    index, rows = _Index(directory, table, strict), list[tuple[Image, str, ndarray, str]]()
    for number, cell in enumerate(cells, start=2):
        row, where = {name.strip().lower(): value for name, value in cell.items()}, f"{table}, row {number}"
        image = index.find(row[file], where)
        if not image or not _has_box(row):
            continue
        if (finding := class_of(row[word], class_names, label_map, where)) is not None:
            rows.append((image, finding, _read_box(row, where), where))
    facts = _measure((image for image, *_ in rows), directory)
    found: dict[tuple[str, str], list[ndarray]] = defaultdict(list)
    count = 0
    for image, finding, box, where in rows:
        name = first_file(image)
        clipped = _clip_box(box, facts[name]["shape"], f"{where}: the box of {name}")
        found[name, finding].append(clipped[None])
        count += bool((clipped != box).any())
    if count:
        print(f"{table}: {count} of {len(rows)} boxes stand out of their images by at most a voxel and are clipped")
    return _truths(found, facts), index.missing


def _truths(found: Boxes, facts: Mapping[str, Mapping[str, Any]]) -> list[GroundTruth]:
    return [
        GroundTruth(facts[name]["image"], finding, np.concatenate(boxes), tuple(facts[name]["shape"]))
        for (name, finding), boxes in found.items()
    ]


def _number(row: Mapping[str, str], wanted: Sequence[str], where: str) -> float:
    name = next((name for name in wanted if name in row), None)
    if name is None:
        raise InputError(f"{where}: there is no column {' or '.join(wanted)}; the columns are {', '.join(row)}.")
    try:
        return float(row[name])
    except ValueError:
        raise InputError(f"{where}: {name} must be a number, got {row[name]!r}.") from None


def _has_box(row: Mapping[str, str]) -> bool:
    """Whether any of a box's columns that are there is filled: tables list images without findings too."""
    cells = [row[name] for names in chain.from_iterable(AXES) for name in names if name in row]
    return not cells or any(cell.lower() not in ("", "nan") for cell in cells)


def _read_box(row: Mapping[str, str], where: str) -> ndarray:
    low, high = [], []
    for lows, highs, sizes in AXES if "z" in row else AXES[:2]:
        low.append(_number(row, lows, where))
        if any(name in row for name in highs):
            high.append(_number(row, highs, where))
        else:
            high.append(low[-1] + _number(row, sizes + highs, where))
    return np.array(low + high)


def _clip_box(box: ndarray, shape: Sequence[int], where: str) -> ndarray:
    """The part of a box in its image, which must be all but ``OVERSHOOT``."""
    low, high = np.split(box, 2)
    if len(low) != len(shape):
        text = ", ".join(f"{value:g}" for value in box)
        raise InputError(f"{where} has {len(low)} axes, {text}, where the image has {len(shape)}.")
    reach = f"it reaches from {low.tolist()} to {high.tolist()}"
    if not (high > low).all():
        raise InputError(f"{where} is empty: {reach}.")
    inside = np.clip(box, 0, [*shape, *shape])
    if (np.abs(inside - box) > OVERSHOOT).any() or not (inside[len(low) :] > inside[: len(low)]).all():
        raise InputError(f"{where} lies outside of the image of {' x '.join(map(str, shape))}: {reach}.")
    return inside


def read_masks(
    folder: str | Path,
    directory: str | Path,
    class_names: Sequence[str],
    label_map: Mapping[str, str | None],
    finding: str | None = None,
    strict: bool = False,
) -> tuple[list[GroundTruth], list[str]]:
    """One box for each connected component of each label of each mask, and of masks without image what is wrong.

    Each mask in the folder, in which no image lies, is named like its image. The words of the ``label_map`` are the
    labels, as in "1"; ``finding`` is the class that every label over 0 stands for.

    Raises:
        InputError: if a mask has another shape or place in space than its image, broken numbers, or a label that is no
            class.
    """
    index, pairs = _Index(directory, folder, strict), list[tuple[Image, Image]]()
    for mask in find_images(folder):
        if image := index.find(_bare(first_file(mask)), str(Path(folder, first_file(mask)))):
            pairs.append((mask, image))
    facts = _measure((image for _, image in pairs), directory)
    found: dict[tuple[str, str], list[ndarray]] = defaultdict(list)
    for mask, image in pairs:
        name, where = first_file(image), str(Path(folder, first_file(mask)))
        labels = _read_mask(mask, folder, facts[name])
        for value in np.unique(labels[labels > 0]):
            word = f"{value:g}" if finding is None else finding
            kind = class_of(word, class_names, label_map, where)
            if kind is not None:
                found[name, kind].append(component_boxes(labels == value))
    return _truths(found, facts), index.missing


def _read_mask(mask: Image, folder: str | Path, facts: Mapping[str, Any]) -> ndarray:
    name = Path(folder, first_file(mask))
    array, meta = read_image(mask, folder)
    array = np.round(array, 3)  # as in training: slopes in float32 make 0.99999994 of 1
    if list(array.shape) != facts["shape"]:
        sizes = [" x ".join(map(str, lengths)) for lengths in (array.shape, facts["shape"])]
        raise InputError(f"{name} has the shape {sizes[0]} where its image has {sizes[1]}.")
    if (wrong := array[array != np.round(array)]).size:
        raise InputError(f"{name} must hold whole numbers, got {wrong[0]:g}.")
    check_geometry(str(name), facts["shape"], facts["affine"], meta.get("affine"))
    return array


def _bare(file: str) -> str:
    known = file.lower().endswith((*SUFFIXES, ".dcm"))  # what follows the last point of 1.2.840 is no suffix
    return str(PurePosixPath(file).with_name(stem(file))) if known else file


class _Index:
    """The images of a folder by their names, as in a table of labels, and by their paths without suffix.

    None lies in the folder of the masks. ``missing`` has a sentence for each name that was not found.
    """

    def __init__(self, directory: str | Path, source: str | Path, strict: bool) -> None:
        root, apart = Path(os.path.abspath(directory)), os.path.realpath(source)
        found = [(image, Path(os.path.realpath(root / first_file(image)))) for image in find_images(directory)]
        images = in_image_folders([image for image, file in found if not file.is_relative_to(apart)])
        bare: dict[str, list[Image]] = defaultdict(list)
        for image in images:
            bare[_bare(first_file(image))].append(image)
        tiers = index_images(images, root, Path(source))
        self.tiers = [*tiers[:3], bare, *tiers[3:]]
        self.directory, self.strict = directory, strict
        self.missing: list[str] = []

    def find(self, name: str, where: str) -> Image | None:
        image = find_image(name, self.tiers, where) or find_image(_bare(name), self.tiers, where)
        if image is None:
            self.missing.append(f"{where}: the image {name!r} does not exist in {self.directory}.")
            if self.strict:
                raise InputError(self.missing[-1])
        return image


def _measure(images: Iterable[Image], directory: str | Path) -> dict[str, dict]:
    """Facts, affine and image by the name of each, which all have the same number of axes."""
    different = {first_file(image): image for image in images}
    found = measure_each(_measure_place, list(different.values()), directory, strict=True)
    facts = {name: fact for name, fact in zip(different, found, strict=True) if isinstance(fact, dict)}
    ranks = {len(fact["shape"]): name for name, fact in facts.items()}
    if len(ranks) > 1:
        names = " and ".join(f"{name} ({rank})" for rank, name in sorted(ranks.items()))
        raise InputError(f"the boxed images must all have 2 or all 3 spatial axes, but there are {names}.")
    return facts


def _measure_place(image: Image, directory: str | Path) -> dict:
    array, meta = read_image(image, directory)
    return measure_array(first_file(image), array, meta) | {"affine": meta.get("affine"), "image": image}
