"""GraVIS: many views of each image, ranked before the views of all other images."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..losses.smooth_ap import check_smooth_ap, ranking_accuracy, smooth_ap
from ..metrics import embedding_std
from ..networks.encoder_decoder import feature_channels
from ..networks.heads import ProjectionHead
from ..utils.distributed import gather_with_gradient
from .objective import Objective, ObjectiveInputs

COLLAPSED = 0.05  # deviation below which embeddings have collapsed to one direction; independent directions have 1


class GraVIS(Objective):
    """Grouping of augmented views (Zhou et al., 2022, https://arxiv.org/abs/2301.04410): ``losses.smooth_ap``.

    Every view is encoded by the network itself, with gradient: the query views in one batch, all further ones in a
    second. Over several processes all of them rank the views of the whole batch. ``temperature``, ``attention`` and
    ``chunk_size`` as in ``smooth_ap``.

    Attributes:
        normalized: whether embeddings are ranked by their cosines; the published code takes plain dot products.
    """

    metrics = ("accuracy", "deviation")

    def __init__(
        self,
        network: nn.Module,
        embedding_size: int = 128,
        hidden_size: int | None = None,
        *,
        temperature: float = 0.2,
        attention: str = "smooth_ap",
        normalized: bool = False,
        chunk_size: int | None = None,
        pooled_norm: bool = False,
    ) -> None:
        super().__init__()
        check_smooth_ap(temperature, attention, chunk_size)
        channels = feature_channels(network)
        self.temperature = temperature
        self.attention = attention
        self.normalized = normalized
        self.chunk_size = chunk_size
        self.projector = ProjectionHead(channels, hidden_size or channels, embedding_size, pooled_norm)

    def forward(self, inputs: ObjectiveInputs) -> dict[str, Tensor]:
        """Ranking loss of all views of a batch: ``query``, ``key`` and, if any, ``more``.

        Returns:
            Of the batch of all processes, ``accuracy`` is the share of views whose V - 1 nearest are of the own image,
            and ``deviation`` that of all embeddings (``embedding_std``).
        """
        more = inputs.views["more"].unbind(1) if "more" in inputs.views else ()
        others = torch.cat([self.second_view(inputs), *more])  # view by view
        embeddings = self.projector.raw(torch.cat([inputs.deepest, inputs.encode(others)]))
        embeddings = embeddings.unflatten(0, (-1, len(inputs.deepest))).transpose(0, 1)  # (B, V, D), float32
        unit = F.normalize(embeddings, dim=2)
        count = embeddings.shape[1]
        everyone = gather_with_gradient(unit if self.normalized else embeddings).flatten(0, 1)
        loss = smooth_ap(everyone, count, self.temperature, self.attention, self.chunk_size)
        accuracy = ranking_accuracy(everyone.detach(), count)
        metrics = {"accuracy": accuracy, "deviation": embedding_std(embeddings.flatten(0, 1))}
        return metrics | {"loss": loss, "query": unit[:, 0], "key": unit[:, 1]}

    def diagnose(self, metrics: Mapping[str, float]) -> str | None:
        """Whether the embeddings of all views have collapsed to one direction."""
        if metrics["deviation"] < COLLAPSED:
            return (
                f"the embeddings of all views have collapsed to one direction (deviation {metrics['deviation']:.3f}, "
                "healthy is near 1), so no ranking is learned; try pooled_norm True or a lower learning_rate"
            )
        return None
