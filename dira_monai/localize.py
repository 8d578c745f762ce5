"""Weakly supervised localization: does a classifier, trained on labels of whole images, look where the lesions are?"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.transforms import LoadImage
from numpy import ndarray
from PIL import Image as Picture
from tqdm import tqdm

from .box_panel import draw_boxes
from .boxes import Truth, read_boxes, read_masks
from .classifier import Classifier, read_classifier
from .errors import InputError
from .leaks import find_leaks
from .localization import (
    COMPONENTS,
    THRESHOLDS,
    Case,
    best_overlaps,
    check_cam,
    find_layer,
    heat_map,
    judge,
    make_cam,
    predict_boxes,
)
from .localization_report import make_report, write_report
from .reader import ScanReader
from .scans import Image, first_file


def localize(
    bundle: str | Path,
    *,
    dataset_dir: str | Path,
    output_dir: str | Path,
    boxes: str | Path | None = None,
    masks: str | Path | None = None,
    finding: str | None = None,
    datalist: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    weights: str | Path | None = None,
    target_layer: str | None = None,
    threshold: float = 0.5,
    component: str = "largest",
    patient: str = "auto",
    label_map: Mapping[Any, str | None] | None = None,
    allow_leak: bool = False,
    device: str | None = None,
    pictures: int = 8,
) -> dict[str, Any]:
    """How well the Grad-CAM of a classifier meets drawn boxes: the report, as it is written.

    Files in ``output_dir``: ``localization.json`` (all), ``localization.csv`` (accuracies at every threshold) and,
    where pictures are wanted, ``localization.png``.

    Args:
        bundle: folder or inference.json, see ``read_classifier``.
        dataset_dir: folder of the images.
        output_dir: folder of the files.
        boxes: CSV file, see ``read_boxes``.
        masks: folder, see ``read_masks``; either this or ``boxes``.
        finding: class of all labels of the masks.
        datalist: that the classifier was trained with; None: output/datalist.json in the bundle.
        overrides: of the configuration, see ``read_classifier``.
        weights: see ``read_classifier``.
        target_layer: see ``find_layer``.
        threshold: of the map, over 0 and at most 1.
        component: "largest" or "each", see ``predict_boxes``.
        patient: rule or table that gives each image's patient, see ``find_leaks``.
        label_map: from words of the table or labels of the masks to classes, see ``class_of``.
        allow_leak: report images and patients of the training instead of refusing them.
        device: see ``read_classifier``.
        pictures: how many cases are drawn, at least 0.

    Raises:
        InputError: if an argument is out of range, a file cannot be used, nothing has a box, or a boxed patient was
            trained on.
    """
    for name, value in (("overrides", overrides), ("label_map", label_map)):
        if not isinstance(value, Mapping | None):
            raise InputError(f"{name} must be an object such as {{'name': 'value'}}, got {value!r}.")
    _check_options(threshold, component, allow_leak, pictures, boxes, masks)
    classifier = read_classifier(bundle, overrides, weights, device)
    words = {str(word): name for word, name in (label_map or {}).items()}
    if boxes is not None:
        truths = read_boxes(boxes, dataset_dir, classifier.class_names, words)
    elif masks is not None:
        truths = read_masks(masks, dataset_dir, classifier.class_names, words, finding)
    if not truths:
        raise InputError(f"{masks or boxes} has no box of a class.")
    checked = datalist or classifier.root / "output" / "datalist.json"
    leaks = _guard([truth.image for truth in truths], dataset_dir, checked, patient, allow_leak)
    layer = find_layer(classifier.network, target_layer)
    cases, rows = _run(classifier, truths, dataset_dir, layer, (threshold, component), pictures)
    report = {
        "config": str(classifier.config),
        "weights": str(classifier.weights),
        "target_layer": layer,
        "boxes": str(masks or boxes),
        "threshold": threshold,
        "component": component,
        **leaks,
        **make_report(cases, threshold, component),
    }
    write_report(report, rows, output_dir)
    return report


def _check_options(
    threshold: float, component: str, allow_leak: bool, pictures: int, boxes: object, masks: object
) -> None:
    if not isinstance(threshold, int | float) or not 0 < threshold <= 1:
        raise InputError(f"threshold must be over 0 and at most 1, got {threshold!r}.")
    if component not in COMPONENTS:
        raise InputError(f"component must be {' or '.join(COMPONENTS)}, got {component!r}.")
    if not isinstance(allow_leak, bool):
        raise InputError(f"allow_leak must be True or False, got {allow_leak!r}.")
    if type(pictures) is not int or pictures < 0:
        raise InputError(f"pictures must be a whole number from 0, got {pictures!r}.")
    if (boxes is None) == (masks is None):
        raise InputError(f"give either boxes or masks, got boxes {boxes} and masks {masks}.")


def _guard(images: Sequence[Image], directory: str | Path, datalist: str | Path, patient: str, allow: bool) -> dict:
    """What the report says about the training; refuses what was trained on unless that is allowed."""
    unique = list({first_file(image): image for image in images}.values())
    try:
        leaks, rule = find_leaks(unique, directory, datalist, patient)
    except InputError as error:
        if not allow:
            raise InputError(f"{str(error).rstrip('.')}; --allow_leak True reports without that check.") from error
        return {"datalist": str(datalist), "patient_rule": patient, "leak": None, "leak_unchecked": str(error)}
    if leaks and not allow:
        first = ", ".join(f"{leak['image']} ({leak['list']}, same {leak['by']})" for leak in leaks[:3])
        raise InputError(
            f"{len(leaks)} of {len(unique)} boxed images are of patients that {datalist} trains or validates on: "
            f"{first}{', ...' if len(leaks) > 3 else ''}; leave them out, or --allow_leak True reports them."
        )
    return {"datalist": str(datalist), "patient_rule": rule, "leak": leaks}


def _run(
    classifier: Classifier,
    truths: Sequence[Truth],
    directory: str | Path,
    layer: str,
    rule: tuple[float, str],
    pictures: int,
) -> tuple[list[Case], list[Picture.Image]]:
    """Every case judged, and the first ones drawn."""
    cam = make_cam(classifier.network, layer)
    groups: dict[str, list[Truth]] = {}
    for truth in truths:
        groups.setdefault(first_file(truth.image), []).append(truth)
    cases, rows = list[Case](), list[Picture.Image]()
    for name, group in tqdm(groups.items(), "localizing", disable=None):
        sample = classifier.preprocessing({"image": _paths(group[0].image, directory)})
        if not cases:
            check_cam(cam, sample, len(classifier.class_names))
        for truth in group:
            heat = heat_map(cam, classifier.preprocessing, sample, classifier.class_names.index(truth.finding))[
                0
            ].numpy()
            if heat.shape != truth.shape:
                raise InputError(
                    f"{name}: the preprocessing leads back to {heat.shape}, not to the file's {truth.shape}."
                )
            cases.append(judge(name, truth.finding, heat, truth.boxes, sorted({*THRESHOLDS, rule[0]})))
            if len(rows) < pictures:
                rows.append(_draw(truth, heat, directory, *rule))
    return cases, rows


def _paths(image: Image, directory: str | Path) -> str | list[str]:
    return str(Path(directory, image)) if isinstance(image, str) else [str(Path(directory, file)) for file in image]


def _draw(truth: Truth, heat: ndarray, directory: str | Path, threshold: float, component: str) -> Picture.Image:
    image = LoadImage(reader=ScanReader(), ensure_channel_first=True)(_paths(truth.image, directory))
    predicted = predict_boxes(heat, threshold, component)
    overlaps = ", ".join(f"{value:.2f}" for value in best_overlaps(truth.boxes, predicted))
    caption = f"{first_file(truth.image)}   {truth.finding}   IoU {overlaps}   green: true, red: predicted"
    return draw_boxes(image[0].numpy(), heat, truth.boxes, predicted, image.affine.numpy(), caption)
