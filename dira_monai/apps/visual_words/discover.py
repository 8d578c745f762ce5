"""Self-discovery of visual words (TransVW): places whose cubes look alike in patients that are alike."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...bundle.config import BundleConfig, read_config, to_device
from ...data.image_setup import ImageSetup
from ...data.preprocessing import ToStoraged
from ...datalists.io import load_datalist
from ...datalists.patients import patient_of
from ...images.find import Image
from ...networks.size_checks import check_patch_size
from ...transforms.views import to_unit
from ...utils.errors import InputError, check_integers
from ...utils.files import atomic_write, sha256, write_json
from ...utils.parallel import parallel_map
from ...utils.seeded_random import SampleRandom, sample_seeds
from ...visualize.tiles import save_picture
from ...weights.pretrained import load_pretrained
from .cubes import cut, instance_boxes, write_array
from .dataset import KIND, SPLITS
from .features import make_autoencoder, nearest, patient_features, thumbnail, train_autoencoder
from .places import Word, WordSettings, choose_words
from .report import draw_words

CONFIGS = ("train.json", "transvw.json")
COUNTS = {"training": "neighbors", "validation": "validation_neighbors"}  # settings: patients of a word
FIRST_DRAW = 3  # epochs of ``sample_seeds`` below this are those of words and auto-encoder


class Patient(NamedTuple):
    """A patient, who is represented by one image."""

    name: str
    image: Image


class Search(ImageSetup):
    """What all parts of a search share: how the bundle prepares images, the words' settings, and whose images they are.

    Attributes:
        settings: of the words, with those of ``counts`` that are not None.
        feature_size: at which whole images are compared.
        patients: by split, each once, with the first of their images; an entry without a patient is one.
    """

    def __init__(self, config: BundleConfig, counts: Mapping[str, Any], datalist: str | Path, seed: int) -> None:
        super().__init__(config)
        settings = config.build("words")
        if not isinstance(settings, WordSettings):
            raise InputError(f"words of {config.name} must be a WordSettings, got {settings!r}.")
        self.settings = replace(settings, **{name: count for name, count in counts.items() if count is not None})
        self.feature_size = list(self.settings.feature_size or [2 * n for n in self.patch_size])
        content = load_datalist(datalist)
        self.check_datalist(content, datalist)
        self.patients = {split: first_images(content[split]) for split in SPLITS}
        self.seed = seed

    def image_of(self, patient: Patient) -> Tensor:
        """The prepared image in [0, 1], (C, *spatial)."""
        return to_unit(self.load(patient.image))


def first_images(entries: Iterable[Mapping[str, Any]]) -> list[Patient]:
    """Each patient once, in the order of the entries."""
    found = dict[str, Patient]()
    for entry in entries:
        name = patient_of(entry)
        found.setdefault(name, Patient(name, entry["image"]))
    return list(found.values())


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
        config: folder of a bundle with train.json and transvw.json, or configuration files, the later overriding.
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
        device: such as cpu or cuda:0; by default that of the configuration.
        workers: threads that read images, each of which holds one; by default one a processor, at most 4.

    Raises:
        InputError: if an argument is out of range, an image or the weights cannot be used, or a word finds no place.
    """
    check_integers(1, steps=steps, batch_size=batch_size)
    check_integers(0, seed=seed)
    counts = {"classes": classes, "neighbors": neighbors, "validation_neighbors": validation_neighbors}
    search = Search(read_config(config, overrides, CONFIGS, "visual words", device), counts, datalist, seed)
    network, origin = _network(search, weights)
    patients = search.patients["training"]
    names = [patient.name for patient in patients]
    words = choose_words(
        lambda number: search.image_of(patients[number]), names, search.settings, search.patch_size, seed
    )
    features, details = _features(network, search, steps if weights is None else 0, batch_size, workers)
    found = {
        "kind": KIND,
        "datalist": os.path.abspath(datalist),
        "features": origin | details,
        "seed": seed,
        **asdict(search.images),
        "cache_dtype": search.dtype,
        "settings": asdict(search.settings),
        "words": _describe(words, features, search),
    }
    return _write(Path(output), search, found, workers)


