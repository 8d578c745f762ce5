"""Which masks an image has, and of which class each of them is."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ...datalists.checks import first_names
from ...datalists.label_maps import find_crowds, is_map, locate, place_of
from ...datalists.layouts import begins_with, case_of, join_modalities, match_names, starts_of
from ...images.find import Image, find_images, first_file, stem, without_map_words
from ...utils.errors import InputError


class Case(NamedTuple):
    """An image with its masks."""

    image: Image
    place: PurePosixPath  # without suffix
    masks: dict[str, Image]  # by class


def find_masks(root: Path, names: Sequence[str], modalities: Sequence[str]) -> tuple[list[Case], list[str], list[str]]:
    """The images that have masks, the classes in the order of their numbers, and what is left out, a line each.

    A mask is what ``is_label_map`` calls so, what is named as an image beside it and a further word that is none of a
    modality (``case1_kidney`` beside ``case1``), and what has one of the ``names``. It belongs to an image as
    ``match_names`` pairs them.

    Args:
        root: the folder that is searched.
        names: of classes, words of the file or of a folder; without any, what the name of a mask adds to that of its
            image, else its folder, in the order of the alphabet.
        modalities: of an image, see ``join_modalities``; without any, each file that is no mask is one.

    Raises:
        InputError: if there are no masks, or two of one class.
    """
    everything = find_images(root)
    crowds = find_crowds(everything)
    paths = {first_file(image): locate(image, crowds)[1] for image in everything}
    classes = _find_classes(everything, paths, names)
    masks = {first_file(image): image for image in everything if first_file(image) in classes}
    images = [image for image in everything if first_file(image) not in masks]
    images = join_modalities(images, modalities)[0] if modalities else images
    keys = [_key_of(paths[first_file(image)], *modalities[:1]) for image in images]
    own: list[dict[str, Image]] = [{} for _ in images]
    used = set[str]()
    for wanted in names or [""]:
        maps = [(_key_of(paths[file], wanted), file) for file in masks if classes[file] == wanted]
        for image, files, starts, held in zip(images, match_names(keys, maps), starts_of(keys), own, strict=True):
            used.update(files)
            for file in files:
                name = wanted or _name_of(paths[file], starts)
                if name in held:
                    raise InputError(
                        f"{first_file(image)} has two masks of {name}: {first_file(held[name])}, {file}; name the "
                        "classes by --names, words of the files or of their folders."
                    )
                held[name] = masks[file]
    cases = [Case(image, place_of(image, crowds), held) for image, held in zip(images, own, strict=True) if held]
    if not cases:
        raise InputError(
            f"{root} holds no images with masks; name the classes by --names, words of the files or of their folders "
            "such as liver,spleen, and the images by --modalities, such as ct, where other files lie beside them."
        )
    there = {name for case in cases for name in case.masks}
    if missing := [name for name in names if name not in there]:
        raise InputError(f"{root} holds no mask of {', '.join(missing)}, only of {', '.join(sorted(there)) or 'none'}.")
    labeled = {first_file(case.image) for case in cases}
    left = [file for file in map(first_file, images) if file not in labeled]
    lost = [file for file in masks if file not in used and (classes[file] or not names)]
    lines = [f"left out: {len(left)} images without masks ({first_names(left)})"] if left else []
    lines += [f"left out: {len(lost)} masks without an image ({first_names(lost)})"] if lost else []
    return cases, list(names) or sorted(there), lines


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
    beside: dict[str, set[str]] = {}
    for image in images:
        beside.setdefault(os.path.dirname(first_file(image)), set()).add(stem(first_file(image)))
    words = {
        name: re.compile(rf"(?<![a-z0-9]){re.escape(name)}(?![a-z0-9])", re.IGNORECASE)
        for name in sorted(names, key=len, reverse=True)  # left kidney before kidney
    }
    shared = len(PurePosixPath(os.path.commonpath([*paths.values()])).parts) if len(paths) > 1 else 0
    found = {}
    for image in images:
        file = first_file(image)
        parts = PurePosixPath(paths[file]).parts[shared:]
        named = (name for part in reversed(parts) for name in words if words[name].search(part))
        name = next(named, "")
        start = begins_with(stem(file), beside[os.path.dirname(file)])
        further = start and case_of(file) != start and not stem(file)[len(start) :].strip("_-. ").isdecimal()
        if name or is_map(image) or further:
            found[file] = name
    return found


def _key_of(path: str, name: str = "") -> str:
    """A path without class or modality, where the file is named by more: ``case1`` of ``kidney_case1``."""
    above, _, last = path.rpartition("/")
    rest = re.sub(rf"[_\-. ]*(?<![a-z0-9]){re.escape(name)}(?![a-z0-9])[_\-. ]*", "_", last, flags=re.IGNORECASE)
    return f"{above}/{rest.strip('_')}".lstrip("/") if name and rest.strip("_") else path


def _name_of(path: str, starts: set[str]) -> str:
    """What the name of a mask adds to that of its image, else its folder."""
    folders, name = PurePosixPath(path).parts[:-1], without_map_words(PurePosixPath(path).name)
    if start := begins_with(name, starts):
        return name[len(start) :].strip("_-. ")
    return folders[-1] if name in starts and folders else name
