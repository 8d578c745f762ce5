"""Fine-tuning: training of one supervised loss, whose encoder may be frozen at first."""

from typing import Any

from ignite.engine import Events
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from torch import Tensor

from ..networks.encoder_parts import encoder_parts
from ..networks.instance_norm import use_channels_last
from ..utils.distributed import average_scalars, broadcast
from ..utils.errors import InputError
from .resumable import ResumableTrainer


class FineTuner(ResumableTrainer):
    """Trainer of one supervised loss, whose encoder may be frozen in the first epochs.

    On a CPU weights lie with channels innermost: 1.04 to 1.3 times as many steps in the networks of the bundles.

    ``engine.state.output`` holds ``loss``, the mean over all processes, and ``pred`` and ``label`` of the batch.

    Attributes:
        freeze_epochs: epochs in which the encoder neither learns nor moves its batch statistics.
        kwargs: everything that ``ResumableTrainer`` takes.

    Raises:
        InputError: if the network has no known encoder to freeze.
    """

    def __init__(self, *, freeze_epochs: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.freeze_epochs = freeze_epochs
        self.encoder = encoder_parts(self.network)
        if freeze_epochs > 0 and not self.encoder:
            name = type(self.network).__name__
            raise InputError(f"freeze_epochs must be 0 where the encoder of the network is not known ({name})")
        if self.state.device.type == "cpu":
            use_channels_last(self.network)
        broadcast(self.network)
        self.add_event_handler(Events.EPOCH_STARTED, FineTuner.set_encoder_frozen)

    def stage(self, epoch: int) -> str:
        """Whether the encoder is frozen in an epoch, counted from 1."""
        return "encoder frozen" if epoch <= self.freeze_epochs else ""

    def set_encoder_frozen(self) -> None:
        """Freeze the encoder or not, which follows from the epoch alone, so a resumed run agrees."""
        for part in self.encoder:
            part.requires_grad_(self.state.epoch > self.freeze_epochs)

    def _iteration(self, engine: SupervisedTrainer, batchdata: dict[str, Tensor]) -> dict[str, Tensor]:
        """One batch."""
        images, labels = self.prepare_batch(batchdata, self.state.device, self.non_blocking)
        output, _ = self.generator_step(lambda: self._forward(images, labels))
        self.state.output = average_scalars(output)
        self.fire_event(IterationEvents.MODEL_COMPLETED)
        return self.state.output

    def _forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Predictions and their loss; a frozen encoder keeps its batch statistics."""
        for part in self.encoder if self.stage(self.state.epoch) else ():
            part.eval()
        with self.context:
            pred = self.inferer(images, self.network)
        self.fire_event(IterationEvents.FORWARD_COMPLETED)
        return {"loss": self.loss_function(pred.float(), labels), "pred": pred, "label": labels}
