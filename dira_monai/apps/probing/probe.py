"""What an encoder knows before any fine-tuning, measured on labeled images beside encoders of random weights."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.data import Dataset
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from ...bundle.config import BundleConfig, read_config
from ...data.trained_on import find_run_list
from ...datalists.checks import LISTS
from ...datalists.io import make_absolute, read_datalist
from ...datalists.leakage import check_overlap
from ...datalists.prepare_labeled import UNCHECKED
from ...datalists.splits import check_labeled, take_fraction
from ...networks.image_features import image_features
from ...networks.size_checks import check_patch_size
from ...transforms.views import to_unit
from ...utils.errors import InputError, check_integers
from ...utils.files import write_json
from ...weights.pretrained import load_pretrained
from .evaluate import evaluate_subsets


def probe(
    path: str | Path,
    weights: str | Path,
    config_file: str | Sequence[str],
    *,
    overrides: Mapping[str, Any] | None = None,
    output: str | Path = "probe.json",
    random: int = 3,
    neighbors: int = 20,
    temperature: float = 0.07,
    label_fraction: float = 1.0,
    label_subsets: int = 1,
    pretraining_list: str | Path | None = None,
    allow_overlap: bool = False,
    device: str | None = None,
    num_workers: int = 0,
) -> dict[str, Any]:
    """How well frozen features rank the test images of a labeled list: the report, as it is written to ``output``.

    Features (``image_features``) are standardized with the training images, since averages behind instance norm
    differ by little. Two probes use them, both made of the training images: ``knn_scores``, and a logistic regression
    whose penalty the validation images choose. Encoders of random weights go through the same.

    Args:
        path: list for classification, as ``make_labeled_datalist`` makes it.
        weights: see ``load_pretrained``; they must cover the whole encoder.
        config_file: ``train.json`` of a pre-training bundle, perhaps with overlays, which has ``network_def``,
            ``train#preprocessing``, ``patch_size``, ``spatial_dims`` and ``device``.
        overrides: values of the configuration to replace, such as "{'network_def#backbone': 'resnet10'}".
        output: JSON file to write.
        random: number of encoders of random weights beside it, with the seeds 0, 1, ...
        neighbors: of the k-NN.
        temperature: of the votes of the k-NN.
        label_fraction: share of the training patients whose labels are used.
        label_subsets: number of such parts, with the seeds 0, 1, ..., over which the AUC are averaged.
        pretraining_list: datalist of the pre-training, which must not hold test images or patients; by default the one
            of the run of the weights.
        allow_overlap: say so, but go on where it does.
        device: such as cpu or cuda:0; None: that of the configuration.
        num_workers: processes that read images.

    Raises:
        InputError: if an argument is out of range, a file cannot be used, the list has no test images that differ in a
            class, or pre-training has seen them.
    """
    check_integers(0, random=random)
    check_integers(1, neighbors=neighbors, label_subsets=label_subsets)
    if not isinstance(temperature, int | float) or temperature <= 0:
        raise InputError(f"temperature must be a positive number, got {temperature!r}")
    bundle = read_config(config_file, overrides, purpose="probing", device=device)
    datalist = _read_labels(path, bundle)
    subsets = label_rows(datalist, label_fraction, label_subsets)
    pretraining_list = pretraining_list or find_run_list(weights)
    lines = check_overlap(datalist, path, pretraining_list, allow_overlap) if pretraining_list else [UNCHECKED]
    print("\n".join(lines))
    features = _encode_lists(bundle, weights, random, datalist, num_workers)
    votes = {"neighbors": neighbors, "temperature": temperature}
    report = {
        "list": str(path),
        "weights": str(weights),
        "config": [config_file] if isinstance(config_file, str) else list(config_file),
        "overrides": dict(overrides or {}),
        **votes,
        "label_fraction": label_fraction,
        **_evaluate(features, datalist, subsets, votes),
    }
    write_json(output, report, indent=1)
    return report


def _read_labels(path: str | Path, bundle: BundleConfig) -> dict:
    """A checked list for classification with absolute paths, which suits the bundle."""
    datalist = read_datalist(path)
    if not isinstance(datalist, dict) or datalist.get("task") != "classification" or "class_names" not in datalist:
        raise InputError(f"{path} is no list for classification; make one with the command labeled")
    datalist = {"multi_label": False, "test": [], **datalist}
    check_labeled(datalist, path)
    make_absolute(datalist, path, lists=LISTS)
    if (axes := bundle.build("spatial_dims")) != datalist["spatial_dims"]:
        raise InputError(f"{path} lists images of {datalist['spatial_dims']} axes where {bundle.name} takes {axes}")
    labels = label_matrix(datalist["test"], len(datalist["class_names"]))
    if not any(column[~column.isnan()].unique().numel() == 2 for column in labels.T):
        raise InputError(
            f"{path} has no class that some of its {len(labels)} test images have and others lack, so nothing can be "
            "ranked; make it with a greater test_fraction or another seed"
        )
    return datalist


def label_rows(datalist: dict, fraction: float, subsets: int) -> list[list[int]]:
    """Places in the training list of the images whose labels are used, of each part; see ``take_fraction``."""
    place = {id(entry): number for number, entry in enumerate(datalist["training"])}
    parts = [take_fraction(datalist, fraction, seed)[0]["training"] for seed in range(subsets)]
    return [[place[id(entry)] for entry in part] for part in parts]


def label_matrix(entries: Sequence[Mapping[str, Any]], count: int) -> Tensor:
    """Labels as 0, 1 or NaN where not known, float64, shape (N, ``count``): of class numbers, or of lists."""
    rows = [
        [float(label == number) for number in range(count)]
        if isinstance(label, int)
        else [math.nan if state is None else float(state) for state in label]
        for label in (entry["label"] for entry in entries)
    ]
    return torch.tensor(rows, dtype=torch.float64).reshape(len(rows), count)


def _encode_lists(
    bundle: BundleConfig, weights: str | Path, random: int, datalist: dict, num_workers: int
) -> dict[str, dict[str, Tensor]]:
    """Features of all images, shape (N, D), by encoder and list; each image is read once."""
    encoders = {"weights": load_pretrained(bundle.build_network(), weights, minimum_coverage=1.0)}
    encoders |= {f"random {seed}": bundle.build_network(seed) for seed in range(random)}
    window, preprocessing, device = map(bundle.build, ("patch_size", "train#preprocessing", "device"))
    check_patch_size(encoders["weights"], window)
    features: dict[str, dict[str, Tensor]] = {name: {} for name in encoders}
    for key in LISTS:
        images = Dataset([{"image": entry["image"]} for entry in datalist[key]], preprocessing)
        rows: dict[str, list[Tensor]] = {name: [] for name in encoders}
        for sample in tqdm(DataLoader(images, batch_size=None, num_workers=num_workers), key, disable=None):
            image = to_unit(sample["image"].to(device))
            for name, network in encoders.items():
                rows[name].append(image_features(network, image, window))
        for name in encoders:
            features[name][key] = torch.stack(rows[name])
    return features


def _evaluate(
    features: Mapping[str, Mapping[str, Tensor]], datalist: dict, subsets: list[list[int]], votes: dict[str, Any]
) -> dict[str, Any]:
    """What the report says of the lists, and how well each encoder's features rank the test images."""
    classes = datalist["class_names"]
    labels = {key: label_matrix(datalist[key], len(classes)) for key in LISTS}
    return {
        "classes": classes,
        "images": {key: len(datalist[key]) for key in LISTS},
        "labeled_images": [len(rows) for rows in subsets],
        "channels": features["weights"]["training"].shape[1],
        "encoders": {
            name: evaluate_subsets(found, labels, subsets, classes, **votes) for name, found in features.items()
        },
    }
