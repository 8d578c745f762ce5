"""Which loss has which weight in which epoch: the stages di, dir and dira of one run."""

import logging
from collections.abc import Sequence
from typing import NamedTuple

from ..utils.errors import InputError

LOGGER = logging.getLogger(__name__)


STAGES = ("di", "dir", "dira")


class Weights(NamedTuple):
    """Weights of the three losses in one epoch."""

    contrastive: float
    restoration: float
    adversarial: float

    @property
    def restores(self) -> bool:
        """Whether an image is restored at all: the decoder runs and the views are distorted."""
        return self.restoration > 0 or self.adversarial > 0

    @property
    def stage(self) -> str:
        """Name of the stage as the paper has it: di, dir or dira."""
        return STAGES[2] if self.adversarial > 0 else STAGES[1] if self.restoration > 0 else STAGES[0]


class Schedule:
    """Weights of every epoch: discrimination first, then restoration, then the adversary, in one run.

    Stepwise pre-training (Guo et al., DART 2022) adds the parts in this order and freezes nothing.

    Attributes:
        weights: of the last stage.
        stage_epochs: how many epochs di, dir and dira last; None: ``weights`` hold from the first epoch.
    """

    def __init__(self, weights: Weights, stage_epochs: Sequence[int] | None, max_epochs: int) -> None:
        """Check the stages of a run.

        Args:
            weights: of the last stage.
            stage_epochs: see above.
            max_epochs: of the run.

        Raises:
            InputError: if an epoch has no loss with a positive weight.
        """
        self.weights = weights
        self.stage_epochs = stage_epochs
        if stage_epochs is not None and sum(stage_epochs) != max_epochs:
            LOGGER.warning(
                f"stage_epochs {list(stage_epochs)} are not the {max_epochs} epochs of the run: "
                f"it ends in stage {self.at(max_epochs).stage}"
            )
        idle = [epoch for epoch in range(1, max_epochs + 1) if max(self.at(epoch)) <= 0]
        if idle:
            raise InputError(
                f"epoch {idle[0]} has nothing to learn: in stage {self.at(idle[0]).stage} no loss has a positive "
                "weight; give contrastive_weight, or that stage 0 epochs in stage_epochs"
            )

    def at(self, epoch: int) -> Weights:
        """Weights of an epoch, counted from 1; epochs beyond the schedule belong to its last stage."""
        if self.stage_epochs is None or epoch > sum(self.stage_epochs[:2]):
            return self.weights
        in_di = epoch <= self.stage_epochs[0]
        return self.weights._replace(adversarial=0.0, restoration=0.0 if in_di else self.weights.restoration)
