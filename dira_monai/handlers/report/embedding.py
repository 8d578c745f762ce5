"""How a pre-trained encoder arranges images, beside the encoder that it began as."""

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch import Tensor, nn

from ...data.datasets import PretrainDataset
from ...engines.trainer import DiRATrainer
from ...metrics import class_auc, knn_scores
from ...networks.image_features import image_features, standardize
from ...transforms.views import to_unit

IMAGES = 2000  # at most
ENOUGH = 50  # validation images; of fewer, training images join them
SECONDS = 10.0  # that collecting features may always take, longer if that is SHARE of the run
SHARE = 0.03
FOLDS = 5
NEIGHBORS = 20


def choose_images(
    validation: PretrainDataset, training: PretrainDataset, count: int = IMAGES
) -> list[tuple[PretrainDataset, int]]:
    """Datasets and places of the images of a map, evenly spread: validation, and training where these are few."""
    every = [(validation, i) for i in range(len(validation))]
    if len(every) < ENOUGH:
        every += [(training, i) for i in range(len(training))]
    return every[:: math.ceil(len(every) / count)] if every else []


def middle_box(image: Tensor, window: Sequence[int]) -> Tensor:
    """The middle of an image (C, *spatial), along each axis one window long, or two where it has so many voxels."""
    sizes = [2 * w if n >= 2 * w else w for n, w in zip(image.shape[1:], window, strict=True)]
    starts = [(n - size) // 2 for n, size in zip(image.shape[1:], sizes, strict=True)]
    return image[(slice(None), *(slice(a, a + size) for a, size in zip(starts, sizes, strict=True)))]


def encode_images(
    engine: DiRATrainer,
    networks: Mapping[str, nn.Module],
    chosen: Sequence[tuple[PretrainDataset, int]],
    seconds: float,
) -> tuple[dict[str, Tensor], list[Mapping[str, Any]]]:
    """Features of images by several networks, (N, D) each, and their entries of the list; each image is read once.

    Args:
        engine: the trainer, whose patch size and device count.
        networks: in evaluation mode.
        chosen: datasets and places.
        seconds: after which no further image is read.
    """
    crop: Any = getattr(engine.views, "crop", engine.views)  # GridViews crop by themselves
    window = crop.patch_size
    rows: dict[str, list[Tensor]] = {name: [] for name in networks}
    entries: list[Mapping[str, Any]] = []
    start = time.perf_counter()
    for dataset, place in chosen:
        box = middle_box(dataset.images[place]["image"], window)
        for name, network in networks.items():
            rows[name].append(image_features(network, to_unit(torch.as_tensor(box).to(engine.state.device)), window))
        entries.append(dataset.data[place])
        if time.perf_counter() - start > seconds:
            break
    return {name: torch.stack(features) for name, features in rows.items()}, entries


def frozen_copy(network: nn.Module, state: Mapping[str, Tensor] | None = None) -> nn.Module:
    """A copy of a network in evaluation mode, with some of its weights replaced."""
    frozen = copy.deepcopy(network).eval()
    if state is not None:
        frozen.load_state_dict(dict(state), strict=False)
    return frozen


def new_network(config: Mapping[str, Any]) -> nn.Module:
    """The network of a configuration with random weights of the seed 0, in evaluation mode, on the CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network: nn.Module = ConfigParser(copy.deepcopy(dict(config))).get_parsed_content("network_def")
    return network.eval()


def principal_components(features: Tensor) -> tuple[Tensor, float]:
    """Coordinates of rows (N, D) along the two axes on which they differ most, (N, 2), and the share of the variance.

    The side of each axis on which the outermost point lies is positive.
    """
    centered = features.double() - features.double().mean(0)
    values, vectors = torch.linalg.eigh(centered @ centered.T)
    coordinates = (vectors * values.clamp(min=0).sqrt())[:, -2:].flip(1)
    outermost = coordinates.gather(0, coordinates.abs().argmax(0, keepdim=True))
    share = float(values[-2:].sum() / values.sum().clamp(min=1e-30))
    return torch.where(outermost < 0, -coordinates, coordinates), share


def umap() -> Callable[[Tensor], Tensor] | None:
    """UMAP to two axes with the seed 0, where its package is installed."""
    if find_spec("umap") is None:
        return None
    from umap import UMAP

    return lambda features: torch.as_tensor(UMAP(random_state=0).fit_transform(features.numpy()))


def neighbor_accuracy(features: Tensor, labels: Sequence[int], groups: Sequence[str]) -> tuple[float, float] | None:
    """What the nearest images of other groups tell of labels: accuracy, and the mean AUC of the classes.

    The groups are shared out among at most ``FOLDS`` folds; the labels of a fold are told by the images of the others.

    Args:
        features: shape (N, D).
        labels: class of each image, from 0.
        groups: such as patients, of which images are alike.

    Returns:
        None where there is one group only.
    """
    order = {group: i for i, group in enumerate(sorted(set(groups)))}
    folds = min(FOLDS, len(order))
    if folds < 2:
        return None
    fold = torch.tensor([order[group] % folds for group in groups])
    classes = torch.tensor(labels)
    truth = nn.functional.one_hot(classes).double()
    scaled = standardize(features, features)
    scores = torch.zeros_like(truth)
    count = min(NEIGHBORS, max(1, len(labels) // 10))
    for i in range(folds):
        scores[fold == i] = knn_scores(scaled[fold == i], scaled[fold != i], truth[fold != i], count)
    areas = [area for area in class_auc(scores, truth) if not math.isnan(area)]
    return float((scores.argmax(1) == classes).double().mean()), sum(areas) / max(len(areas), 1)
