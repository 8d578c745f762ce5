"""VoCo: the overlap of a crop with the crops of a grid is predicted from their similarity."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..networks.encoder_decoder import feature_channels
from ..networks.heads import pooled_mlp
from ..utils.errors import InputError
from .objective import Objective, ObjectiveInputs

CLOSEST = 1e-6  # least distance of |y - s| from 1, where the logarithm would be infinite
ALIKE = 0.9  # mean |cosine| of bases; drawn at random in 128 dimensions they have 0.07
UNRELATED = 0.02  # mean likeness to the bases that a crop overlaps, each by its share


class VoCo(Objective):
    """Volume contrast (Wu et al., CVPR 2024, https://arxiv.org/abs/2402.17300): the overlap of a crop with its bases.

    With s_i the cosine, not below 0, of query and base i, y_i their overlap and s_ij the cosine of two bases of an
    image: L_pred = -mean log(1 - |y_i - s_i|), L_reg = mean |s_ij|. Equal embeddings of everything have the largest
    loss but no gradient that leads away; a last batch norm, which centers each batch, makes them impossible.

    Attributes:
        regularization_weight: of L_reg, at least 0.
    """

    metrics = ("accuracy", "prediction", "overlap_similarity", "base_similarity")

    def __init__(
        self,
        network: nn.Module,
        embedding_size: int = 128,
        hidden_size: int | None = None,
        *,
        regularization_weight: float = 1.0,
        pooled_norm: bool = False,
    ) -> None:
        super().__init__()
        if regularization_weight < 0:
            raise InputError(f"regularization_weight must be at least 0, got {regularization_weight}")
        channels = feature_channels(network)
        self.regularization_weight = regularization_weight
        widths = (channels, hidden_size or channels, embedding_size)
        self.projector = pooled_mlp(*widths, pooled_norm=pooled_norm, last_norm=True)

    def forward(self, inputs: ObjectiveInputs) -> dict[str, Tensor]:
        """Loss of a batch, of its views ``bases`` and ``overlap``, which ``GridViews`` gives.

        Returns:
            ``accuracy`` is the share of queries that are nearest to a base that they overlap most (chance is about
            1 / n), ``prediction`` L_pred, ``overlap_similarity`` the mean of s_i weighted by the overlap,
            ``base_similarity`` L_reg; ``key`` is of the base that the query overlaps most.
        """
        if "bases" not in inputs.views:
            raise InputError("VoCo compares a crop with those of a grid: the views must be dira_monai.GridViews")
        shape, overlap = inputs.views["bases"].shape[:2], inputs.views["overlap"]
        deepest = torch.cat([inputs.deepest, inputs.encode(inputs.views["bases"].flatten(0, 1))])
        query, bases = F.normalize(self.projector(deepest).float(), dim=1).tensor_split([shape[0]])
        bases = bases.unflatten(0, shape)
        cosine = (bases * query[:, None]).sum(dim=2)  # products of this form stay float32 under autocast
        prediction = overlap_loss(cosine.clamp(min=0), overlap)
        i, j = torch.triu_indices(shape[1], shape[1], offset=1, device=bases.device)
        between = (bases[:, i] * bases[:, j]).sum(dim=2).abs().mean()
        most, nearest = overlap.max(dim=1), cosine.argmax(dim=1, keepdim=True)
        metrics = {
            "accuracy": (overlap.gather(1, nearest)[:, 0] == most.values).float().mean(),
            "prediction": prediction,
            "overlap_similarity": (cosine.clamp(min=0) * overlap).sum(dim=1).mean(),
            "base_similarity": between,
        }
        key = bases[torch.arange(shape[0], device=bases.device), most.indices]
        return metrics | {"loss": prediction + self.regularization_weight * between, "query": query, "key": key}

    def diagnose(self, metrics: Mapping[str, float]) -> str | None:
        """Whether all bases lie on one line, or a crop looks like none of those that it overlaps."""
        if metrics["base_similarity"] > ALIKE:
            return (
                f"the embeddings of VoCo's base crops are all alike or opposite (mean |cosine| "
                f"{metrics['base_similarity']:.3f}), so places are not distinguished; try pooled_norm True or a lower "
                "learning_rate"
            )
        if metrics["overlap_similarity"] < UNRELATED:
            return (
                "VoCo's crops look like none of the base crops that they overlap (mean likeness "
                f"{metrics['overlap_similarity']:.3f}), so no overlap is predicted; try a lower learning_rate or "
                "regularization_weight, or weaker photometric changes"
            )
        return None


def overlap_loss(similarity: Tensor, overlap: Tensor) -> Tensor:
    """Mean of -log(1 - |y - s|), at most 13.8, of similarities s and overlaps y, in [0, 1], equal shapes; float32."""
    wrong = (overlap.float() - similarity.float()).abs()
    return -torch.log1p(-wrong.clamp(max=1 - CLOSEST)).mean()
