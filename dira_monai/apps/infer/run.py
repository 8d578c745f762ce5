"""Inference of a bundle on files, folders and DICOM series; what cannot be right is refused before anything runs."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from ...bundle.config import BundleConfig, read_config
from ...bundle.options import check_words
from ...bundle.run_json import PREPARATION, check_preparation, find_record
from ...data.trained_on import find_run_list, tell_seen
from ...images.stock import OUR_READER
from ...utils.errors import InputError
from ...utils.memory import tune_malloc
from ...utils.optional_import import import_package
from ...weights.files import check_finite, load_module, load_weights
from .inputs import Inputs, find_inputs, find_truth
from .loading import InputImages, only_batch, without_parts
from .names import ResultNames, check_free, name_results
from .step import Step, companions
from .table import FAILED, Inference, Result, read_earlier

CURE = "give the values of the training, such as --class_names, --image_size or --network_def#features"
DECIDED = ("image", "datalist", "dataset", "dataset_dir")  # values of a configuration that say which images are meant


def infer(
    bundle: str | Path,
    images: str | Path | Sequence[str | Path],
    *,
    truth: str | Path | None = None,
    dicom_seg: bool = False,
    pictures: bool = True,
    **values: Any,
) -> Inference:
    """Run ``inference.json`` of a bundle on images, one after another; the next one is loaded meanwhile.

    An image that cannot be used is named in the table, and the others go on. Label maps are called like their images
    and lie in folders like theirs.

    Args:
        bundle: its folder, its inference.json, or the folder of a run that holds a finished ``bundle``.
        images: files, DICOM series (folders), or folders that are searched, see ``find_inputs``.
        truth: of classification, a datalist with labels; by default an image in a folder with the name of a class is
            of this class.
        dicom_seg: also write label maps of DICOM series as DICOM segmentations; needs highdicom.
        pictures: also draw each label map over its image, through the middle of its classes.
        **values: of the configuration to replace, by their ids: ``class_names=["background", "liver"]``;
            ``output_dir`` is by default the folder ``prediction`` of the bundle or run.

    Raises:
        InputError: if an image is missing, weights are missing, of another network or not finite, values contradict
            the training, or a result would overwrite what is no result.
    """
    run, values = _find_run(bundle, values)
    _check_values(values)
    config = read_config(run or bundle, values, ("inference.json",), "inference")
    if "class_names" not in config.parser:
        raise InputError(
            f"{config.name} is of a pre-training, whose output is restored images; give the run of a fine-tuning, or "
            "run this file by python -m monai.bundle run."
        )
    network = _load_network(config, Path(bundle))
    output_dir = Path(config.build("output_dir")).absolute()  # itk changes the working folder while it loads its parts
    found = find_inputs([images] if isinstance(images, str | Path) else images, config, output_dir)
    saver = _find_saver(config)
    if saver is None and dicom_seg:
        raise InputError(f"{config.name} writes no label map, so there is no DICOM segmentation of it.")
    if saver is not None and truth:
        raise InputError("truth is for classification; label maps are compared by evaluate.json.")
    if dicom_seg:
        import_package("highdicom", "--dicom_seg")
    ending = f"_{config.build(f'{saver}::output_postfix')}{config.build(f'{saver}::output_ext')}" if saver else ""
    inference = _start_table(config, found, output_dir, ending, truth)
    tested = [found.channels.get(path, path) for path in found.paths]
    inference.warning = tell_seen(tested, find_run_list(config.build("model_path"), bundle))
    step = Step(inference, config, ending, dicom_seg, pictures)
    loading = read_config(run or bundle, values, ("inference.json",), "inference")
    if config.parser["reader"] is None:  # lists are made by it, and trained on where stock MONAI reads the same
        loading.parser["reader"] = {"_target_": OUR_READER, "resample": False}
    prepare, sizes = loading.build("preprocessing"), (config.build("in_channels"), config.build("spatial_dims"))
    dataset = InputImages(found.paths, prepare, *sizes, found.channels, config.parser["reader"])
    try:
        inference.save()
        _evaluate(config, network, dataset, step, saver)
    finally:
        step.bar.close()
        inference.save()
    return inference


def _find_run(bundle: str | Path, values: dict[str, Any]) -> tuple[Path | None, dict[str, Any]]:
    """The finished bundle of a run, where a run is named, and the values with its folder for the results."""
    finished = Path(bundle) / "bundle"
    if not (finished / "configs" / "inference.json").is_file():
        return None, values
    return finished, {"output_dir": str(Path(bundle) / "prediction")} | values


def _check_values(values: Mapping[str, Any]) -> None:
    """Refuse values that are not replaced, or would arrive as texts."""
    for name, value in values.items():
        if value is not None and name.replace("::", "#").split("#")[0] in DECIDED:
            raise InputError(f"{name} {value}: give images without the name of a value, as in: infer . scan.nii.gz")
    check_words(values)


def _load_network(config: BundleConfig, bundle: Path) -> nn.Module:
    """The network with its weights, which are of this network, finite, and trained with the same values."""
    path = Path(config.build("model_path"))
    if not path.is_file():
        raise InputError(f"{path}: no such file; run train.json first")
    network = config.build_network()
    state = load_weights(path)
    try:
        load_module(network, state, path, type(network).__name__)
    except InputError as error:
        raise InputError(f"{error}; {CURE}") from error
    check_finite(state, path)
    values = {name: config.parser[name] for name in PREPARATION if name in config.parser}
    check_preparation(values, config.name, find_record(path, bundle, bundle / "output"), CURE)
    return network


def _find_saver(config: BundleConfig) -> str | None:
    """The id of what writes label maps; None for classification."""
    transforms = config.parser["postprocessing"]["transforms"]
    names = [str(transform.get("_target_")).split(".")[-1] for transform in transforms]
    return f"postprocessing::transforms::{names.index('SaveImaged')}" if "SaveImaged" in names else None


def _start_table(
    config: BundleConfig, found: Inputs, output_dir: Path, ending: str, truth: str | Path | None
) -> Inference:
    """The table before anything runs: names of the results, truth, and what cannot be read."""
    rows = [Result(path) for path in found.paths]
    names = () if ending else config.build("class_names")
    broken = [Result(path, status=FAILED, note=reason) for path, reason in found.unreadable.items()]
    inference = Inference(output_dir, [*rows, *broken], names, found.left_out)
    files = {row.file for row in inference.rows}
    inference.earlier, outputs = read_earlier(inference.table, inference.columns, files)
    if not ending:
        known = find_truth(found.paths, names, truth)
        for row in rows:
            row.truth = known.get(row.file, "")
        return inference
    taken = [output for file, output in outputs.items() if file not in files]
    for row, output in zip(rows, name_results(found.paths, config.build("suffixes"), ending, taken), strict=True):
        row.output = output
    own = {str(file) for output in outputs.values() if output for file in companions(output_dir / output, ending)}
    check_free([file for row in rows for file in companions(output_dir / row.output, ending)], own)
    return inference


def _evaluate(config: BundleConfig, network: nn.Module, dataset: InputImages, step: Step, saver: str | None) -> None:
    """Run the bundle's evaluator on the images, with the network that is loaded already."""
    parser = config.parser
    parser["output_dir"] = str(step.inference.output_dir)
    parser["dataset"] = dataset
    parser["network"] = network
    parser["dataloader::_target_"] = "ThreadDataLoader"  # the next image is loaded while the network computes
    parser["dataloader::batch_size"] = 1
    parser["dataloader::collate_fn"] = only_batch
    parser["handlers"] = without_parts(parser["handlers"], "CheckpointLoader", "ClassificationSaver")
    parser["evaluator::iteration_update"] = step
    if saver is not None:
        files = {row.file: step.inference.output_dir / row.output for row in step.inference.rows}
        parser[f"{saver}::folder_layout"] = ResultNames(files)
        parser[f"{saver}::print_log"] = False
    tune_malloc()
    with warnings.catch_warnings():
        config.build("initialize")
        step.preprocessing = config.build("preprocessing")
        if dataset.paths:
            config.build("evaluator").run()
        if "finalize" in parser:
            config.build("finalize")
