"""Objectives that need no negatives: Barlow Twins and SimSiam pull two views of an image together."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..losses.barlow_twins import cross_correlation, redundancy_reduction
from ..losses.contrastive import negative_cosine
from ..metrics import embedding_std
from ..networks.encoder_decoder import feature_channels
from ..networks.heads import mlp, pooled_mlp
from ..utils.distributed import gather_with_gradient
from ..utils.errors import InputError
from .objective import Objective, ObjectiveInputs

COLLAPSED = 0.1  # of the deviation, which is 1 where embeddings are spread evenly and 0 where they are equal
COPIED = 0.55  # of the mean off-diagonal |C|: 2 / pi in two dimensions, 1 / 2 of independent components of 4 images
UNRELATED = 0.02  # of the mean diagonal of C


class Siamese(Objective):
    """What SimSiam and BYOL share: a projector, a predictor, and the sign of their collapse.

    Attributes:
        projector: embeddings (B, D) of the deepest map.
        predictor: from an embedding to what the other view's may be, (B, D).
    """

    metrics = ("deviation",)
    projector: nn.Module
    predictor: nn.Module

    def both(self, inputs: ObjectiveInputs) -> tuple[Tensor, Tensor]:
        """Embeddings of query and key view by the network itself, (B, D) each."""
        return self.projector(inputs.deepest), self.projector(inputs.encode(self.second_view(inputs)))

    def outputs(self, loss: Tensor, embedding: Tensor, prediction: Tensor, key: Tensor) -> dict[str, Tensor]:
        """What ``forward`` returns, of the first view's embedding and prediction and the second's key, (B, D) each."""
        query, key = (F.normalize(part.float(), dim=1) for part in (prediction, key))
        return {"loss": loss, "deviation": embedding_std(embedding), "query": query, "key": key}

    def diagnose(self, metrics: Mapping[str, float]) -> str | None:
        """Whether all images have nearly the same embedding."""
        if metrics["deviation"] < COLLAPSED:
            return (
                f"{type(self).__name__} gives every image nearly the same embedding (deviation "
                f"{metrics['deviation']:.3f} of 1): it has collapsed; try a lower learning_rate or a larger batch_size"
            )
        return None


class BarlowTwins(Objective):
    """Barlow Twins (Zbontar et al., 2021, https://arxiv.org/abs/2103.03230): components that agree and do not repeat.

    C is that of the batch of all processes; with accumulated gradients, of one of the batches that are accumulated.

    Attributes:
        embedding_size: D; None: ``hidden_size``.
        hidden_size: width of the projector; None: four times the encoder's deepest number of channels.
        redundancy_weight: lambda, of the off-diagonal elements, at least 0.
        scale: positive factor of the loss, which is a sum over the D components and so grows with D.
    """

    metrics = ("diagonal", "off_diagonal")

    def __init__(
        self,
        network: nn.Module,
        embedding_size: int | None = None,
        hidden_size: int | None = None,
        *,
        redundancy_weight: float = 0.0051,
        scale: float = 1.0,
        pooled_norm: bool = False,
    ) -> None:
        super().__init__()
        if redundancy_weight < 0:
            raise InputError(f"redundancy_weight must not be negative, got {redundancy_weight}")
        if scale <= 0:
            raise InputError(f"scale must be positive, got {scale}")
        channels = feature_channels(network)
        hidden = hidden_size or 4 * channels
        size = embedding_size or hidden
        self.redundancy_weight = redundancy_weight
        self.scale = scale
        self.projector = pooled_mlp(channels, hidden, hidden, size, pooled_norm=pooled_norm, last_bias=False)
        self.norm = nn.BatchNorm1d(size, affine=False)  # of what validation compares; the loss standardizes by itself

    def forward(self, inputs: ObjectiveInputs) -> dict[str, Tensor]:
        """Loss of a batch, which standardizes by the batch in validation too.

        Returns:
            ``diagonal`` is the mean of C_ii, ``off_diagonal`` that of the other |C_ij|; ``query`` and ``key`` are the
            standardized embeddings, without gradient.
        """
        deepest = inputs.deepest, inputs.encode(self.second_view(inputs))
        z1, z2 = (self.projector(features).float() for features in deepest)  # also their gradient is summed in float32
        correlation = cross_correlation(gather_with_gradient(z1), gather_with_gradient(z2))
        loss = self.scale * redundancy_reduction(correlation, self.redundancy_weight)
        with torch.no_grad():
            size, diagonal = len(correlation), correlation.diagonal()
            others = (correlation.abs().sum() - diagonal.abs().sum()) / max(1, size * (size - 1))
            query, key = (F.normalize(self.norm(z), dim=1) for z in (z1, z2))
        return {"loss": loss, "diagonal": diagonal.mean(), "off_diagonal": others, "query": query, "key": key}

    def diagnose(self, metrics: Mapping[str, float]) -> str | None:
        """Whether the components repeat each other or say nothing of the image."""
        if metrics["off_diagonal"] > COPIED:
            return (
                f"the components of Barlow Twins' embeddings repeat each other (mean off-diagonal |C| "
                f"{metrics['off_diagonal']:.2f}); try a larger batch_size, of 4 images at least, or a lower "
                "learning_rate"
            )
        if metrics["diagonal"] < UNRELATED:
            return (
                "the components of Barlow Twins' embeddings do not agree between the views of an image (mean diagonal "
                f"of C {metrics['diagonal']:.2f}); try a lower learning_rate or weaker photometric changes"
            )
        return None


class SimSiam(Siamese):
    """SimSiam (Chen and He, 2021, https://arxiv.org/abs/2011.10566): a predictor and a stopped gradient.

    Attributes:
        embedding_size: D; None: the encoder's deepest number of channels, in the paper 2,048.
        predictor_size: width of the predictor; None: a quarter of D, as in the paper.
    """

    def __init__(
        self,
        network: nn.Module,
        embedding_size: int | None = None,
        hidden_size: int | None = None,
        predictor_size: int | None = None,
        *,
        pooled_norm: bool = False,
    ) -> None:
        super().__init__()
        channels = feature_channels(network)
        hidden, size = hidden_size or channels, embedding_size or channels
        self.projector = pooled_mlp(channels, hidden, hidden, size, pooled_norm=pooled_norm, last_norm=True)
        self.predictor = mlp(size, predictor_size or max(1, size // 4), size)

    def forward(self, inputs: ObjectiveInputs) -> dict[str, Tensor]:
        """Loss of a batch: half of the two negative cosines, in [-1, 1] (eq. 2).

        Returns:
            ``deviation`` is that of the embeddings (``embedding_std``), ``query`` the prediction of the first view,
            ``key`` the embedding of the second.
        """
        z1, z2 = self.both(inputs)
        p1, p2 = self.predictor(z1), self.predictor(z2)
        loss = (negative_cosine(p1, z2) + negative_cosine(p2, z1)) / 2
        return self.outputs(loss, z1, p1, z2.detach())
