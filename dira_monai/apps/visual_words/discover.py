"""Self-discovery of visual words (TransVW): places whose cubes look alike in patients that are alike."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...bundle.config import to_device
from ...networks.size_checks import check_patch_size
from ...transforms.views import to_unit
from ...utils.errors import InputError
from ...utils.files import atomic_write, sha256
from ...utils.parallel import parallel_map
from ...utils.seeded_random import sample_seeds
from ...weights.pretrained import load_pretrained
from .cubes import Instances, cut_instances, write_array
from .dataset import KIND, SPLITS, write_words
from .features import make_autoencoder, nearest, patient_features, thumbnail, train_autoencoder
from .picture import draw_words
from .places import Word, choose_words
from .setup import Patient, Setup, read_patients, read_setup

FIRST_DRAW = 3  # epochs of ``sample_seeds`` below this are those of words and auto-encoder


class Search(NamedTuple):
    """What all parts of a search share."""

    setup: Setup
    patients: dict[str, list[Patient]]  # by split
    seed: int
    workers: int | None


def visual_words(
    config: str | Path | Sequence[str],
    *,
    datalist: str | Path,
    output: str | Path,
    weights: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    classes: int | None = None,
    neighbors: int | None = None,
    validation_neighbors: int | None = None,
    seed: int = 0,
    steps: int = 500,
    batch_size: int = 8,
    device: str | None = None,
    workers: int | None = None,
) -> dict[str, Any]:
    """Find visual words and store their cubes: what ``words.json`` says.

    After Haghighi et al., 2021 (https://arxiv.org/abs/2102.10680): for each word a random training patient, a random
    place in it, and the cubes at that place in the most similar patients, training patients for training and validation
    patients for validation. Written to ``output``: ``training.npy`` and ``validation.npy`` (the cubes), ``words.json``
    (behind them, so a folder that has it is whole) and ``words.png``.

    Args:
        config: see ``read_setup``.
        datalist: JSON file of the command datalist, whose lists have no common patient.
        output: folder for words.json, training.npy, validation.npy and words.png.
        weights: model.pt of the bundle's network, whose encoder then compares patients; by default an auto-encoder.
        overrides: values of the configuration to replace, such as "{'patch_size': [32, 32, 16], 'words#margin': 0.1}".
        classes: number of words; by default that of the configuration.
        neighbors: training patients of each word; likewise.
        validation_neighbors: validation patients of each word; likewise.
        seed: of all draws.
        steps: of the auto-encoder's training.
        batch_size: whole images that a network sees at a time.
        device: such as cpu or cuda:0; by default the GPU where there is one.
        workers: threads that read images, each of which holds one; by default one a processor, at most 4.

    Raises:
        InputError: if an argument is out of range, an image or the weights cannot be used, or a word finds no place.
    """
    for name, value, least in (("steps", steps, 1), ("batch_size", batch_size, 1), ("seed", seed, 0)):
        if type(value) is not int or value < least:
            raise InputError(f"{name} must be a whole number of at least {least}, got {value!r}.")
    counts = {"classes": classes, "neighbors": neighbors, "validation_neighbors": validation_neighbors}
    setup = read_setup(config, overrides, {name: count for name, count in counts.items() if count is not None})
    search = Search(setup, read_patients(datalist, setup), seed, workers)
    network, origin = _network(setup, weights, seed, device)
    words = _choose(search)
    features, details = _features(network, search, steps if weights is None else 0, batch_size)
    nearest_patients = _neighbors(words, features, search)
    names = [patient.name for patient in search.patients["training"]]
    found = {
        "kind": KIND,
        "datalist": os.path.abspath(datalist),
        "features": origin | details,
        "seed": seed,
        **asdict(setup.images),
        "cache_dtype": setup.dtype,
        "settings": setup.settings.as_dict(),
        "words": [
            {
                "patient": names[word.reference],
                "reused": number >= len(names),
                "center": word.center,
                "trials": word.trials,
                **{split: nearest_patients[split][number] for split in SPLITS},
            }
            for number, word in enumerate(words)
        ],
    }
    return _write(Path(output), search, words, nearest_patients, found)


def _network(
    setup: Setup, weights: str | Path | None, seed: int, device: str | None
) -> tuple[nn.Module, dict[str, Any]]:
    """What compares patients, on its device, and where it comes from."""
    if weights is None:
        network: nn.Module = make_autoencoder(setup.images.spatial_dims, setup.images.in_channels, seed)
        origin: dict[str, Any] = {"network": "auto-encoder"}
    else:
        network = load_pretrained(setup.config.build("network_def"), weights)
        digest = sha256(weights) if Path(weights).is_file() else None
        origin = {"network": type(network).__name__, "weights": os.path.abspath(weights), "sha256": digest}
    try:
        check_patch_size(network, setup.feature_size)
    except (TypeError, InputError) as error:
        raise InputError(f"patients cannot be compared at feature_size {setup.feature_size}: {error}") from error
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return to_device(network, chosen), origin


def _choose(search: Search) -> list[Word]:
    patients = search.patients["training"]
    return choose_words(
        lambda number: to_unit(search.setup.load(patients[number].image)),
        [patient.name for patient in patients],
        search.setup.settings,
        search.setup.patch_size,
        search.seed,
    )


def _features(
    network: nn.Module, search: Search, steps: int, batch_size: int
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Features of the patients of each split; with ``steps``, after training on the training patients alone."""
    size = search.setup.feature_size

    def shrink(patient: Patient) -> Tensor:
        return thumbnail(to_unit(search.setup.load(patient.image)), size)

    images = {
        split: torch.stack(list(parallel_map(shrink, patients, f"reading {split} images", search.workers)))
        for split, patients in search.patients.items()
    }
    details: dict[str, Any] = {"feature_size": size}
    if steps:
        own = images["training"]
        errors = train_autoencoder(network, own, steps=steps, batch_size=batch_size, seed=search.seed)
        constant = to_unit(own).var(dim=0, correction=0).mean().item()
        details |= {"steps": steps, "first_mse": errors[0], "last_mse": errors[-1], "mse_of_mean_image": constant}
    return {split: patient_features(network, images[split], batch_size) for split in SPLITS}, details


def _neighbors(words: Sequence[Word], features: Mapping[str, Tensor], search: Search) -> dict[str, list[list[int]]]:
    """For each split and word the numbers of the patients, nearest first; all of them where there are fewer."""
    settings = search.setup.settings
    counts = {"training": settings.neighbors, "validation": settings.validation_neighbors}
    return {
        split: [
            nearest(features[split], features["training"][word.reference], min(counts[split], len(features[split])))
            for word in words
        ]
        for split in SPLITS
    }


def _write(
    output: Path,
    search: Search,
    words: Sequence[Word],
    neighbors: Mapping[str, Sequence[Sequence[int]]],
    found: Mapping[str, Any],
) -> dict[str, Any]:
    """Write all files; what words.json says."""
    setup, splits = search.setup, dict[str, Any]()
    with ExitStack() as files:
        for split in SPLITS:
            file = files.enter_context(atomic_write(output / f"{split}.npy"))
            scales = 1 + (setup.settings.scales if split == "training" else 0)
            shape = (scales * sum(map(len, neighbors[split])), setup.images.in_channels, *setup.patch_size)
            rows = list[list[int]]()
            write_array(file, shape, _cubes(split, search, words, neighbors[split], rows))
            patients = search.patients[split]
            splits[split] = {
                "patients": [p.name for p in patients],
                "images": [p.image for p in patients],
                "rows": rows,
            }
        (output / "words.json").unlink(missing_ok=True)  # an old one would describe other arrays
    write_words({**found, **splits}, output)
    with atomic_write(output / "words.png") as file:
        draw_words(output).save(file, format="PNG")
    return {**found, **splits}


def _cubes(
    split: str,
    search: Search,
    words: Sequence[Word],
    neighbors: Sequence[Sequence[int]],
    rows: list[list[int]],
) -> Iterator[Tensor]:
    """The cubes of one patient after the other, so that each image is read once; ``rows`` grows by what they are."""
    setup, patients = search.setup, search.patients[split]
    seeds = [sample_seeds(search.seed, FIRST_DRAW + word, len(patients)) for word in range(len(words))]

    def work(number: int) -> Instances:
        own = [word for word, chosen in enumerate(neighbors) if number in chosen]
        return cut_instances(
            to_unit(setup.load(patients[number].image)),
            [(word, words[word].center) for word in own],
            torch.stack([seeds[word][number] for word in own]) if split == "training" else None,
            setup.patch_size,
            setup.settings,
            setup.dtype,
        )

    used = sorted({number for chosen in neighbors for number in chosen})
    for number, instances in zip(used, parallel_map(work, used, f"cutting {split} cubes", search.workers), strict=True):
        rows += [[number, *row] for row in instances.rows]
        yield instances.cubes
