"""From a folder of labeled scans to a datalist with training, validation and test."""

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from ..dicom.headers import is_dicom
from ..images.facts import measure_each, measure_image
from ..images.find import Image, first_file
from ..utils.errors import InputError
from .checks import VALIDATION_FRACTION, check_arguments
from .label_maps import LabelRule, check_label_rule, measure_pair, refuse_wrong_classes
from .label_sources import find_label_maps, find_labels, leave_out, parse_labels
from .label_tables import Label, Row, Vocabulary, check_vocabulary
from .splits import check_labeled, check_pictures, split_entries
from .unlabeled import majority, sort_out

TASKS = ("segmentation", "classification")


TEST_FRACTION = 0.2


ASKED = (  # arguments of ``make_labeled_datalist`` that the list depends on, and records
    "task",
    "spatial_dims",
    "in_channels",
    "class_names",
    "multi_label",
    "label_threshold",
    "label_values",
    "label_column",
    "label_map",
    "labels",
    "patient",
    "test_fraction",
    "validation_fraction",
    "seed",
    "exclude_patients_of",
    "pictures_only",
)


ONLY_FOR = {  # task: options that mean nothing for the other one
    "segmentation": ("label_threshold", "label_values"),
    "classification": ("multi_label", "label_column", "label_map"),
}


def make_labeled_datalist(
    directory: str | Path,
    task: str,
    class_names: Sequence[str],
    *,
    labels: str | None = None,
    multi_label: bool = False,
    label_threshold: float | None = None,
    label_values: Sequence[float] | None = None,
    label_column: str | None = None,
    label_map: Mapping[str, str | None] | None = None,
    spatial_dims: int | None = None,
    in_channels: int = 1,
    patient: str = "auto",
    test_fraction: float = TEST_FRACTION,
    validation_fraction: float = VALIDATION_FRACTION,
    seed: int = 0,
    exclude_patients_of: str | None = None,
    pictures_only: bool = True,
    strict: bool = False,
    workers: int | None = None,
) -> dict:
    """The usable images of a folder with their labels, split by patient; ready for JSON; equal for equal files.

    ``training``, ``validation`` and ``test`` list ``image`` and ``patient`` as ``make_datalist`` does, the facts of
    ``measure_image``, and ``label``: for segmentation the file of the label map (with ``holds``: 1 for each class that
    is in it, else 0), for classification the number of the class, or 1, 0 or None (not known) for each class where
    ``multi_label`` is set. ``skipped`` lists ``image`` and ``reason``; ``left_out`` counts images by the reason for
    which the user leaves them out. ``load_decathlon_datalist`` of MONAI reads the lists.

    Label maps are found by ``find_pairs``; labels of images by ``read_label_table`` or, where there is no table, by
    ``read_class_folders``. Splits are those of the column ``split`` of a table, or of folders train, val and test that
    hold all images, also below ``images``; what they lack is drawn by ``split_entries``, which notes it in ``drawn``.

    Args:
        directory: folder that is searched with all its sub-folders.
        task: "segmentation" or "classification".
        class_names: in the order of their numbers; for segmentation the first one is the background.
        labels: folder of the label maps, or CSV file of the labels; by default looked for.
        multi_label: an image may have any number of the classes.
        label_threshold: label maps have class 1 where their value is above.
        label_values: the value of each class in the label maps, where these are not 0, 1, 2, ...
        label_column: column of the CSV file.
        label_map: class of a word in the CSV file (or of a folder's name), or None to leave its rows out.
        spatial_dims: 2 or 3; by default what most of the images have.
        in_channels: channels that every image must have; gray images fit 3.
        patient: "auto" (the table's column, or else ``choose_rule``), a rule of ``find_patients``, or a CSV file.
        test_fraction: part of the training patients for test, where nothing else says; 0 for none.
        validation_fraction: part of the others for validation, where nothing else says.
        seed: of the draws.
        exclude_patients_of: a split of the table, whose patients are left out of all lists.
        pictures_only: in 2D skip all but PNG and JPEG, which the bundles read unless they get another reader.
        strict: raise at the first image that cannot be used, instead of listing it in ``skipped``.
        workers: threads that read images, by default one a processor, at most 8.

    Raises:
        InputError: if an argument is out of range, a word or most label maps fit no class, there is no usable image,
            ``check_labeled`` fails, or any image is unusable where ``strict`` is set.
    """
    given = locals()
    asked = {name: given[name] for name in ASKED}
    check_task(asked)
    return _make(Path(os.path.abspath(Path(directory).expanduser())), asked, strict, workers)


