"""The command ``python -m dira_monai probe``."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..apps.visual_words.dataset import SPLITS
from ..utils.errors import InputError


def probe(
    *,
    list: str,
    weights: str,
    config_file: str | list[str],
    overrides: dict | None = None,
    output: str = "probe.json",
    random: int = 3,
    neighbors: int = 20,
    temperature: float = 0.07,
    label_fraction: float = 1.0,
    label_subsets: int = 1,
    pretraining_list: str | None = None,
    allow_overlap: bool = False,
    device: str | None = None,
    num_workers: int = 0,
) -> Iterator[str]:
    """Tell what an encoder knows before fine-tuning: k-NN and a linear classifier on its frozen features, test AUC.

    Args:
        list: JSON file for classification, as the command labeled writes it.
        weights: model.pt or encoder.pt of a pre-training.
        config_file: train.json of its bundle, or "['.../train.json','.../METHOD.json']".
        overrides: values of it to replace, such as "{'network_def#backbone': 'resnet10'}".
        output: JSON file to write.
        random: number of encoders of random weights beside it.
        neighbors: of the k-NN.
        temperature: of the votes of the k-NN.
        label_fraction: share of the training patients whose labels are used.
        label_subsets: number of such parts, over which the AUC are averaged.
        pretraining_list: datalist of the pre-training, which must not hold test images or patients.
        allow_overlap: say so, but go on where it does.
        device: such as cpu or cuda:0; by default that of config_file.
        num_workers: processes that read images.
    """
    options = {name: value for name, value in locals().items() if name not in ("list", "weights", "config_file")}
    from ..apps.probing.probe import describe_probe  # here, since the other commands need none of it
    from ..apps.probing.probe import probe as run

    yield describe_probe(run(list, weights, config_file, **options))
    yield f"{output} is written"


def localize(
    bundle: str,
    *,
    dataset_dir: str,
    output_dir: str,
    boxes: str | None = None,
    masks: str | None = None,
    finding: str | None = None,
    datalist: str | None = None,
    overrides: dict | None = None,
    weights: str | None = None,
    target_layer: str | None = None,
    threshold: float = 0.5,
    component: str = "largest",
    patient: str | None = None,
    label_map: dict | None = None,
    strict: bool = False,
    allow_leak: bool = False,
    device: str | None = None,
    pictures: int = 8,
) -> Iterator[str]:
    """Compare where a trained classifier looks (Grad-CAM) with boxes that a person drew.

    Args:
        bundle: folder of the classifier's bundle, or its inference.json.
        dataset_dir: folder of the images.
        output_dir: folder for localization.json, localization.csv and localization.png.
        boxes: CSV file with the columns file, finding, x, y, w, h (or left, top, right, bottom).
        masks: folder of label maps named like the images, instead of boxes.
        finding: class that all labels of the masks stand for; by default the label's number is mapped by label_map.
        datalist: JSON file that the classifier was trained with; by default the one of the run of the weights.
        overrides: values of inference.json to replace, such as "{'image_size': [96, 96]}".
        weights: by default models/model.pt in the bundle.
        target_layer: whose features make the map; by default layer4, or the last one before the pooling.
        threshold: of the map, which lies in 0 to 1.
        component: largest (one box, around the largest component) or each (one box a component).
        patient: dicom, folder, file, or a CSV file with the columns file and patient; by default that of the datalist.
        label_map: from words of the table to classes, or None to leave rows out: "{'Infiltrate': 'Infiltration'}".
        strict: stop at boxes or masks of images that are not there.
        allow_leak: report images whose patients were trained on instead of refusing them.
        device: such as cpu or cuda:0; by default that of inference.json.
        pictures: how many cases are drawn.
    """
    options = {name: value for name, value in locals().items() if name != "bundle"}
    from ..apps.localization.localize import localize as run
    from ..apps.localization.report import describe_report  # here, since the other commands need none of it

    yield from describe_report(run(bundle, **options))
    yield f"{output_dir}: localization.json, localization.csv{', localization.png' if pictures else ''}"


def seg(
    series: str,
    label_map: str,
    output: str,
    *,
    class_names: Sequence[str],
    codes: str | None = None,
    series_uid: str | None = None,
    algorithm: str = "dira_monai",
) -> Iterator[str]:
    """Write a label map as a DICOM segmentation (SEG) of the series that it was made from; needs highdicom.

    Args:
        series: folder of the DICOM series, or one DICOM file (an X-ray, a multi-frame file).
        label_map: such as NIfTI, in whatever orientation and spacing; values are the numbers of the classes.
        output: file to write.
        class_names: such as "['background', 'liver', 'tumor']".
        codes: JSON file, such as {"liver": {"type": ["10200004", "SCT", "Liver"], "color": [200, 80, 80]}}.
        series_uid: of the series, where the folder holds several.
        algorithm: name that is written as that of the algorithm.
    """
    from ..apps.dicom_seg.write import write_segmentation  # here, since the other commands need none of it

    options = {"codes": codes, "series_uid": series_uid, "algorithm": algorithm}
    yield write_segmentation(series, label_map, output, class_names, **options)  # type: ignore[arg-type]


def visual_words(
    config: str | list[str],
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
    from ..apps.visual_words.discover import visual_words as run  # here, since the other commands need none of it

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
