"""One training step of DiRA: MONAI's supervised trainer, extended for three losses and two optimizers."""

import torch
from torch import Tensor, nn

from ..networks.encoder_decoder import decoder_maps, encode, output_layer, without_skips
from ..objectives.objective import Objective


def decoded(network: nn.Module, objective: Objective, features: list[Tensor]) -> list[Tensor]:
    """The decoder's maps, coarse to fine, with or without skip connections, as the objective has it."""
    return decoder_maps(network, features if objective.skip_connections else without_skips(features))


def restored(network: nn.Module, maps: list[Tensor]) -> Tensor:
    """Restored images in [0, 1], float32: the sigmoid of the network's output, as in the published code."""
    return output_layer(network)(maps[-1]).float().sigmoid()


def completed(images: Tensor, views: dict[str, Tensor]) -> Tensor:
    """Images where a mask hides the target, and the target's own voxels elsewhere; without a mask the images."""
    return torch.where(views["mask"], images, views["target"]) if "mask" in views else images


def objective_outputs(
    network: nn.Module,
    objective: Objective,
    views: dict[str, Tensor],
    features: list[Tensor],
    maps: list[Tensor] | None,
) -> dict[str, Tensor]:
    """What the objective finds of views whose query has these features and maps.

    A query of which blocks are hidden is shown to it whole, encoded once more: told apart by what is left, images were
    hardly told apart at all, and an encoder that has only seen holes knows less of whole images.
    """
    if "whole" in views:
        views = {name: view for name, view in views.items() if name != "mask"} | {"query": views["whole"]}
        features, maps = encode(network, views["query"]), None
    return objective(network, views, features, maps)


def prefixed(objective: Objective, told: dict[str, Tensor]) -> dict[str, Tensor]:
    """What an objective returned, under the names that outputs of trainer and evaluator have."""
    metrics = {f"contrastive_{name}": told[name] for name in objective.metrics if name in told}
    embeddings = {name: told[name] for name in ("query", "key") if name in told}
    return {"contrastive": told["loss"]} | embeddings | metrics