def _make(root: Path, asked: dict[str, Any], strict: bool, workers: int | None) -> dict:
    find = find_label_maps if asked["task"] == "segmentation" else find_labels
    rows, skipped, left_out, rule = find(root, asked)
    rows, other_splits = leave_out(rows, asked["exclude_patients_of"])
    labeled, unknown, other_words = parse_labels(rows, asked)
    entries, unusable, asked["spatial_dims"] = _measure(labeled, root, asked, workers)
    skipped = [*skipped, *unknown, *unusable]
    if strict and skipped:
        raise InputError(skipped[0]["reason"])
    if not entries:
        raise InputError(f"{root} holds no usable image with a label; the first: {_first(skipped)}")
    datalist = {
        "dataset_dir": str(root),
        **asked,
        "patient_rule": rule,
        **split_entries(entries, *(asked[key] for key in ("test_fraction", "validation_fraction", "seed"))),
        "skipped": skipped,
        "left_out": left_out | other_splits | other_words,
    }
    check_labeled(datalist)
    return datalist


def _first(skipped: Sequence[dict]) -> str:
    return skipped[0]["reason"] if skipped else "all are left out by their split or label."


def check_task(asked: Mapping[str, Any]) -> None:
    """Nothing, where a labeled datalist can be made for these arguments of ``make_labeled_datalist``.

    Raises:
        InputError: if one is out of range, or belongs to the other task.
    """
    task, names, test_fraction = asked["task"], asked["class_names"], asked["test_fraction"]
    if task not in TASKS:
        raise InputError(f"task must be segmentation or classification, got {task!r}.")
    least = 1 if asked["multi_label"] else 2
    words = names if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names) else ()
    if len(set(words)) < max(least, len(words)):
        raise InputError(f"class_names must be a list of at least {least} different names, got {names!r}.")
    check_arguments(asked["spatial_dims"], asked["in_channels"], asked["validation_fraction"])
    if not isinstance(test_fraction, int | float) or not 0 <= test_fraction < 1:
        raise InputError(f"test_fraction must be at least 0 and below 1, got {test_fraction!r}.")
    for option in ONLY_FOR[TASKS[1 - TASKS.index(task)]]:
        if asked[option]:
            raise InputError(f"{option} has no meaning where the task is {task}, got {asked[option]!r}.")
    check_label_rule(LabelRule.of(asked))
    check_vocabulary(Vocabulary.of(asked))


def _measure(
    labeled: Sequence[tuple[Row, Label]], root: Path, asked: Mapping[str, Any], workers: int | None
) -> tuple[list[tuple[dict, str]], list[dict], int]:
    """Entries with their splits, the images that cannot be used, and the number of spatial dimensions."""
    if asked["task"] == "segmentation":
        rule = LabelRule.of(asked)
        pairs = [(row.image, str(label)) for row, label in labeled]
        facts = measure_each(partial(measure_pair, rule=rule), pairs, root, workers=workers)
        refuse_wrong_classes(facts, rule)
    else:
        measure = partial(measure_image, resample=False)  # as stock MONAI, which trains, reads it
        facts = measure_each(measure, [row.image for row, _ in labeled], root, workers=workers)
    spatial_dims = asked["spatial_dims"] or majority(facts)
    kept = [(row.image, row.patient, row.split) for row, _ in labeled]
    rows, skipped = sort_out(kept, facts, spatial_dims, asked["in_channels"], strict=False)
    labels = {first_file(row.image): label for row, label in labeled}
    entries = []
    for entry, split in rows:
        label = labels[first_file(entry["image"])]
        try:
            if spatial_dims == 2 and asked["pictures_only"]:
                check_pictures({"image": entry["image"], "label": label})
            paths = {"image": _one_path(entry["image"], root), "label": label}
            entries.append((paths | {key: value for key, value in entry.items() if key != "image"}, split))
        except InputError as error:
            skipped.append({"image": entry["image"], "reason": str(error)})
    return entries, skipped, spatial_dims


def _one_path(image: Image, root: Path) -> str:
    """The path of an image; of a DICOM series its folder, as stock MONAI reads it, or its one file among others.

    Raises:
        InputError: if a series of several files shares its folder with other DICOM files: stock MONAI leaves out hidden
            files and those of other formats.
    """
    if isinstance(image, str):
        return image
    folder = PurePosixPath(image[0]).parent
    files = [file for file in (root / folder).iterdir() if file.is_file() and not file.name.startswith(".")]
    if len(image) == 1 and len(files) > 1:
        return image[0]
    others = sum(map(is_dicom, files)) - len(image)
    if others:
        raise InputError(
            f"{image[0]} begins a DICOM series of {len(image)} files in a folder with {others} others; "
            "move each series to a folder of its own."
        )
    return str(folder)
