"""Pairs of image and label map: found by name, and checked voxel by voxel against the classes."""

import os
import posixpath
import re
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from ..images.facts import find_distance, measure_array
from ..images.find import (
    IMAGE_FOLDERS,
    PIL_SUFFIXES,
    Image,
    find_images,
    first_file,
    is_label_map,
    is_series,
    kind_folder,
    split_part,
    stem,
)
from ..images.label_values import check_threshold, count_values, list_values
from ..images.stock import read_as_trained, read_gray_factor, stock_path
from ..utils.errors import InputError
from ..utils.files import user_path
from .checks import first_names
from .layouts import find_longer, match_names, split_names
from .options import LabelOptions
from .rows import Found, Row
from .splits import folder_splits

MANY = 256  # values of what is rather an image: their ends are enough
Pair = tuple[Image, str]


class MisfitError(InputError):
    """A label map holds values that stand for no class."""

    def __init__(self, message: str, values: Sequence[float] = ()) -> None:
        super().__init__(message)
        self.values = list(values)


def find_label_maps(root: Path, options: LabelOptions) -> Found:
    """Images with their label maps, relative to ``root``; what has no partner is skipped.

    A label map is a file, or the folder of a DICOM series. Without ``labels`` the label maps are those of
    ``is_label_map``, in folders of one kind or beside the images, and the images lie in folders ``images`` (or
    ``imagesTr``) where there are any; else ``labels`` is the folder of the label maps, in ``root`` or anywhere.
    Partners have the same place and name, but for words of either side and, where that finds none, of modalities, or
    are alone in a folder; a DICOM series has the name of its folder, unless it is one file beside other images. An
    exact name wins.

    Raises:
        InputError: if there are no such files, or several kinds of label folders, or as ``find_patients`` does.
    """
    found, everything = Found.search(root)
    images, maps, outside = _both_sides(root, everything, options.labels)
    found.excluded.update(f"in {_folder(image)}" for image in outside)
    named = {first_file(image): key for key, image in images}
    joined = found.take_modalities([image for _, image in images], split_names(options.modalities))
    images = [(named[first_file(image)], image) for image in joined]
    partners: dict[str, Image] = {}
    choices, exact = match_names([key for key, _ in images], maps), {file: key for key, file in maps}
    wanted = Counter(choice[0] for choice in choices if choice)
    kept = _without_masks(images, choices, options.labels)
    found.label_maps = len(images) - len(kept)
    for (key, image), choice in kept:
        name = first_file(image)
        if not choice:
            found.skip(image, f"{name} has no label map.")
        elif len(choice) > 1:
            folders = ", or name the folder of one by --labels" if len({*map(_folder, choice)}) > 1 else ""
            slices = all(file.lower().endswith(PIL_SUFFIXES) for file in choice) and is_series(image)
            cure = (
                "write those of slices into one volume, such as NIfTI"
                if slices
                else f"merge masks of a class each by dira-monai merge-masks{folders}"
            )
            found.skip(image, f"{name} has several label maps: {first_names(choice)}; {cure}.")
        elif wanted[choice[0]] > 1 and exact[choice[0]] != key:
            others = f"the label map {choice[0]} with {wanted[choice[0]] - 1} other images"
            found.skip(image, f"{name} shares {others}; say which images belong together by --modalities.")
        elif choice[0] in partners:
            other = first_file(partners[choice[0]])
            found.skip(image, f"{name} has the same label map as {other}, {choice[0]}.")
        else:
            partners[choice[0]] = image
    for _, file in maps:
        if file not in partners:
            found.skip(file, f"the label map {file} has no image.")
    pairs = zip(partners.items(), folder_splits([*partners.values()]), strict=True)
    found.rows = [Row(image, label=file, split=split) for (file, image), split in pairs]
    found.fill_patients(options.patient, (options.patient_column, options.file_column))
    return found


def _without_masks(
    images: Sequence[tuple[str, Image]], choices: Sequence[list[str]], labels: str | None
) -> list[tuple[tuple[str, Image], list[str]]]:
    """Images with their choices; with a folder of labels without what these were merged from, ``case1_kidney``."""
    masks = find_longer([first_file(image) for _, image in images]) if labels else set()
    pairs = zip(images, choices, strict=True)
    return [(image, choice) for image, choice in pairs if choice or first_file(image[1]) not in masks]


