"""The objective of a run that has none: it restores alone."""

from collections.abc import Mapping

from torch import Tensor, nn

from .objective import Objective


class NoObjective(Objective):
    """Nothing to tell apart: no head, no state, no second view; for auto-encoders and masked or distorted restoration.

    The trainer refuses it with a positive ``contrastive_weight`` and never asks it otherwise.

    Attributes:
        skip_connections: whether the decoder sees the finer maps of the encoder. Without, all that the restoration
            needs must pass the deepest map; through them an image that is not distorted is merely copied.
    """

    metrics = ()

    def __init__(self, skip_connections: bool = True) -> None:
        super().__init__()
        self.skip_connections = skip_connections

    def forward(
        self,
        network: nn.Module,
        views: Mapping[str, Tensor],
        features: list[Tensor],
        maps: list[Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """A ``loss`` of 0, for validation; no argument but the device of ``features`` matters."""
        return {"loss": features[-1].new_zeros([])}
