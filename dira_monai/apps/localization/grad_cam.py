"""From the heat map of a class to boxes, and how well they meet the boxes that a person drew.

Boxes are rows of MONAI's standard mode in voxels of the file's own array: all lower ends, then all upper ends, which
are exclusive, as in ``x0, y0, z0, x1, y1, z1``. Connected means touching by a face, an edge or a corner.
"""

from collections.abc import Mapping
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd
from monai.transforms.utils import rescale_array
from monai.visualize import GradCAM
from torch import Tensor, nn

from ...networks.encoder_parts import deepest_layer
from ...utils.errors import InputError


def find_layer(network: nn.Module, name: str | None = None) -> str:
    """The name of the layer whose features make the map.

    Args:
        network: a classifier.
        name: of a layer of it; None: that of ``deepest_layer``.

    Raises:
        InputError: if the network has no such layer, or none is known for it.
    """
    names = [known for known, _ in network.named_modules() if known]
    if name is not None:
        if str(name) not in names:
            raise InputError(
                f"target_layer {name} is no layer of {type(network).__name__}, which has {_list(network)}."
            )
        return str(name)
    layer = deepest_layer(network)
    if layer is None:
        raise InputError(
            f"no layer for the heat map is known for {type(network).__name__}; give --target_layer, one of "
            f"{_list(network)} or of their parts."
        )
    return layer


def _list(network: nn.Module) -> str:
    return ", ".join(name for name, _ in network.named_children())


def make_cam(network: nn.Module, target_layer: str) -> GradCAM:
    """MONAI's Grad-CAM of a layer, whose maps are scaled to [0, 1]; a constant map becomes 0 everywhere."""
    network.eval().requires_grad_(True)  # a frozen layer would have no gradient
    return GradCAM(network, target_layer, postprocessing=rescale_array)


def check_cam(cam: GradCAM, sample: Mapping[str, Any], class_count: int) -> None:
    """Nothing, where the network gives one logit a class and its target layer a map.

    Args:
        cam: of ``make_cam``.
        sample: preprocessed; ``image`` is what the network takes, shape (C, *spatial).
        class_count: number of classes.

    Raises:
        InputError: if not.
    """
    batch = _batch(cam, sample)
    logits, features, _ = cam.nn_module(batch, class_idx=0)
    layer = cam.nn_module.target_layers[0]
    if tuple(logits.shape) != (1, class_count):
        raise InputError(f"the network gives outputs of shape {tuple(logits.shape)[1:]} for {class_count} class_names.")
    if features[0].ndim != batch.ndim:
        raise InputError(
            f"target_layer {layer} gives features of shape {tuple(features[0].shape)[1:]}, which are no map."
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
        sample: what it made of the file.
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
