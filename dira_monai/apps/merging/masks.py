"""Which masks an image has, and of which class each of them is."""

import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ...datalists.checks import first_names
from ...datalists.label_maps import find_crowds, is_map, locate, place_of
from ...datalists.layouts import begins_with, find_longer, join_modalities, match_names, starts_of
from ...dicom.headers import read_header
from ...images.dicom_seg.read import Segments, find_segments
from ...images.find import Image, find_images, first_file, is_series, without_map_words
from ...utils.errors import InputError


class Segment(NamedTuple):
    """A class of a DICOM segmentation."""

    file: str
    numbers: list[int]


Mask = Image | Segment


class Case(NamedTuple):
    """An image with its masks."""

    image: Image
    place: PurePosixPath  # without suffix
    masks: dict[str, Mask]  # by class


def find_masks(root: Path, names: Sequence[str], modalities: Sequence[str]) -> tuple[list[Case], list[str], list[str]]:
    """The images that have masks, the classes in the order of their numbers, and what is left out, a line each.

    A mask is what ``is_label_map`` calls so, what is named as an image beside it and a further word that is none of a
    modality (``case1_kidney`` beside ``case1``), and what has one of the ``names``. It belongs to an image as
    ``match_names`` pairs them. Segments of a DICOM segmentation belong to the series that it refers to.

    Args:
        root: the folder that is searched.
        names: of classes, words of the file, of a folder or of a segment; without any, what the name of a mask adds to
            that of its image, else its folder, or the label of the segment, in the order of the alphabet.
        modalities: of an image, see ``join_modalities``; without any, each file that is no mask is one.

    Raises:
        InputError: if there are no masks, or two of one class.
    """
    everything = find_images(root)
    single = [image[0] for image in everything if is_series(image) and len(image) == 1]
    segmentations = {file: found for file in single if (found := find_segments(root / file))}
    everything = [image for image in everything if first_file(image) not in segmentations]
    crowds = find_crowds(everything)
    paths = {first_file(image): locate(image, crowds)[1] for image in everything}
    classes = _find_classes(everything, paths, names)
    images = [image for image in everything if first_file(image) not in classes]
    images = join_modalities(images, modalities)[0] if modalities else images
    own: list[dict[str, Mask]] = [{} for _ in images]
    masks = {first_file(image): image for image in everything}
    keys = [_key_of(paths[first_file(image)], *modalities[:1]) for image in images]
    used = {file for file, name in classes.items() if names and not name}  # of other classes
    for wanted in names or [""]:
        maps = [(_key_of(paths[file], wanted), file) for file, name in classes.items() if name == wanted]
        for image, files, starts, held in zip(images, match_names(keys, maps), starts_of(keys), own, strict=True):
            used.update(files)
            for file in files:
                _add(held, wanted or _name_of(paths[file], starts), masks[file], image)
    used |= _add_segments(images, own, segmentations, names, root)
    cases = [Case(image, place_of(image, crowds), held) for image, held in zip(images, own, strict=True) if held]
    there = {name for case in cases for name in case.masks}
    _check_names(cases, there, names, root)
    labeled = {first_file(case.image) for case in cases}
    left = [file for file in map(first_file, images) if file not in labeled]
    lost = [file for file in (*classes, *segmentations) if file not in used]
    lines = [f"left out: {len(left)} images without masks ({first_names(left)})"] if left else []
    lines += [f"left out: {len(lost)} masks without an image ({first_names(lost)})"] if lost else []
    return cases, list(names) or sorted(there), lines


def _add(held: dict[str, Mask], name: str, mask: Mask, image: Image) -> None:
    if name in held:
        raise InputError(
            f"{first_file(image)} has two masks of {name}: {_file_of(held[name])}, {_file_of(mask)}; name the "
            "classes by --names, words of the files or of their folders."
        )
    held[name] = mask


def _file_of(mask: Mask) -> str:
    return mask.file if isinstance(mask, Segment) else first_file(mask)