def _both_sides(
    root: Path, everything: Sequence[Image], labels: str | None
) -> tuple[list[tuple[str, Image]], list[tuple[str, str]], list[Image]]:
    """Images and label maps with their names, and images beside the folders of images.

    The name is the path without suffix and without the folder of images or labels.
    """
    crowds = find_crowds(everything)
    located = [(*locate(image, crowds), image) for image in everything]
    if labels is None:
        others = [f"{word}{part}" for word in ("labels", "masks") for part in ("ts", "va", "val")]
        named = [row for row in located if is_map(row[2])]
        maps = [(kind, key, str(stock_path(image, root))) for kind, key, image in named if kind not in others]
        maps = [row for row in maps if not row[0].startswith("overlay")] or maps
        if len(kinds := _find_kinds(maps)) > 1:
            raise InputError(f"{root} holds label maps in the folders {' and '.join(kinds)}; name one by --labels.")
        found = [(key, file) for _, key, file in maps]
        located = [row for row in located if not is_map(row[2])]
    else:
        folder = label_folder(root, labels)
        above = PurePosixPath(os.path.relpath(folder, root))
        found = [(locate(image)[1], str(above / str(stock_path(image, folder)))) for image in find_images(folder)]
        located = [row for row in located if not PurePosixPath(first_file(row[2])).is_relative_to(above)]
        located = [row for row in located if not is_map(row[2])] or located  # those of other classes
    volumes = [row for row in found if not row[1].lower().endswith(PIL_SUFFIXES)]
    if volumes and not any(first_file(image).lower().endswith(PIL_SUFFIXES) for _, _, image in located):
        found = volumes  # the others are snapshots of them
    images = [(key, image) for kind, key, image in located if kind in IMAGE_FOLDERS]
    outside = [image for kind, _, image in located if kind not in IMAGE_FOLDERS] if images else []
    if located and not images:
        shared = posixpath.commonpath([PurePosixPath(first_file(image)).parent for _, _, image in located])
        start = f"{shared}/" if labels is not None else ""
        images = [(key.removeprefix(start), image) for _, key, image in located]
    if not images or not found:
        raise InputError(
            f"{root} holds no images with label maps: folders images and labels (or masks, or imagesTr and labelsTr), "
            f"names such as x_seg beside x, or --labels FOLDER are needed, got {labels!r}; masks of a class each, as "
            "x_liver beside x, are merged by dira-monai merge-masks."
        )
    return images, found, outside


def _find_kinds(maps: Sequence[tuple[str, str, str]]) -> list[str]:
    """The folders of label maps; those that differ in a number, as GT_01 and GT_02, are one where no key is in both."""
    keys: dict[str, list[str]] = {}
    kinds = {kind.removesuffix("s"): kind for kind, _, _ in maps if kind}
    bases = {kind: re.sub(r"[_\-. ]?[a-z]?\d+$", "", kind) for kind, _, _ in maps}
    for kind, key, _ in maps:
        keys.setdefault(bases[kind], []).append(key)
    alone = {base for base, own in keys.items() if len({*own}) == len(own)}
    return sorted({bases[kind] if bases[kind] in alone else name: kind for name, kind in kinds.items()}.values())


def in_image_folders(images: Sequence[Image]) -> list[Image]:
    """Those that lie in folders ``images`` or ``imagesTr``, or all where there is no such folder."""
    return [image for image in images if locate(image)[0] in IMAGE_FOLDERS] or list(images)


def label_folder(root: Path, labels: str) -> Path:
    """The folder of the label maps, looked for in the data set first; a missing one is refused."""
    for folder in (root / labels, Path(os.path.abspath(user_path(labels)))):
        if folder.is_dir():
            return folder
    raise InputError(
        f"labels must be a folder of label maps, got {labels!r}, which does not exist, also not in {root}."
    )


def is_map(image: Image) -> bool:
    """As ``is_label_map``; a series has the name of its folder."""
    return is_label_map(first_file(image)) or (is_series(image) and is_label_map(str(_folder(image))))


def _folder(image: Image) -> PurePosixPath:
    return PurePosixPath(first_file(image)).parent


def find_crowds(images: Sequence[Image]) -> set[PurePosixPath]:
    """The folders that several images begin in."""
    return {folder for folder, count in Counter(map(_folder, images)).items() if count > 1}


def place_of(image: Image, crowds: Collection[PurePosixPath] = ()) -> PurePosixPath:
    """The path without the suffix; of a DICOM series that of its folder.

    One of a single file in a folder of the ``crowds`` has its own.
    """
    path = PurePosixPath(first_file(image))
    own = not is_series(image) or (len(image) == 1 and path.parent in crowds)
    return path.with_name(stem(path.name)) if own else path.parent


def locate(image: Image, crowds: Collection[PurePosixPath] = ()) -> tuple[str, str]:
    """The folder named as one of images or labels, "" where none is, and ``place_of`` with its split alone."""
    path, parts = PurePosixPath(first_file(image)), list(place_of(image, crowds).parts)
    kind, place = kind_folder(str(path))
    if 0 <= place < len(parts) - 1:  # ct and seg of one patient are not alike in name
        parts[place : place + 1] = filter(None, [split_part(parts[place])[0].lower()])
    return kind, "/".join(parts)


