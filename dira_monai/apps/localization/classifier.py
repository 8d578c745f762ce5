"""A trained classifier, and the maps of where it looks."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd
from monai.transforms.utils import rescale_array
from monai.visualize import GradCAM
from torch import Tensor, nn

from ...bundle.config import read_config
from ...bundle.values import CLASS_VALUES, IMAGE_VALUES
from ...networks.encoder_parts import deepest_layer
from ...utils.errors import InputError
from ...weights.files import load_module, load_weights


class Classifier(NamedTuple):
    """A trained classifier, as the configuration of its bundle describes it."""

    network: nn.Module  # with its weights, on its device
    preprocessing: Compose  # from a file to the network's input, of the dictionary key image
    class_names: list[str]
    config: str  # inference.json
    weights: Path
    settings: dict[str, Any]  # those of ``CLASS_VALUES`` and ``IMAGE_VALUES`` that the configuration has

    def describe(self) -> dict[str, Any]:
        """What the report says about it."""
        return {"config": self.config, "weights": str(self.weights), "settings": self.settings}


def read_classifier(
    bundle: str | Path,
    overrides: Mapping[str, Any] | None = None,
    weights: str | Path | None = None,
    device: str | None = None,
) -> Classifier:
    """The classifier of a bundle, of its folder or its inference.json; ``overrides`` and ``device``: ``read_config``.

    The configuration has ``class_names``, ``network_def``, ``preprocessing``, ``device`` and ``ckpt_dir``, whose
    ``model.pt`` is read unless a plain state dict is given as ``weights``.

    Raises:
        InputError: if there is no such file, an id is missing, something cannot be built, or the weights do not fit.
    """
    config = read_config(bundle, overrides, ("inference.json",), "localization", device)
    network = config.build_network()
    path = Path(weights) if weights else Path(config.build("ckpt_dir"), "model.pt")
    state = load_weights(path)
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path} holds a {type(state).__name__} that is no plain state dict, as model.pt of a run is.")
    load_module(network, state, path, type(network).__name__)
    names = [str(name) for name in config.build("class_names")]
    own = (name for name in (*CLASS_VALUES, *IMAGE_VALUES) if name in config.parser)
    found = {name: config.build(name) for name in own} | {"class_names": names}
    settings = json.loads(json.dumps(found, default=str))  # as a datalist holds them: tuples are lists
    return Classifier(network, config.build("preprocessing"), names, config.name, path, settings)


def find_layer(network: nn.Module, name: str | None = None) -> str:
    """The name of the layer whose features make the map: the given one, or that of ``deepest_layer``.

    Raises:
        InputError: if the network has no such layer, or none is known for it.
    """
    children = ", ".join(child for child, _ in network.named_children())
    layer = deepest_layer(network) if name is None else str(name)
    if layer is None:
        raise InputError(
            f"no layer for the heat map is known for {type(network).__name__}; give --target_layer, one of "
            f"{children} or of their parts."
        )
    if not layer or layer not in dict(network.named_modules()):
        raise InputError(f"target_layer {layer} is no layer of {type(network).__name__}, which has {children}.")
    return layer


def make_cam(network: nn.Module, target_layer: str) -> GradCAM:
    """MONAI's Grad-CAM of a layer, whose maps are scaled to [0, 1]; a constant map becomes 0 everywhere."""
    network.eval().requires_grad_(True)  # a frozen layer would have no gradient
    return GradCAM(network, target_layer, postprocessing=rescale_array)


def check_cam(cam: GradCAM, sample: Mapping[str, Any], class_count: int) -> None:
    """Nothing, where the network gives one logit a class and its target layer a map; sample: see ``heat_map``.

    Raises:
        InputError: if not; also of a layer that is changed in place behind it, or that runs more than once: its
            features would be those of the last time and its gradient that of the first.
    """
    batch, layer = _batch(cam, sample), cam.nn_module.target_layers[0]
    runs: list[int] = []
    count = cam.nn_module.get_layer(layer).register_forward_hook(lambda *_: runs.append(1))
    try:
        logits, features, _ = cam.nn_module(batch, class_idx=0)
    except RuntimeError as error:
        if "inplace" not in str(error):
            raise
        raise InputError(
            f"target_layer {layer} is changed in place by what follows; name the part around it."
        ) from error
    finally:
        count.remove()
    if len(runs) > 1:
        raise InputError(f"target_layer {layer} runs {len(runs)} times in one pass; name one that runs once.")
    if tuple(logits.shape) != (1, class_count):
        raise InputError(f"the network gives outputs of shape {tuple(logits.shape)[1:]} for {class_count} class_names.")
    shape = features[0].shape
    if len(shape) != batch.ndim or shape[2:].numel() == 1:
        raise InputError(
            f"target_layer {layer} gives features of shape {tuple(shape)[1:]}, which are no map; name one before the "
            "pooling."
        )


def _batch(cam: GradCAM, sample: Mapping[str, Any]) -> Tensor:
    return sample["image"].as_tensor()[None].to(next(cam.nn_module.get_wrapped_net().parameters()).device)


def heat_map(cam: GradCAM, preprocessing: Compose, sample: Mapping[str, Any], class_index: int) -> MetaTensor:
    """Grad-CAM of a class (Selvaraju et al., 2017, https://arxiv.org/abs/1610.02391) as it lies in the file.

    It is that of the logit, before sigmoid or softmax. The map is interpolated to the network's input, scaled to [0, 1]
    there, and brought to the voxels of the file by the inverse of the preprocessing; what that cropped is 0. Shape
    (1, *spatial), on the CPU.

    Args:
        cam: of ``make_cam``.
        preprocessing: of the dictionary key ``image``, which it must have processed last.
        sample: what it made of the file; ``image`` is what the network takes, shape (C, *spatial).
        class_index: of the class.

    Raises:
        InputError: if the map has NaN or infinite values.
    """
    image = sample["image"]
    found = cam(_batch(cam, sample), class_idx=class_index)[0].detach().cpu()
    if not torch.isfinite(found).all():
        raise InputError(f"{image.meta.get('filename_or_obj')}: the heat map holds NaN or infinite values.")
    invert = Invertd("map", preprocessing, orig_keys="image", nearest_interp=False)
    return invert({"image": image, "map": MetaTensor(found)})["map"].clamp(0, 1)
