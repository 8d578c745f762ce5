"""A trained classifier, built from the configuration of its bundle."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from monai.transforms import Compose
from torch import Tensor, nn

from ...bundle.config import read_config, to_device
from ...datalists.leakage import FIXED
from ...utils.errors import InputError
from ...weights.files import load_module, load_weights

SETTINGS = (*FIXED, "image_size", "patch_size", "intensity_range", "spacing", "axcodes")


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
