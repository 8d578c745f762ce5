"""From a folder of labeled scans to a datalist with training, validation and test."""

import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from ..images.facts import measure_array
from ..images.find import Image, first_file
from ..images.measuring import measure_each
from ..images.stock import read_as_trained, stock_path
from ..utils.errors import InputError
from ..utils.files import user_path
from .classes import find_labels, parse_labels
from .label_maps import check_values, find_label_maps, measure_pair, refuse_wrong_classes
from .layouts import split_names
from .options import LabelOptions
from .patients import MAX_EXAMPLES, list_patients
from .rows import Row, join_copies, majority
from .splits import SPLITS, check_labeled, check_pictures, split_entries


def make_labeled_datalist(
    directory: str | Path, options: LabelOptions, *, strict: bool = False, workers: int | None = None
) -> dict:
    """The usable images of a folder with their labels, split by patient; ready for JSON; equal for equal files.

    ``training``, ``validation`` and ``test`` list ``image`` and ``patient`` as ``make_datalist`` does, the facts of
    ``measure_image``, and ``label``: for segmentation the file of the label map (with ``holds``: 1 for each class that
    is in it, else 0), for classification the number of the class, or 1, 0 or None (not known) for each class where
    ``multi_label`` is set. ``skipped`` lists ``image`` and ``reason``; ``excluded`` counts images by the reason for
    which the user leaves them out. ``load_decathlon_datalist`` of MONAI reads the lists.

    Label maps are found by ``find_label_maps``, labels of images by ``find_labels``. Splits are those of the column
    ``split`` of a table, or of folders train, val and test that hold all images, also below ``images``; what they lack
    is drawn by ``split_entries``, which notes it in ``drawn``. Patients are those of the table, or else by
    ``choose_rule``, where ``patient`` is auto.

    Args:
        directory: folder that is searched with all its sub-folders.
        options: what the list depends on.
        strict: raise at the first image that cannot be used, instead of listing it in ``skipped``.
        workers: threads that read images, by default one a processor, at most 8.

    Raises:
        InputError: if an option is out of range, a word or most label maps fit no class, there is no usable image,
            ``check_labeled`` fails, or any image is unusable where ``strict`` is set.
    """
    options.check()
    root = Path(os.path.abspath(user_path(directory)))
    found = (find_label_maps if options.task == "segmentation" else find_labels)(root, options)
    found.exclude(SPLITS, options.exclude_patients_of)
    if options.task == "classification":
        parse_labels(found, options)
    facts = _measure(found.rows, root, options, workers)
    if options.task == "classification":
        facts = found.drop_label_maps(facts)
    channels = options.in_channels or len(split_names(options.modalities)) or 1
    options = replace(options, spatial_dims=options.spatial_dims or majority(facts), in_channels=channels)
    begin = partial(_begin_entry, root=root, pictures=options.spatial_dims == 2 and options.pictures_only)
    entries = found.make_entries(facts, options.spatial_dims or 0, channels, begin)
    entries, copies = join_copies(entries)
    if strict and found.skipped:
        raise InputError(found.skipped[0]["reason"])
    if not entries:
        first = found.skipped[0]["reason"] if found.skipped else "all are left out by their split or label."
        raise InputError(f"{root} holds no usable image with a label; the first: {first}")
    datalist = {
        "dataset_dir": str(root),
        **asdict(options),
        "read_by": options.readers,
        "patient_rule": found.patient_rule,
        "patient_examples": list_patients(entry for entry, _ in entries)[:MAX_EXAMPLES],
        **split_entries(entries, options.test_fraction, options.validation_fraction, options.seed),
        "copies": copies,
        "label_note": check_values(facts, [str(row.label) for row in found.rows], options),
        **found.notes(),
    }
    check_labeled(datalist)
    return datalist


def _measure(rows: Sequence[Row], root: Path, options: LabelOptions, workers: int | None) -> list[dict | InputError]:
    """Facts of each image as training reads it, and of its label map."""
    if options.task == "classification":
        measure = partial(_measure_image, reader=options.readers[0])
        return measure_each(measure, [row.image for row in rows], root, workers=workers)
    pairs = [(row.image, str(row.label)) for row in rows]
    facts = measure_each(partial(measure_pair, options=options), pairs, root, workers=workers)
    refuse_wrong_classes(facts, options)
    return facts


def _measure_image(image: Image, directory: str | Path, reader: str | None) -> dict:
    return measure_array(first_file(image), *read_as_trained(image, directory, reader))


def _begin_entry(row: Row, root: Path, pictures: bool) -> dict:
    """Image and label of an entry; ``pictures`` refuses all but those of ``check_pictures``."""
    if pictures:
        check_pictures({"image": row.image, "label": row.label})
    return {"image": stock_path(row.image, root), "label": row.label}
