"""Inference of a bundle on files, folders and DICOM series; what cannot be right is refused before anything runs."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from monai.bundle import ConfigWorkflow

from ..bundle.config import BundleConfig, read_config, to_device
from ..bundle.run_json import PREPARATION, check_preparation
from ..images.find import find_files, without_label_maps, without_results
from ..utils.errors import InputError, find_input_error
from ..utils.optional_import import import_package
from ..weights.files import load_module, load_weights

CURE = "give the values of the training, such as --class_names, --image_size or --network_def#features"

WORDS = {"null": "None", "false": "False", "true": "True"}


def infer(bundle: str | Path, images: Sequence[str | Path], values: Mapping[str, Any] | None = None) -> Path:
    """Run ``inference.json`` of a bundle.

    Args:
        bundle: its folder, or its inference.json.
        images: files, DICOM series (folders), or folders that are searched, see ``find_inputs``.
        values: of the configuration to replace, by their ids, such as ``class_names`` or ``network_def#features``.

    Returns:
        The folder of the results.

    Raises:
        InputError: if an image or the weights are missing, the weights are of another network, values contradict the
            training, or two images would have the same result.
    """
    values = dict(values or {})
    if values.get("image") is not None:
        raise InputError(
            f"image {values['image']}: give images without the name of a value, as in: infer . scan.nii.gz"
        )
    _check_words(values)
    config = read_config(bundle, values, ("inference.json",), "inference")
    _check_weights(config)
    output_dir = Path(config.build("output_dir"))
    datalist = find_inputs(images, config, output_dir)
    if "output_extension" in config.parser:
        _check_names(datalist)
    own = {"bundle_root": config.parser["bundle_root"], "datalist": datalist}
    workflow = ConfigWorkflow(config.name, workflow_type="infer", **(own | values))
    try:
        workflow.initialize()
        workflow.run()
        workflow.finalize()
    except RuntimeError as error:  # in which MONAI wraps whatever its parts raise
        raise find_input_error(error) or error from error
    return output_dir


def find_inputs(images: Sequence[str | Path], config: BundleConfig, output_dir: Path) -> list[str]:
    """Absolute paths of all that is meant: files, and folders that hold one DICOM series each.

    A folder stands for its images, and those of its folders, that have one of the ``suffixes`` of the configuration,
    without label maps and earlier results, and, where images are volumes, for its DICOM series.

    Raises:
        InputError: if there is no such file, a folder has no image, or one holds several DICOM series.
    """
    found: list[str] = []
    for image in images:
        if not Path(image).exists():
            raise InputError(f"{image}: no such file")
        found += [os.path.abspath(image)] if Path(image).is_file() else _search(Path(image), config, output_dir)
    if not found:
        raise InputError("no image is given: name files, folders, or folders of DICOM series.")
    return list(dict.fromkeys(found))


def _search(folder: Path, config: BundleConfig, output_dir: Path) -> list[str]:
    suffixes = tuple(config.build("suffixes"))
    files, dicom = find_files(folder)
    names = [name for name in files + dicom if name.lower().endswith(suffixes)]
    if config.build("spatial_dims") == 3:
        names += {str(PurePath(name).parent) for name in {*dicom} - {*names}}
    kept = without_label_maps(without_results(sorted(names), folder, output_dir))
    if not kept:
        raise InputError(f"{folder}: holds no image file {', '.join(suffixes)}")
    paths = [os.path.abspath(folder / str(name)) for name in kept]
    if config.build("reader") is None:  # others judge by themselves
        _check_series([path for path in paths if Path(path).is_dir()])
    return paths


def _check_series(folders: Sequence[str]) -> None:
    """Refuse folders of several series, of which MONAI would read the first: asked as MONAI does."""
    for folder in folders:
        names = import_package("itk", folder).GDCMSeriesFileNames.New(UseSeriesDetails=True)
        names.AddSeriesRestriction("0008|0021")
        names.SetDirectory(folder)
        if len(names.GetSeriesUIDs()) > 1:
            raise InputError(
                f"{folder}: holds several DICOM series; give the folder of one, or a --reader that takes them as one"
            )


def _check_names(paths: Sequence[str]) -> None:
    """Refuse images whose results would have one name, since MONAI leaves the suffix out of it."""
    known: dict[str, str] = {}
    for path in paths:
        stem = os.path.splitext(path.removesuffix(".gz"))[0]
        if other := known.get(stem):
            raise InputError(f"{other} and {path} would have one file for their results; infer them one by one.")
        known[stem] = path


def _check_weights(config: BundleConfig) -> None:
    """Refuse weights that are missing, of another network, or trained with other values."""
    path = Path(config.build("ckpt_dir"), "model.pt")
    if not path.is_file():
        raise InputError(f"{path}: no such file; run train.json first")
    network = to_device(config.build("network_def"), config.build("device"))
    try:
        load_module(network, load_weights(path), path, type(network).__name__)
    except InputError as error:
        raise InputError(f"{error}; {CURE}") from error
    values = {name: config.parser[name] for name in PREPARATION if name in config.parser}
    check_preparation(values, config.name, path.parent.parent / "output" / "run.json", CURE)


def _check_words(values: Mapping[str, Any]) -> None:
    """Refuse words of other languages, which would arrive as texts."""
    for name, value in values.items():
        if isinstance(value, str) and value in WORDS:
            raise InputError(f"--{name} {value}: write {WORDS[value]} instead")
