"""Labeled datalists for fine-tuning: made on first use, checked, shown as a table, and cut down to few labels."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from ..dicom.headers import is_dicom
from ..images.find import SUFFIXES, first_file
from ..images.measuring import measure_each
from ..images.stock import load_itk, name_reader, read_as_trained
from ..utils.distributed import on_first_process
from ..utils.errors import InputError
from ..utils.files import user_path
from ..weights.named import find_named
from .checks import LISTS, check_datalist, entries_of, find_root
from .classes import find_table
from .io import make_absolute, read_datalist, take_list
from .label_maps import check_values, label_folder, measure_values
from .labeled import make_labeled_datalist
from .leakage import check_overlap
from .options import LabelOptions
from .prepare import find_given, make_list, make_phantoms
from .splits import check_labeled, check_pictures, take_fraction, warn_of_absent_classes
from .summary import describe_labeled
from .tables import TABLES

FIXED = ("task", "spatial_dims", "in_channels", "class_names", "multi_label", "label_threshold", "label_values")
WITHOUT_EFFECT = "labels, label_column, label_map, patient, test_fraction, validation_fraction and seed"  # on a list
UNCHECKED = (
    "warning: pretrained weights without pretraining_list: "
    "whether the test images were in the pre-training is not checked"
)


class LabeledLists:
    """The lists of ``prepare_labeled`` by their names, prepared when the first of them is used.

    MONAI Label gives a training lists of its own, and its viewers have MONAI build every part of the config, also what
    nothing refers to: that must neither look for a data set nor make phantoms. Arguments are those of
    ``prepare_labeled``, whose errors come when a list is used.
    """

    def __init__(self, **options: Any) -> None:
        self.options = options

    def __getitem__(self, name: str) -> list[dict]:
        return self._lists[name]

    @cached_property
    def _lists(self) -> dict:
        found = prepare_labeled(**self.options)
        if name_reader(self.options.get("reader")) in (None, "ITKReader"):
            load_itk(first_file(entry["image"]) for entry in entries_of(found))
        return found


def load_labeled(path: str | Path, options: LabelOptions) -> dict:
    """A labeled datalist from JSON, checked by ``check_labeled``; paths and other entries stay as they are.

    A missing list ``test`` is taken as empty, and what the file does not say of its task as in ``options``.

    Raises:
        InputError: if the file is missing or no JSON, was made for other options of ``FIXED``, or fails the checks.
    """
    datalist = read_datalist(path)
    check_datalist(datalist, path, required=("image", "label"))
    fixed = {key: getattr(options, key) for key in FIXED}
    for key, value in fixed.items():
        if datalist.get(key, value) != value:
            raise InputError(f"{path} was made for {key} {datalist[key]}, expected {value}.")
    datalist = {"test": [], **datalist, **fixed}
    check_labeled(datalist, path)
    if options.spatial_dims == 2 and options.pictures_only:
        for entry in entries_of(datalist):
            check_pictures(entry)
    return datalist


def prepare_labeled(
    dataset_dir: str | None,
    output_dir: str,
    task: str,
    spatial_dims: int,
    in_channels: int,
    class_names: Sequence[str],
    seed: int,
    *,
    label_fraction: float = 1.0,
    label_seed: int = 0,
    pretrained: str | None = None,
    pretraining_list: str | None = None,
    allow_overlap: bool = False,
    resume: bool = False,
    **options: Any,
) -> dict:
    """The labeled datalist that a bundle is fine-tuned on, with absolute paths; prints a table of it.

    Without ``dataset_dir`` the built-in phantoms of the seed are written to a folder in ``output_dir/phantom``. A JSON
    file, or a ``datalist.json`` in the folder, is used as it is, with its own splits and labels; anything else goes
    through ``make_list``. ``output_dir/datalist.json`` holds the whole list in the end, in any case. Among several
    processes the first one works and the others wait.

    Args:
        dataset_dir: folder of scans, a datalist, or None or "" for phantoms.
        output_dir: folder of the run.
        task: as the next four and ``options`` of ``LabelOptions``.
        spatial_dims: of the network, 2 or 3.
        in_channels: of the network.
        class_names: in the order of their numbers.
        seed: of the splits and the phantoms.
        label_fraction: part of the training patients that is returned, see ``take_fraction``.
        label_seed: seed of their choice.
        pretrained: weights to start from; without ``pretraining_list`` a line says that nothing is compared, unless
            they are the package's own, which have seen no scans.
        pretraining_list: datalist of the pre-training, which must not hold test images or patients.
        allow_overlap: say so, but go on where it does.
        resume: as ``make_list`` takes it.
        options: the others of ``LabelOptions``, readers also as objects; a given list must record the same
            ``exclude_patients_of``.

    Raises:
        InputError: as ``make_labeled_datalist``, ``load_labeled``, ``make_list``, ``take_list``, ``check_overlap`` and
            ``take_fraction`` do, in every process; or if ``exclude_patients_of`` cannot be followed by a given list.
    """
    options |= {name: name_reader(options[name]) for name in ("reader", "label_reader") if name in options}
    wanted = LabelOptions(
        task=task, spatial_dims=spatial_dims, in_channels=in_channels, class_names=class_names, seed=seed, **options
    )

    def work() -> dict:
        if dataset_dir:
            source = user_path(dataset_dir)
        else:
            source = make_phantoms(Path(output_dir), spatial_dims or 2, seed, tell=True)
        datalist, path = list_labeled(source, Path(output_dir), wanted, resume)
        if given := find_given(source):
            print(f"{given}: its own splits and labels are used, on which {WITHOUT_EFFECT} have no effect")
        print(describe_labeled(datalist))
        overlap = [UNCHECKED] if pretrained and find_named(pretrained) is None else []
        if pretraining_list:
            overlap = check_overlap(datalist, path, pretraining_list, allow_overlap)
        part, lines = take_fraction(datalist, label_fraction, label_seed)
        print("\n".join([*overlap, *lines, *warn_of_absent_classes(part), f"all of it: {path}"]))
        return part

    return on_first_process(work)


def list_labeled(source: Path, output: Path, options: LabelOptions, resume: bool = False) -> tuple[dict, Path]:
    """The whole labeled datalist of a source, with absolute paths, and the file in ``output`` that holds it.

    Args:
        source: a datalist, a folder that holds one, or a folder of images and labels.
        output: folder of the run.
        options: what the list depends on.
        resume: as ``make_list`` takes it.

    Raises:
        InputError: as ``make_labeled_datalist`` and ``load_labeled`` do.
    """
    options.check()
    options = LabelOptions(**json.loads(json.dumps(asdict(options))))  # tuples become lists, as in the file
    given, path = find_given(source), output / "datalist.json"
    if given is None:
        folders, tables = _inputs(source, options)
        make_list(
            path, source, asdict(options), folders, tables, lambda: make_labeled_datalist(source, options), resume
        )
        datalist = load_labeled(path, options)
    else:
        datalist = _take_given(given, path, options, resume)
    keys = ("image", "label") if options.task == "segmentation" else ("image",)
    make_absolute(datalist, path, datalist["dataset_dir"], LISTS, keys)
    return datalist, path


def _take_given(given: Path, path: Path, options: LabelOptions, resume: bool) -> dict:
    """A list that the user gives, with its own splits and labels, and a copy of it in ``path``."""
    datalist, excluded = load_labeled(given, options), options.exclude_patients_of
    if excluded is not None and datalist.get("exclude_patients_of") != excluded:
        raise InputError(
            f"{given} is used as it is and was made for exclude_patients_of "
            f"{datalist.get('exclude_patients_of')!r}, expected {excluded!r}; make the list again."
        )
    datalist["dataset_dir"] = str(find_root(datalist, given))
    if datalist.get("read_by") != options.readers:
        datalist["read_by"] = options.readers
        _check_reading(datalist, given, path, options)
    take_list(datalist, given, path, resume)
    return datalist


def _check_reading(datalist: dict, given: Path, path: Path, options: LabelOptions) -> None:
    """Refuse a list with files that training reads otherwise than this package; not again where ``path`` has it."""
    kept = read_datalist(path) if path.is_file() else {}
    datalist["label_note"] = kept.get("label_note", "")
    if kept == json.loads(json.dumps(datalist)):
        return
    entries = list(entries_of(datalist))
    found = measure_each(partial(_compare, options=options), entries, datalist["dataset_dir"])
    if wrong := [error for error in found if isinstance(error, InputError)]:
        raise InputError(f"{given}: {wrong[0]} So do {len(wrong)} of its {len(entries)} entries.")
    if options.task == "segmentation":
        datalist["label_note"] = check_values(found, [entry["label"] for entry in entries], options)


def _compare(entry: dict, directory: str | Path, options: LabelOptions) -> dict:
    found: dict = {"counts": []}
    for key, option, reader in zip(("image", "label"), ("reader", "label_reader"), options.readers, strict=False):
        file = Path(directory, first_file(entry[key]))
        if file.is_dir() or (file.is_file() and (file.name.lower().endswith(SUFFIXES) or is_dicom(file))):
            array = read_as_trained(entry[key], directory, reader, option)[0]
            if key == "label" and file.is_file():
                found = measure_values(entry[key], array, directory, options)
    return found


def _inputs(source: Path, options: LabelOptions) -> tuple[list[Path], list[Path]]:
    """The folders and the tables that the datalist is made from."""
    folders, patient = [source], Path(options.patient)
    tables = [patient] if patient.suffix.lower() in TABLES else []
    if options.task == "classification":
        tables += [table for table in [find_table(source, options.labels)] if table]
    elif options.labels:
        folders.append(label_folder(source, options.labels))
    return folders, tables
