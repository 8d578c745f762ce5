"""Weakly supervised localization: does a classifier, trained on labels of whole images, look where the lesions are?"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray
from tqdm import tqdm

from ...images.find import first_file, map_files, read_image
from ...utils.errors import InputError, check_integers, find_cause
from ...visualize.tiles import Row
from .boxes import GroundTruth, read_boxes, read_masks
from .classifier import Classifier, check_cam, find_layer, heat_map, make_cam, read_classifier
from .metrics import COMPONENTS, THRESHOLDS, Case, best_overlaps, evaluate_case, predict_boxes
from .picture import draw_boxes
from .report import make_report, write_report
from .training import check_training


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
    patient: str | None = None,
    label_map: Mapping[Any, str | None] | None = None,
    strict: bool = False,
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
        output_dir: folder for localization.json, localization.csv and localization.png.
        boxes: CSV file with the columns file, finding, x, y, w, h (or left, top, right, bottom).
        masks: folder of label maps named like the images, instead of boxes.
        finding: class that all labels of the masks stand for; by default the label's number is mapped by label_map.
        datalist: JSON file that the classifier was trained with; by default the one of the run of the weights.
        overrides: values of inference.json to replace, such as "{'image_size': [96, 96]}".
        weights: plain state dict; by default models/model.pt in the bundle.
        target_layer: whose features make the map; by default layer4, or the last one before the pooling.
        threshold: of the map, over 0 and at most 1.
        component: largest (one box, around the largest component) or each (one box a component).
        patient: dicom, folder, file, or a CSV file with the columns file and patient; by default that of the datalist.
        label_map: from words of the table to classes, or None to leave rows out: "{'Infiltrate': 'Infiltration'}".
        strict: stop at boxes or masks of images that are not there, instead of reporting them.
        allow_leak: report images whose patients were trained on instead of refusing them.
        device: such as cpu or cuda:0; by default that of inference.json.
        pictures: how many cases are drawn, at least 0.

    Raises:
        InputError: if an argument is out of range, a file cannot be used, nothing has a box, a boxed patient was
            trained on, or the datalist is of another classifier.
    """
    _check_options(threshold, component, label_map, strict=strict, allow_leak=allow_leak)
    check_integers(0, pictures=pictures)
    classifier = read_classifier(bundle, overrides, weights, device)
    truths, missing = _read_truths(boxes, masks, dataset_dir, classifier.class_names, label_map, finding, strict)
    images = list({first_file(truth.image): truth.image for truth in truths}.values())
    training = check_training(images, dataset_dir, datalist, classifier, str(patient or "auto"), allow_leak)
    layer = find_layer(classifier.network, target_layer)
    cases, rows = _run(classifier, truths, dataset_dir, layer, (threshold, component), pictures)
    report = {
        **classifier.describe(),
        "target_layer": layer,
        "boxes": str(masks or boxes),
        "missing": {"count": len(missing), "first": missing[0] if missing else None},
        **training,
        **make_report(cases, threshold, component),
    }
    write_report(report, rows, output_dir)
    return report


def _check_options(
    threshold: float, component: str, label_map: Mapping[Any, str | None] | None, **switches: object
) -> None:
    if not isinstance(label_map, Mapping | None):
        raise InputError(f"label_map must be an object such as {{'name': 'value'}}, got {label_map!r}.")
    if not isinstance(threshold, int | float) or not 0 < threshold <= 1:
        raise InputError(f"threshold must be over 0 and at most 1, got {threshold!r}.")
    if component not in COMPONENTS:
        raise InputError(f"component must be {' or '.join(COMPONENTS)}, got {component!r}.")
    for name, value in switches.items():
        if not isinstance(value, bool):
            raise InputError(f"{name} must be True or False, got {value!r}.")


def _read_truths(
    boxes: str | Path | None,
    masks: str | Path | None,
    directory: str | Path,
    class_names: Sequence[str],
    label_map: Mapping[Any, str | None] | None,
    finding: str | None,
    strict: bool,
) -> tuple[list[GroundTruth], list[str]]:
    """The boxes of a table or of masks, at least one, and what is wrong with the others."""
    words = {str(word): name for word, name in (label_map or {}).items()}
    if boxes is not None and masks is None:
        truths, missing = read_boxes(boxes, directory, class_names, words, strict)
    elif masks is not None and boxes is None:
        truths, missing = read_masks(masks, directory, class_names, words, finding, strict)
    else:
        raise InputError(f"give either boxes or masks, got boxes {boxes} and masks {masks}.")
    if not truths:
        raise InputError(f"{masks or boxes} has no box of a class{f'; {missing[0]}' if missing else '.'}")
    return truths, missing


def _run(
    classifier: Classifier,
    truths: Sequence[GroundTruth],
    directory: str | Path,
    layer: str,
    rule: tuple[float, str],
    pictures: int,
) -> tuple[list[Case], list[Row]]:
    """Every case evaluated, and the first ones drawn; ``rule``: threshold and component."""
    cam = make_cam(classifier.network, layer)
    groups: dict[str, list[GroundTruth]] = {}
    for truth in truths:
        groups.setdefault(first_file(truth.image), []).append(truth)
    cases, rows = list[Case](), list[Row]()
    for name, group in tqdm(groups.items(), "localizing", disable=None):
        with _naming(name):
            files = map_files(group[0].image, lambda file: str(Path(directory, file)))
            sample = classifier.preprocessing({"image": files})
            if not cases:
                check_cam(cam, sample, len(classifier.class_names))
        for truth in group:
            with _naming(name):
                index = classifier.class_names.index(truth.finding)
                heat = heat_map(cam, classifier.preprocessing, sample, index)[0].numpy()
            if heat.shape != truth.shape:
                raise InputError(
                    f"{name}: the preprocessing leads back to {heat.shape}, not to the file's {truth.shape}."
                )
            cases.append(evaluate_case(name, truth.finding, heat, truth.boxes, sorted({*THRESHOLDS, rule[0]})))
            if len(rows) < pictures:
                rows.append(_draw(truth, heat, directory, *rule))
    return cases, rows


@contextmanager
def _naming(image: str) -> Iterator[None]:
    """Tell the image that preprocessing or network cannot take; they raise whatever they like."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{image} cannot be taken by the classifier: {find_cause(error)}.") from error


def _draw(truth: GroundTruth, heat: ndarray, directory: str | Path, threshold: float, component: str) -> Row:
    array, meta = read_image(truth.image, directory)
    first = array.reshape(*truth.shape, -1)[..., 0]  # channel
    predicted = predict_boxes(heat, threshold, component)
    overlaps = ", ".join(f"{value:.2f}" for value in best_overlaps(truth.boxes, predicted))
    caption = f"{first_file(truth.image)}   {truth.finding}   IoU {overlaps}   green: true, red: predicted"
    return draw_boxes(first, heat, truth.boxes, predicted, meta.get("affine", np.eye(4)), caption)
