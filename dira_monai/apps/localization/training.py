"""What a classifier was trained on, which must be neither the boxed images nor the list of another classifier."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...bundle.values import CLASS_VALUES, NETWORK_VALUES
from ...data.trained_on import find_run_list
from ...datalists.checks import check_datalist
from ...datalists.io import read_datalist
from ...datalists.leakage import find_leaks
from ...images.find import Image
from ...utils.errors import InputError
from .classifier import Classifier


def check_training(
    images: Sequence[Image],
    directory: str | Path,
    datalist: str | Path | None,
    classifier: Classifier,
    patient: str,
    allow: bool,
) -> dict[str, Any]:
    """What the report says about the training.

    Args:
        images: the boxed ones, relative to ``directory``.
        directory: their folder.
        datalist: of the training; None: see ``find_run_list``.
        classifier: whose configuration must name classes and network as the list does; what one of the two does not
            say is not compared.
        patient: see ``find_leaks``.
        allow: report leaks, or that they cannot be checked, instead of raising.

    Raises:
        InputError: if the list is missing, newer than the weights where it is not named, or of another classifier, or
            if an image's patient was trained on.
    """
    found: dict[str, Any] = {"datalist": datalist and str(datalist), "datalist_newer": None, "patient_rule": patient}
    content: dict[str, Any] = {}
    try:
        path = datalist or _find_datalist(classifier.weights)
        found["datalist"] = str(path)
        content = read_datalist(path)
        check_datalist(content, path)
        found["datalist_newer"] = _is_newer(path, classifier.weights)
        found["leak"], found["patient_rule"] = find_leaks(images, directory, path, patient)
    except InputError as error:
        if not allow:
            raise InputError(f"{str(error).rstrip('.')}; --allow_leak True reports without that check.") from error
        found |= {"leak": None, "leak_unchecked": str(error)}
    for name in (*CLASS_VALUES, *NETWORK_VALUES):  # other class_names would call one class by another's name
        own = classifier.settings.get(name)
        if name in classifier.settings and name in content and own != content[name]:
            raise InputError(
                f"{name} is {own} in the configuration of the classifier where {path} has {content[name]}; replace it "
                "by --overrides."
            )
    if (leaks := found["leak"]) and not allow:
        first = ", ".join(f"{leak['image']} ({leak['list']}, same {leak['by']})" for leak in leaks[:3])
        raise InputError(
            f"{len(leaks)} of {len(images)} boxed images are of patients that {path} trains or validates on: "
            f"{first}{', ...' if len(leaks) > 3 else ''}; leave them out, or --allow_leak True reports them."
        )
    return found


def _find_datalist(weights: Path) -> Path:
    path = find_run_list(weights.resolve())
    if path is None:
        raise InputError(f"{weights} lies in no folder of a run with its list, which must be named by --datalist.")
    if _is_newer(path, weights):
        raise InputError(f"the datalist {path} is newer than {weights}; name the list of their training by --datalist.")
    return path


def _is_newer(datalist: str | Path, weights: Path) -> bool:
    """Whether the datalist, which a training writes first, may be that of another one."""
    return Path(datalist).stat().st_mtime > weights.stat().st_mtime
