"""The objective of a run that only restores."""

from torch import Tensor

from .objective import Objective, ObjectiveInputs


class NoObjective(Objective):
    """No head, no state, no second view: for auto-encoders and for masked or distorted restoration alone.

    The trainer refuses it with a positive ``contrastive_weight`` and does not call it otherwise.

    Attributes:
        skip_connections: whether the decoder sees the finer maps of the encoder. Without, all that the restoration
            needs must pass the deepest map; through them an image that is not distorted is merely copied.
    """

    metrics = ()

    def __init__(self, skip_connections: bool = True) -> None:
        super().__init__()
        self.skip_connections = skip_connections

    def forward(self, inputs: ObjectiveInputs) -> dict[str, Tensor]:
        """A ``loss`` of 0, for validation, on the device of the maps."""
        return {"loss": inputs.deepest.new_zeros([])}