def _add_segments(
    images: Sequence[Image],
    own: Sequence[dict[str, Mask]],
    segmentations: Mapping[str, Segments],
    names: Sequence[str],
    root: Path,
) -> set[str]:
    """Give images the segments of the segmentations that refer to their series; the files that were used."""
    if not segmentations:
        return set()
    words, used = _words_of(names), set[str]()
    headers = [read_header(root / first_file(image)) if is_series(image) else None for image in images]
    for image, header, held in zip(images, headers, own, strict=True):
        for file, found in segmentations.items():
            if header is None or header.series not in found.series:
                continue
            used.add(file)
            for label, numbers in found.numbers.items():
                name = next((name for name, word in words.items() if word.search(label)), "") if names else label
                if name:
                    _add(held, name, Segment(file, numbers), image)
    return used


def _check_names(cases: Sequence[Case], there: set[str], names: Sequence[str], root: Path) -> None:
    if not cases:
        raise InputError(
            f"{root} holds no images with masks; name the classes by --names, words of the files or of their folders "
            "such as liver,spleen, and the images by --modalities, such as ct, where other files lie beside them."
        )
    if missing := [name for name in names if name not in there]:
        raise InputError(f"{root} holds no mask of {', '.join(missing)}, only of {', '.join(sorted(there)) or 'none'}.")
    if "background" in there:
        raise InputError("background is 0 in every label map and needs no mask; name the other classes by --names.")


def check_complete(cases: Sequence[Case], names: Sequence[str], allow_missing: bool) -> None:
    """Refuse cases that lack the mask of a class, unless ``allow_missing`` says that this is absent there."""
    for name in names:
        lacking = [first_file(case.image) for case in cases if name not in case.masks]
        if lacking and not allow_missing:
            raise InputError(
                f"{len(lacking)} of {len(cases)} images have no mask of {name}: {first_names(lacking)}; if there is "
                f"none of it in them give --allow_missing True, else leave it out by --names."
            )


def _find_classes(images: Sequence[Image], paths: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """The masks, each with the one of the names that is in it, "" where there is none."""
    words = _words_of(names)
    shared = len(PurePosixPath(os.path.commonpath([*paths.values()])).parts) if len(paths) > 1 else 0
    longer, found = find_longer([*map(first_file, images)]), {}
    for image in images:
        file = first_file(image)
        parts = PurePosixPath(paths[file]).parts[shared:]
        named = (name for part in reversed(parts) for name in words if words[name].search(part))
        name = next(named, "")
        if name or is_map(image) or file in longer:
            found[file] = name
    return found


def _words_of(names: Sequence[str]) -> dict[str, re.Pattern[str]]:
    """What finds each name as words, the longest first: kidney_left before kidney."""
    return {name: _word(name) for name in sorted(names, key=len, reverse=True)}


@cache
def _word(name: str, around: str = "") -> re.Pattern[str]:
    """What finds a name as words, in which a blank may be ``_``, with what is ``around`` it."""
    words = r"[_\-. ]+".join(map(re.escape, re.split(r"[_\-. ]+", name)))
    return re.compile(rf"{around}(?<![a-z0-9]){words}(?![a-z0-9]){around}", re.IGNORECASE)


def _key_of(path: str, name: str = "") -> str:
    """A path without class or modality, where the file is named by more: ``case1`` of ``kidney_case1``."""
    above, _, last = path.rpartition("/")
    rest = _word(name, r"[_\-. ]*").sub("_", last).strip("_")
    return f"{above}/{rest}".lstrip("/") if name and rest else path


def _name_of(path: str, starts: set[str]) -> str:
    """What the name of a mask adds to that of its image, else its folder."""
    folders, name = PurePosixPath(path).parts[:-1], without_map_words(PurePosixPath(path).name)
    if start := begins_with(name, starts):
        return name[len(start) :].strip("_-. ")
    return folders[-1] if name in starts and folders else name