def _network(search: Search, weights: str | Path | None) -> tuple[nn.Module, dict[str, Any]]:
    """What compares patients, on its device, and where it comes from."""
    if weights is None:
        network: nn.Module = make_autoencoder(search.images.spatial_dims, search.images.in_channels, search.seed)
        origin: dict[str, Any] = {"network": "auto-encoder"}
    else:
        network = load_pretrained(search.config.build_network(), weights)
        digest = sha256(weights) if Path(weights).is_file() else None
        origin = {"network": type(network).__name__, "weights": os.path.abspath(weights), "sha256": digest}
    try:
        check_patch_size(network, search.feature_size)
    except (TypeError, InputError) as error:
        raise InputError(f"patients cannot be compared at feature_size {search.feature_size}: {error}") from error
    return to_device(network, search.config.build("device")), origin


def _features(
    network: nn.Module, search: Search, steps: int, batch_size: int, workers: int | None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Features of the patients of each split; with ``steps``, after training on the training patients alone."""
    size, images = search.feature_size, dict[str, Tensor]()
    for split, patients in search.patients.items():
        shrunk = parallel_map(
            lambda patient: thumbnail(search.image_of(patient), size), patients, f"reading {split} images", workers
        )
        images[split] = torch.stack(list(shrunk))
    details: dict[str, Any] = {"feature_size": size}
    if steps:
        own = images["training"]
        errors = train_autoencoder(network, own, steps=steps, batch_size=batch_size, seed=search.seed)
        constant = to_unit(own).var(dim=0, correction=0).mean().item()
        details |= {"steps": steps, "first_mse": errors[0], "last_mse": errors[-1], "mse_of_mean_image": constant}
    return {split: patient_features(network, images[split], batch_size) for split in SPLITS}, details


def _describe(words: Sequence[Word], features: Mapping[str, Tensor], search: Search) -> list[dict[str, Any]]:
    """What is stored of each word: of each split the numbers of its patients, nearest first, all if there are few."""
    patients = search.patients["training"]
    return [
        {
            "patient": patients[word.reference].name,
            "reused": number >= len(patients),
            "center": word.center,
            "trials": word.trials,
            **{
                split: nearest(features[split], features["training"][word.reference], getattr(search.settings, name))
                for split, name in COUNTS.items()
            },
        }
        for number, word in enumerate(words)
    ]


def _write(output: Path, search: Search, found: dict[str, Any], workers: int | None) -> dict[str, Any]:
    """Write all files; what words.json says."""
    with ExitStack() as files:
        for split in SPLITS:
            file = files.enter_context(atomic_write(output / f"{split}.npy"))
            scales = 1 + (search.settings.scales if split == "training" else 0)
            count = scales * sum(len(word[split]) for word in found["words"])
            rows = list[list[int]]()
            cubes = _cubes(split, search, found["words"], rows, workers)
            write_array(file, (count, search.images.in_channels, *search.patch_size), cubes)
            patients = search.patients[split]
            found[split] = {"patients": [p.name for p in patients], "images": [p.image for p in patients], "rows": rows}
        (output / "words.json").unlink(missing_ok=True)  # an old one would describe other arrays
    write_json(output / "words.json", found)
    save_picture(draw_words(output), output / "words.png")
    return found


def _cubes(
    split: str, search: Search, words: Sequence[Mapping[str, Any]], rows: list[list[int]], workers: int | None
) -> Iterator[Tensor]:
    """The cubes of one patient after the other, so that each image is read once, of the type they are stored in.

    ``rows`` grows by patient, word, scale (0: the patch's size), start and size of the box of each.
    """
    patients = search.patients[split]
    seeds = [sample_seeds(search.seed, FIRST_DRAW + word, len(patients)) for word in range(len(words))]

    def work(number: int) -> tuple[Tensor, list[list[int]]]:
        image, cubes, places = search.image_of(patients[number]), list[Tensor](), list[list[int]]()
        for word in (word for word in range(len(words)) if number in words[word][split]):
            draws = SampleRandom(seeds[word][number : number + 1]) if split == "training" else None
            boxes = instance_boxes(words[word]["center"], image.shape[1:], search.patch_size, search.settings, draws)
            cubes += [cut(image, box, search.patch_size) for box in boxes]
            places += [[number, word, scale, *box.start, *box.size] for scale, box in enumerate(boxes)]
        return ToStoraged("image", search.dtype)({"image": torch.stack(cubes)})["image"], places

    used = sorted({number for word in words for number in word[split]})
    for cubes, places in parallel_map(work, used, f"cutting {split} cubes", workers):
        rows += places
        yield cubes
