"""SimCLR: each view finds the other one of its image among all views of the batch."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..losses.contrastive import check_temperature, nt_xent, nt_xent_accuracy
from ..networks.encoder_decoder import feature_channels
from ..networks.heads import ProjectionHead
from ..utils.distributed import gather_with_gradient
from .objective import Objective, ObjectiveInputs

AT_CHANCE = 1.5  # times the chance, up to which an accuracy counts as none


class SimCLR(Objective):
    """SimCLR (Chen et al., 2020, https://arxiv.org/abs/2002.05709): both views by the network, negatives by the batch.

    The batch is that of all processes; with accumulated gradients it is one of the batches that are accumulated. The
    network encodes the views one after the other, each with batch statistics of its own.
    """

    metrics = ("accuracy", "chance")

    def __init__(
        self,
        network: nn.Module,
        embedding_size: int = 128,
        hidden_size: int | None = None,
        *,
        temperature: float = 0.1,
        pooled_norm: bool = False,
    ) -> None:
        super().__init__()
        check_temperature(temperature)
        channels = feature_channels(network)
        self.temperature = temperature
        self.projector = ProjectionHead(channels, hidden_size or channels, embedding_size, pooled_norm)

    def forward(self, inputs: ObjectiveInputs) -> dict[str, Tensor]:
        """Loss of the two views of a batch.

        Returns:
            ``accuracy`` is the share of the 2 B views that are nearest to their partner, ``chance`` that of a guess,
            1 / (2 B - 1).
        """
        query, key = self.projector(inputs.deepest), self.projector(inputs.encode(self.second_view(inputs)))
        z1, z2 = gather_with_gradient(query), gather_with_gradient(key)
        accuracy = nt_xent_accuracy(z1.detach(), z2.detach())
        chance = torch.full_like(accuracy, 1 / (2 * len(z1) - 1))
        loss = nt_xent(z1, z2, self.temperature)
        return {"loss": loss, "accuracy": accuracy, "chance": chance, "query": query, "key": key}

    def diagnose(self, metrics: Mapping[str, float]) -> str | None:
        """Whether the views find their partners no more often than by guessing."""
        if metrics["accuracy"] <= min(AT_CHANCE * metrics["chance"], 0.99):
            return (
                "SimCLR's views find their partner no more often than by guessing (accuracy "
                f"{metrics['accuracy']:.3f}, chance {metrics['chance']:.3f}); try pooled_norm True, a lower "
                "learning_rate or a larger batch_size"
            )
        return None
