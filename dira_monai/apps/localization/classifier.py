"""A trained classifier, built from the configuration of its bundle."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from monai.transforms import Compose
from torch import Tensor, nn

from ...bundle.config import read_config, to_device
from ...bundle.values import CLASS_VALUES, IMAGE_VALUES, NETWORK_VALUES
from ...utils.errors import InputError
from ...weights.files import load_module, load_weights

SETTINGS = (*CLASS_VALUES, *IMAGE_VALUES)
SHARED = (*CLASS_VALUES, *NETWORK_VALUES)  # by a classifier and its datalist


class Classifier(NamedTuple):
    """A trained classifier, as the configuration of its bundle describes it."""

    network: nn.Module  # with its weights, on its device
    preprocessing: Compose  # from a file to the network's input, of the dictionary key image
    class_names: list[str]
    config: str  # inference.json
    weights: Path
    settings: dict[str, Any]  # those of ``SETTINGS`` that the configuration has


def read_classifier(
    bundle: str | Path,
    overrides: Mapping[str, Any] | None = None,
    weights: str | Path | None = None,
    device: str | None = None,
) -> Classifier:
    """The classifier of a bundle.

    Args:
        bundle: its folder, or its inference.json, which has ``class_names``, ``network_def``, ``preprocessing``,
            ``device`` and ``ckpt_dir``.
        overrides: values of the configuration to replace, by their ids.
        weights: plain state dict; None: ``model.pt`` in ``ckpt_dir``.
        device: such as cpu or cuda:0; None: that of the configuration.

    Raises:
        InputError: if there is no such file, an id is missing, something cannot be built, or the weights do not fit.
    """
    config = read_config(bundle, overrides, ("inference.json",), "localization", device)
    network = to_device(config.build("network_def"), config.build("device"))
    path = Path(weights) if weights else Path(config.build("ckpt_dir"), "model.pt")
    load_module(network, _plain(load_weights(path), path), path, type(network).__name__)
    names = [str(name) for name in config.build("class_names")]
    found = {name: config.build(name) for name in SETTINGS if name in config.parser} | {"class_names": names}
    settings = json.loads(json.dumps(found, default=str))  # as a datalist holds them: tuples are lists
    return Classifier(network, config.build("preprocessing"), names, config.name, path, settings)


def _plain(state: Any, path: Path) -> Mapping[str, Tensor]:
    if isinstance(state, Mapping) and all(isinstance(value, Tensor) for value in state.values()):
        return state
    raise InputError(f"{path} holds a {type(state).__name__} that is no plain state dict, as model.pt of a run is.")


def find_datalist(weights: str | Path) -> Path:
    """The datalist of the run that wrote the weights: ``output/datalist.json`` beside their folder ``models``.

    Raises:
        InputError: if they lie in no such folder, or the list, which a training writes first, is newer.
    """
    folder = Path(weights).resolve().parent
    if folder.name != "models":
        raise InputError(f"{weights} lies in no folder models of a run, so its list must be named by --datalist.")
    path = folder.parent / "output" / "datalist.json"
    if path.is_file() and is_newer(path, weights):
        raise InputError(f"the datalist {path} is newer than {weights}; name the list of their training by --datalist.")
    return path


def is_newer(datalist: str | Path, weights: str | Path) -> bool:
    """Whether the datalist was written after the weights, so that it may be that of another training."""
    return Path(datalist).stat().st_mtime > Path(weights).stat().st_mtime


def check_settings(settings: Mapping[str, Any], content: Mapping[str, Any], datalist: str | Path) -> None:
    """Nothing, where a classifier is built as its datalist says; what one of the two does not say is not compared.

    Args:
        settings: of the classifier.
        content: of the datalist.
        datalist: its file.

    Raises:
        InputError: if they differ in one of ``SHARED``; other ``class_names`` would call one class by another's name.
    """
    for name in SHARED:
        if name in settings and name in content and settings[name] != content[name]:
            raise InputError(
                f"{name} is {settings[name]} in the configuration of the classifier where {datalist} has "
                f"{content[name]}; replace it by --overrides."
            )
