"""The images of an inference: which files and folders are meant, and what is true of them where that is known."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from ...bundle.config import BundleConfig
from ...datalists.checks import LISTS
from ...datalists.io import read_datalist
from ...datalists.layouts import join_modalities, split_names
from ...datalists.rows import find_unlabeled
from ...images.find import files_of, find_files, first_file, without_results
from ...utils.errors import InputError


@dataclass
class Inputs:
    """What is inferred."""

    # absolute, of files and of folders that hold one DICOM series each, in the order that they were given
    paths: list[str] = field(default_factory=list)
    # of an image of several modalities all its files, by the first one, which is in ``paths``
    channels: dict[str, list[str]] = field(default_factory=dict)
    # folders that could not be searched and files that miss others, with the reason
    unreadable: dict[str, str] = field(default_factory=dict)
    left_out: int = 0  # how many images of the folders are label maps, earlier results, or of other suffixes


def find_inputs(images: Sequence[str | Path], config: BundleConfig, output_dir: Path) -> Inputs:
    """All that is meant, each image once.

    A folder stands for its images, and those of its folders, that have one of the ``suffixes`` of the configuration,
    without label maps and earlier results, and, where images are volumes, for its folders of DICOM files.

    Raises:
        InputError: if there is no such file, or a folder has no image.
    """
    found = Inputs()
    for image in images:
        if not Path(image).exists():
            raise InputError(f"{image}: no such file")
        if Path(image).is_file():
            found.paths.append(os.path.abspath(image))
        else:
            _search(Path(image), config, output_dir, found)
    if not images:
        raise InputError("no image is given: name files, folders, or folders of DICOM series.")
    found.paths = list(dict.fromkeys(found.paths))
    if modalities := split_names(config.parser.get("modalities")):
        joined, broken, others = join_modalities(found.paths, modalities)
        found.channels = {first_file(image): files_of(image) for image in joined}
        found.paths, found.left_out = list(found.channels), found.left_out + others
        found.unreadable |= {str(file): reason for file, reason in broken}
    return found


def _search(folder: Path, config: BundleConfig, output_dir: Path, found: Inputs) -> None:
    def note(error: OSError) -> None:
        found.unreadable[os.path.abspath(error.filename)] = f"cannot be searched: {error.strerror}"

    before = len(found.unreadable)
    suffixes = tuple(config.build("suffixes"))
    files, dicom = find_files(folder, note)
    names = [name for name in files + dicom if name.lower().endswith(suffixes)]
    others = {*files, *dicom}.difference(names)
    if config.build("spatial_dims") == 3:
        names += {str(PurePath(name).parent) for name in others.intersection(dicom)}
        others.difference_update(dicom)
    kept = find_unlabeled(without_results(sorted(names), folder, output_dir), folder)
    if not kept and len(found.unreadable) == before:
        kinds = sorted({PurePath(name).suffix.lower() for name in others})
        cure = f'; give --suffixes "{kinds}"' if all(kinds) and kinds else ""
        raise InputError(f"{folder}: holds no image file {', '.join(suffixes)}{cure}")
    found.paths += [os.path.abspath(folder / str(name)) for name in kept]
    found.left_out += len(others) + len(names) - len(kept)


def find_truth(paths: Sequence[str], class_names: Sequence[str], datalist: str | Path | None) -> dict[str, str]:
    """The true classes of those images of which they are known, by their paths; several classes are joined by ``|``.

    Args:
        paths: absolute.
        class_names: of the network.
        datalist: JSON file for classification, as the command ``labeled`` writes it; None: an image in a folder with
            the name of a class is of this class.

    Raises:
        InputError: if the file is none, is of other classes, or has none of the images.
    """
    if datalist is None:
        folders = {path: Path(path).parent.name for path in paths}
        return {path: name for path, name in folders.items() if name in class_names}
    content = read_datalist(datalist)
    if not isinstance(content, dict) or content.get("task") != "classification":
        raise InputError(f"{datalist} is no datalist for classification, as the command labeled writes it.")
    if list(content["class_names"]) != list(class_names):
        raise InputError(f"{datalist} is of the classes {content['class_names']}, the network of {list(class_names)}.")
    root = Path(datalist).parent / content.get("dataset_dir", "")
    known: dict[str, str] = {}
    for entry in (entry for name in LISTS for entry in content.get(name, [])):
        path = os.path.realpath(root / first_file(entry["image"]))
        known[path] = known[os.path.dirname(path)] = _to_text(entry, class_names)
    found = {path: known[real] for path in paths if (real := os.path.realpath(path)) in known}
    if not found:
        raise InputError(f"{datalist} has none of the {len(paths)} images.")
    return found


def _to_text(entry: Mapping[str, Any], class_names: Sequence[str]) -> str:
    """The label of an entry in words: with several labels those that are present, and with ``?`` what is not known."""
    label = entry["label"]
    if not isinstance(label, list):
        return class_names[label]
    marks = {1: "", None: "?"}
    return "|".join(name + marks[value] for name, value in zip(class_names, label, strict=True) if value in marks)