def measure_pair(pair: Pair, directory: str | Path, options: LabelOptions) -> dict:
    """The facts of ``measure_image``, ``holds`` and ``counts``.

    ``holds`` is 1 for each class that is in the label map, else 0; ``counts`` has the pairs of ``count_values`` of it,
    or none where it holds more than 256 values.

    Args:
        pair: image and label map, relative to ``directory``.
        directory: the folder of the data set.
        options: that say what the values of the label map mean.

    Raises:
        InputError: if one of them is unreadable, if their shapes differ, or as ``check_geometry`` and ``find_classes``.
    """
    image, label = pair
    image_reader, label_reader = options.readers
    array, meta = read_as_trained(image, directory, image_reader)
    facts = measure_array(first_file(image), array, meta)
    values, label_meta = read_as_trained(label, directory, label_reader, "label_reader")
    shape = label_meta["spatial_shape"].tolist()
    if shape != facts["shape"]:
        sizes = [" x ".join(map(str, size)) for size in (shape, facts["shape"])]
        raise InputError(f"the label map {label} has {sizes[0]} voxels where its image has {sizes[1]}.")
    check_geometry(label, facts["shape"], meta.get("affine"), label_meta.get("affine"))
    return facts | measure_values(label, values, directory, options)


def measure_values(label: str, array: np.ndarray, directory: str | Path, options: LabelOptions) -> dict:
    """``holds`` and ``counts`` of a label map, see ``measure_pair``."""
    counts = count_values(array)
    holds = find_classes(label, np.array([*counts]), options, read_gray_factor(Path(directory, label)))
    return {"holds": holds, "counts": [*counts.items()] if len(counts) <= MANY else []}


def check_geometry(label: str, shape: Sequence[int], affine: np.ndarray | None, other: np.ndarray | None) -> None:
    """Refuse a label map whose corners lie more than a tenth of a voxel away from those of its image.

    Args:
        label: what an error calls the label map.
        shape: voxels of both.
        affine: of the image; None: a picture has no place in space.
        other: affine of the label map.
    """
    if affine is None or other is None:
        return
    if away := find_distance(shape, affine, other):
        raise InputError(f"the label map {label} lies up to {away:.3g} mm away from its image: their affines differ.")


def find_classes(label: str, values: np.ndarray, options: LabelOptions, factor: int = 1) -> list[int]:
    """For each class 1 where one of the values of a label map stands for it, else 0.

    Args:
        label: what an error calls the label map.
        values: in it, sorted, to three decimals: slopes in float32 make 0.99999994 of 1.
        options: that say what they mean.
        factor: that they were multiplied by, see ``read_gray_factor``.

    Raises:
        MisfitError: if one stands for no class.
    """
    count, threshold = len(options.class_names), options.label_threshold
    if threshold is not None and np.isfinite(values).all():
        return [int((values <= threshold).any()), int((values > threshold).any())]
    allowed = np.arange(count) if options.label_values is None else np.asarray(options.label_values)
    odd = values[~np.isin(values, allowed)]
    if not len(odd):
        return np.isin(allowed, values).astype(int).tolist()
    allows, note = f"allow 0 to {count - 1}", ""
    if options.label_values is not None:
        allows = f"have the label_values {list(options.label_values)}"
    elif broken := [f"{value:g}" for value in odd if value != np.round(value)]:
        note = f" ({list_values(broken)} is no whole number)"
    elif factor > 1:
        note = f" (a picture of {255 // factor + 1} grays, read times {factor})"
    found = list_values([f"{value:g}" for value in values])
    raise MisfitError(
        f"{label} holds the label values {found}{note} where {count} classes {allows}.",
        (values[[0, -1]] if len(values) > MANY else values).tolist()
        if factor == 1
        else range(0, factor * count, factor),
    )


def refuse_wrong_classes(facts: Sequence[dict | InputError], options: LabelOptions) -> None:
    """Refuse the options where the values of most label maps fit no class: these are wrong then, not the files."""
    misfits = [fact for fact in facts if isinstance(fact, MisfitError)]
    if 2 * len(misfits) <= sum(isinstance(fact, dict) for fact in facts) + len(misfits):
        return
    count = len(options.class_names)
    values = sorted({value for error in misfits for value in error.values})
    shown = [int(value) if value == int(value) else value for value in values if np.isfinite(value)]
    cures = [f'--label_values "{shown}"' if len(shown) == count else "--label_values with one value a class"]
    if count == 2:
        cures.insert(0, f"--label_threshold {int((shown[0] + shown[-1]) // 2)}" if shown else "--label_threshold")
    raise InputError(f"{str(misfits[0]).rstrip('.')}; give {' or '.join(cures)}.")


def check_values(facts: Sequence[dict | InputError], files: Sequence[str], options: LabelOptions) -> str:
    """What ``check_threshold`` says of label maps with these facts, none of which holds more than 256 values."""
    if options.label_threshold is None:
        return ""
    counts = [fact["counts"] for fact in facts if isinstance(fact, dict)]
    total = sum(map(Counter[float], map(dict, counts)), Counter[float]())
    if not all(counts) or len(total) < 2:
        return ""
    return check_threshold(total, files, options.label_threshold, options.class_names)
