"""A trained classifier, built from the configuration of its bundle."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from monai.bundle import ConfigParser
from monai.transforms import Compose
from torch import Tensor, nn

from ...bundle.config import build_value, replace_values, to_device
from ...datalists.leakage import FIXED
from ...utils.errors import InputError
from ...weights.files import load_module, load_weights

SETTINGS = (*FIXED, "image_size", "patch_size", "intensity_range", "spacing", "axcodes")


class Classifier(NamedTuple):
    """A trained classifier, as the configuration of its bundle describes it."""

    network: nn.Module  # with its weights, on its device
    preprocessing: Compose  # from a file to the network's input, of the dictionary key image
    class_names: list[str]
    config: Path  # inference.json
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
    config = Path(bundle) / "configs" / "inference.json" if Path(bundle).is_dir() else Path(bundle)
    if not config.is_file():
        raise InputError(f"{config} does not exist; name the folder of a bundle or its inference.json.")
    folder = config.resolve().parent
    root = folder.parent if folder.name == "configs" else folder
    parser = ConfigParser()
    try:
        parser.read_config(config)
    except ValueError as error:
        raise InputError(f"{config} cannot be read as JSON ({error}).") from error
    replaced = {"bundle_root": str(root)} | dict(overrides or {}) | ({} if device is None else {"device": device})
    replace_values(parser, replaced, config)
    network = to_device(build_value(parser, "network_def", config), build_value(parser, "device", config))
    path = Path(weights) if weights else Path(build_value(parser, "ckpt_dir", config), "model.pt")
    load_module(network, _plain(load_weights(path), path), path, type(network).__name__)
    names = [str(name) for name in build_value(parser, "class_names", config)]
    found = {name: build_value(parser, name, config) for name in SETTINGS if name in parser} | {"class_names": names}
    settings = json.loads(json.dumps(found, default=str))  # as a datalist holds them: tuples are lists
    return Classifier(network, build_value(parser, "preprocessing", config), names, config, path, settings)


def _plain(state: Any, path: Path) -> Mapping[str, Tensor]:
    if isinstance(state, Mapping) and all(isinstance(value, Tensor) for value in state.values()):
        return state
    raise InputError(f"{path} holds a {type(state).__name__} that is no plain state dict, as model.pt of a run is.")
