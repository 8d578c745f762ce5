"""The metadata of a run's bundle: those of its bundle, with what is true of the run."""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ..utils.tables import count_of
from .run_facts import UNKNOWN, RunFacts

PACKAGE = "dira-monai"
NOBODY = "not stated: whoever made this training"


def make_metadata(template: Mapping[str, Any], facts: RunFacts) -> dict[str, Any]:
    """``metadata.json`` of a run.

    Args:
        template: that of its bundle.
        facts: of the run.
    """
    task = describe_task(facts)
    number = template["version"]
    required = [name for name in template["required_packages_version"] if name != PACKAGE or facts.need_package]
    versions = {name: found for name in required if (found := find_version(name))}
    kept = {name: value for name, value in template.items() if not name.endswith("_data_format")}
    return kept | {
        "changelog": {number: f"weights of epoch {facts.epoch} of a training"},
        "monai_version": find_version("monai"),
        "pytorch_version": find_version("torch"),
        "numpy_version": find_version("numpy"),
        "required_packages_version": versions,
        "name": task,
        "task": task,
        "description": describe(facts),
        "authors": NOBODY,
        "copyright": NOBODY,
        "data_source": "synthetic phantoms of dira-monai" if facts.phantoms else "images of whoever made this training",
        "data_type": ", ".join(facts.suffixes) or UNKNOWN,
        "image_classes": f"{count_of(facts.values['in_channels'], 'channel')}, scaled to [0, 1]",
        **describe_classes(facts),
        "eval_metrics": dict(facts.metrics),
        "intended_use": "research; not for clinical use",
        "network_data_format": describe_tensors(template["network_data_format"], facts),
    }


def find_version(package: str) -> str:
    """Of an installed package, without the part behind + that names a build; empty if it is not there."""
    try:
        return version(package).split("+")[0]
    except PackageNotFoundError:
        return ""


def is_segmentation(facts: RunFacts) -> bool:
    """Whether the network labels voxels."""
    return "class_names" in facts.values and "multi_label" not in facts.values


def describe_task(facts: RunFacts) -> str:
    """One line."""
    dims = f"{facts.values['spatial_dims']}D"
    names = facts.values.get("class_names")
    if names is None:
        return f"Restoration of distorted images, {dims}: a pre-trained network to fine-tune"
    if is_segmentation(facts):
        return f"Segmentation of {', '.join(names[1:])}, {dims}"
    return f"Classification as {', '.join(names)}, {dims}"


def describe(facts: RunFacts) -> str:
    """A sentence on the network, its data and what it needs."""
    start = ", from pre-trained weights," if facts.started_from else ""
    made = f"{facts.network}{start} trained by dira-monai on {count_images(facts, 'training')}"
    needs = {name: PACKAGE if name in facts.need_package else "MONAI alone" for name in ("inference", "evaluate")}
    if len({*needs.values()}) == 1:
        return f"{made}; evaluation and inference need {needs['inference']}."
    return f"{made}; inference needs {needs['inference']}, evaluation {needs['evaluate']}."


def count_images(facts: RunFacts, name: str) -> str:
    """Such as 12 images of 9 patients."""
    patients = facts.patients.get(name)
    of = "" if patients is None else f" of {count_of(patients, 'patient')}"
    return count_of(facts.images.get(name, 0), "image") + of


def describe_classes(facts: RunFacts) -> dict[str, str]:
    """What labels and predictions stand for."""
    names = facts.values.get("class_names")
    if names is None:
        return {}
    listed = ", ".join(f"{number} {name}" for number, name in enumerate(names))
    return {"label_classes": f"class numbers: {listed}", "pred_classes": f"logits, a channel a class: {listed}"}


def describe_tensors(template: Mapping[str, Any], facts: RunFacts) -> dict[str, Any]:
    """``network_data_format``: sizes, channels and class names of the run."""
    image, pred = dict(template["inputs"]["image"]), dict(template["outputs"]["pred"])
    channels, names = facts.values["in_channels"], facts.values.get("class_names")
    image |= {
        "format": "hounsfield" if facts.modality == "CT" else "magnitude",
        "modality": facts.modality,
        "num_channels": channels,
        "spatial_shape": list(facts.shape),
        "channel_def": {"0": "image"} if channels == 1 else {str(i): f"channel {i}" for i in range(channels)},
    }
    pred |= {"modality": facts.modality, "num_channels": channels if names is None else len(names)}
    if names is not None:
        pred["channel_def"] = {str(number): name for number, name in enumerate(names)}
    if names is None or is_segmentation(facts):
        pred["spatial_shape"] = list(facts.shape)
    return {"inputs": {"image": image}, "outputs": {"pred": pred}}
