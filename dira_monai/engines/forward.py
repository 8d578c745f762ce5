"""What trainer and evaluator share: the restoration of a batch, and what the objective makes of it."""

import torch
from torch import Tensor, nn

from ..networks.encoder_decoder import decoder_maps, encode, output_layer, without_skips
from ..objectives.objective import Objective, ObjectiveInputs


def decoded(network: nn.Module, objective: Objective, features: list[Tensor]) -> list[Tensor]:
    """The decoder's maps, coarse to fine, with or without skip connections, as the objective has it."""
    return decoder_maps(network, features if objective.skip_connections else without_skips(features))


def restored(network: nn.Module, maps: list[Tensor]) -> Tensor:
    """Restored images in [0, 1], float32: the sigmoid of the network's output, as in the published code."""
    return output_layer(network)(maps[-1]).float().sigmoid()


def completed(images: Tensor, views: dict[str, Tensor]) -> Tensor:
    """Images where a mask hides the target, and the target's own voxels elsewhere; without a mask the images."""
    return torch.where(views["mask"], images, views["target"]) if "mask" in views else images


def encode_query(
    network: nn.Module, views: dict[str, Tensor], learns: bool
) -> tuple[list[Tensor], list[Tensor] | None]:
    """The encoder's maps of the query, and of the whole one where blocks are hidden and the objective ``learns``.

    Both are one batch for the network: its batch norm then counts the images by which it normalizes. One after the
    other, its running statistics would be of neither, and nothing that is evaluated would be what was trained.
    """
    if "whole" not in views or not learns:
        return encode(network, views["query"]), None
    parts = [maps.chunk(2) for maps in encode(network, torch.cat([views["query"], views["whole"]]))]
    return [hidden for hidden, _ in parts], [whole for _, whole in parts]


def objective_outputs(
    objective: Objective, inputs: ObjectiveInputs, whole: list[Tensor] | None = None
) -> dict[str, Tensor]:
    """What the objective makes of a batch.

    A query of which blocks are hidden is shown to it whole: from what is left, images were hardly discriminated at
    all, and an encoder that has only seen holes is worse on whole images.

    Args:
        objective: of the run.
        inputs: of the query.
        whole: the encoder's maps of the whole query, if they are known.
    """
    if "whole" in inputs.views:
        views = {name: view for name, view in inputs.views.items() if name != "mask"}
        views["query"] = views["whole"]
        inputs = ObjectiveInputs(inputs.network, views, whole or encode(inputs.network, views["query"]))
    return objective(inputs)


def prefixed(objective: Objective, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """What an objective returned, under the names that outputs of trainer and evaluator have."""
    metrics = {f"contrastive_{name}": outputs[name] for name in objective.metrics if name in outputs}
    embeddings = {name: outputs[name] for name in ("query", "key") if name in outputs}
    return {"contrastive": outputs["loss"]} | embeddings | metrics
