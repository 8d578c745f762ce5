"""The model card of a run's bundle, ``docs/README.md``, with the sections of the Model Zoo's template."""

from collections.abc import Mapping
from typing import Any

from ..utils.tables import count_of
from ..utils.version import __version__
from .metadata import NOBODY, count_images, describe, describe_task, is_segmentation
from .run_facts import UNKNOWN, RunFacts

CITATION = "## Citation Info"
PICTURE = "docs/panel.png"
INFER = "python -m monai.bundle run --config_file configs/inference.json --bundle_root . --dataset_dir IMAGES"
EVALUATE = "python -m monai.bundle run --config_file configs/evaluate.json --bundle_root ."


def make_card(shipped: str, facts: RunFacts, metadata: Mapping[str, Any], picture: bool) -> str:
    """The text.

    Args:
        shipped: ``docs/README.md`` of the bundle that was trained, whose citations and licence are kept.
        facts: of the run.
        metadata: of the run's bundle.
        picture: whether ``docs/panel.png`` is there.
    """
    tail = CITATION + shipped.partition(CITATION)[2] if CITATION in shipped else ""
    sections = {
        "Authors": NOBODY,
        "Tags": ", ".join([describe_task(facts).split()[0], f"{facts.values['spatial_dims']}D", facts.modality]),
        "Model Description": describe(facts),
        "Data": _data(facts),
        "#Preprocessing": _preprocessing(facts),
        "Training configuration": f"Weights of epoch {facts.epoch}, the best in validation. Network: {facts.network}; "
        "its arguments are in `configs/inference.json`.",
        "Input and output": _tensors(metadata),
        "Performance": _performance(facts, picture),
        "MONAI Bundle Commands": _commands(facts),
        "System Configuration": _versions(metadata),
        "Limitations": _limits(facts, picture),
    }
    body = "\n\n".join(f"##{name if name[0] == '#' else ' ' + name}\n\n{text}" for name, text in sections.items())
    return f"# {describe_task(facts)}\n\n{body.replace('###', '### ')}\n\n{tail}".rstrip() + "\n"


def _data(facts: RunFacts) -> str:
    lists = "\n".join(f"| {name} | {count_images(facts, name)} |" for name in facts.images)
    source = "Synthetic phantoms, no real scans." if facts.phantoms else "The images are not part of this bundle."
    files = f"Files: {', '.join(facts.suffixes) or UNKNOWN}; modality: {facts.modality}."
    return f"| list | size |\n|---|---|\n{lists}\n\n{source} {files}"


def _preprocessing(facts: RunFacts) -> str:
    given = {name: facts.values.get(name) for name in ("axcodes", "spacing", "intensity_range", "image_size")}
    meanings = {
        "axcodes": "axes turned to {}",
        "spacing": "voxels resampled to {} mm",
        "intensity_range": "values {} become [0, 1]",
        "image_size": "resized to {} voxels",
    }
    steps = [meanings[name].format(value) for name, value in given.items() if value is not None]
    if given["intensity_range"] is None:
        steps.append("percentiles 0.5 and 99.5 of each image become 0 and 1")
    return f"Done by `configs/inference.json`: {'; '.join(steps)}."


def _tensors(metadata: Mapping[str, Any]) -> str:
    image = metadata["network_data_format"]["inputs"]["image"]
    pred = metadata["network_data_format"]["outputs"]["pred"]
    size = " x ".join(map(str, image["spatial_shape"]))
    channels = ", ".join(f"{number} {name}" for number, name in pred["channel_def"].items())
    return f"Input: {count_of(image['num_channels'], 'channel')} of {size} in [0, 1]. Output channels: {channels}."


def _performance(facts: RunFacts, picture: bool) -> str:
    rows = "\n".join(f"| {name} | {value:.4g} |" for name, value in facts.metrics.items())
    table = f"| metric of the validation images | value |\n|---|---|\n{rows}" if rows else "Not validated."
    chosen = "These images chose the epoch, so new ones will score lower; measure with `configs/evaluate.json`."
    shown = f"\n\n![validation images and predictions]({PICTURE.split('/')[1]})" if picture else ""
    return f"{table}\n\n{chosen}{shown}"


def _commands(facts: RunFacts) -> str:
    if "class_names" not in facts.values:
        return f"Restore images:\n\n    {INFER}\n\nEvaluate; needs the package dira-monai:\n\n    {EVALUATE}"
    layout = "folders `images` and `labels` with equal names" if is_segmentation(facts) else "one folder a class"
    new = f"    {EVALUATE} --dataset_dir LABELED\n    {EVALUATE} --datalist_file LIST.json"
    return (
        f"Infer:\n\n    {INFER}\n\nEvaluate on labeled images (`LABELED`: {layout}), or on the list `test` of a "
        "datalist of MONAI. While the bundle lies in the folder of its run, that run's test images need no option.\n\n"
        f"{new}"
    )


def _versions(metadata: Mapping[str, Any]) -> str:
    packages = ", ".join(f"{name} {number}" for name, number in metadata["required_packages_version"].items())
    return (
        f"MONAI {metadata['monai_version']}, torch {metadata['pytorch_version']}, numpy {metadata['numpy_version']}; "
        f"{packages}. Trained with dira-monai {__version__}."
    )


def _limits(facts: RunFacts, picture: bool) -> str:
    shown = f" `{PICTURE}` shows images of the validation: look at it before you share the bundle." if picture else ""
    few = min(facts.images.get("training", 0), facts.images.get("validation", 0))
    return (
        f"Not for clinical use. Known from {sum(facts.images.values())} images of one data set alone, {few} in the "
        "smaller of training and validation. Images of other scanners, protocols or patients may give other results, "
        f"and nothing was checked for bias.{shown}"
    )
