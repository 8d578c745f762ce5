"""The command ``python -m dira_monai visual-words``."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fire.decorators import SetParseFns

from .errors import InputError
from .word_data import SPLITS


@SetParseFns(str, datalist=str, output=str, weights=str, device=str)
def visual_words(
    config: str,
    *,
    datalist: str,
    output: str,
    weights: str | None = None,
    overrides: dict | None = None,
    classes: int | None = None,
    neighbors: int | None = None,
    validation_neighbors: int | None = None,
    seed: int = 0,
    steps: int = 500,
    batch_size: int = 8,
    device: str | None = None,
    workers: int | None = None,
) -> Iterator[str]:
    """Find visual words (TransVW) in a list of scans and store their cubes, for pre-training with transvw.json.

    Args:
        config: folder of a pre-training bundle, or its files "train.json,transvw.json"; images are prepared as it says.
        datalist: JSON file of the command datalist.
        output: folder for words.json, training.npy, validation.npy and words.png.
        weights: model.pt of the bundle's network, whose encoder then compares patients; by default an auto-encoder.
        overrides: values of the configuration to replace, such as "{'patch_size': [32, 32, 16], 'words#margin': 0.1}".
        classes: number of words, by default that of the configuration.
        neighbors: training patients of each word, likewise.
        validation_neighbors: validation patients of each word, likewise.
        seed: of all draws.
        steps: of the auto-encoder's training.
        batch_size: whole images that a network sees at a time.
        device: such as cpu or cuda:0; by default the GPU where there is one.
        workers: threads that read images, each of which holds one.
    """
    from .visual_words import visual_words as run  # here, since the other commands need none of it

    if not isinstance(overrides, dict | None):
        raise InputError(f"overrides must be an object such as {{'name': 'value'}}, got {overrides!r}.")
    counts = {"classes": classes, "neighbors": neighbors, "validation_neighbors": validation_neighbors}
    given = {f"words#{name}": count for name, count in counts.items() if count is not None}
    found = run(
        config,
        datalist=datalist,
        output=output,
        weights=weights,
        overrides=(overrides or {}) | given,
        seed=seed,
        steps=steps,
        batch_size=batch_size,
        device=device,
        workers=workers,
    )
    yield from describe_words(found, output)


def describe_words(found: Mapping[str, Any], output: str | Path) -> Iterator[str]:
    """What a person should know of a search, a line each.

    Args:
        found: what ``visual_words`` gives.
        output: folder of its files.
    """
    settings, words, features = found["settings"], found["words"], found["features"]
    if "last_mse" in features:
        yield (
            f"auto-encoder: mean squared error {features['first_mse']:.4f} in the first step, "
            f"{features['last_mse']:.4f} in the last; the mean image has {features['mse_of_mean_image']:.4f}"
        )
    for split, name in zip(SPLITS, ("neighbors", "validation_neighbors"), strict=True):
        if (count := len(found[split]["patients"])) < settings[name]:
            yield f"note: {name} is {settings[name]}, but there are {count} {split} patients: each word has all of them"
    if reused := sum(word["reused"] for word in words):
        yield f"note: {len(words)} words of {len(found['training']['patients'])} patients: {reused} reuse a reference"
    counts = [len(found[split]["rows"]) for split in SPLITS]
    size = " x ".join(map(str, found["patch_size"]))
    yield f"{output}: {len(words)} words, {counts[0]} training and {counts[1]} validation cubes of {size}"
    yield f"look at {Path(output) / 'words.png'}: a row is one word in several patients"
