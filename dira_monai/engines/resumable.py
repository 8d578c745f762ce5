"""What every trainer of this package shares: precision, accumulation, clipping, many processes, resumable states."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.handlers import MLFlowHandler
from torch import Tensor, nn

from ..utils.distributed import average_gradients
from ..utils.errors import InputError
from ..utils.locking import release_folders
from ..utils.watch import note_place
from .precision import autocast, make_scaler, settle_precision
from .preemption import Preemption


def optimizer_step(optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, clip: float | None) -> None:
    """A step of an optimizer on the gradients of all processes, whose norm is cut to ``clip``."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    average_gradients(parameters)
    if clip is not None:
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(parameters, clip)
    scaler.step(optimizer)
    scaler.update()


def unwrap_single(transform: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The same function of an engine's output, which gives the one value of a tuple of one instead of the tuple."""

    def unpacked(output: Any) -> Any:
        found = transform(output)
        return found[0] if isinstance(found, tuple) and len(found) == 1 else found

    return unpacked


class ResumableTrainer(SupervisedTrainer):
    """MONAI's supervised trainer with what ``TrainingLog`` and ``Checkpoint`` ask of an engine.

    Attributes:
        losses: entries of ``engine.state.output`` that must be finite, the total first.
        precision: fp32, bf16, fp16, or auto, which settles on one.
        precision_measured: whether auto was asked for, which may settle on another one when the run is resumed.
        gradient_clip: largest norm of the gradient; None: no clipping.
        schedule_epochs: epochs over which learning rate, stages and momentum are planned; None: ``max_epochs``, which a
            federation sets to the end of the round.
        kwargs: everything that ``monai.engines.SupervisedTrainer`` takes.

    Raises:
        InputError: in ``run``, if epochs lie beyond the schedule.
    """

    losses: tuple[str, ...] = ("loss",)

    def __init__(
        self,
        *,
        precision: str = "fp32",
        gradient_clip: float | None = None,
        schedule_epochs: int | None = None,
        **kwargs: Any,
    ) -> None:
        for handler in kwargs.get("train_handlers") or ():
            if isinstance(handler, MLFlowHandler):  # that of MONAI's tracking expects a list of one dict for each image
                handler.output_transform = unwrap_single(handler.output_transform)
        super().__init__(decollate=False, **kwargs)
        self.precision_measured = precision == "auto"
        self.precision = settle_precision(self.state.device, precision)
        if self.accumulation_steps > 1:  # the schedule steps with each batch, the optimizer after several
            warnings.filterwarnings("ignore", r"Detected call of `lr_scheduler\.step", UserWarning)
        self.gradient_clip = gradient_clip
        self.schedule_epochs = schedule_epochs or self.state.max_epochs
        self.sums: dict[str, Tensor] = {}  # of the step metrics of this epoch, which TrainingLog adds
        self.summed = 0  # how many iterations they have
        self.context = autocast(self.state.device, self.precision)
        self.loss_scaler = make_scaler(self.state.device, self.precision)  # MONAI resets its own `scaler` in every run
        self.preemption = Preemption()
        self.add_event_handler(Events.STARTED, ResumableTrainer.check_schedule)
        self.add_event_handler(Events.ITERATION_COMPLETED, ResumableTrainer.note_iteration)

    def run(self) -> None:
        """Train; a signal that announces the end of the job is heard meanwhile (see ``Preemption``).

        At the end other runs may write into the folders that the handlers have locked.
        """
        self.preemption.listen()
        try:
            super().run()
        finally:
            self.preemption.stop_listening()
            release_folders()

    def note_iteration(self) -> None:
        """Keep what was done last, for other processes."""
        note_place(f"epoch {self.state.epoch}, iteration {self.state.iteration}")

    def check_schedule(self) -> None:
        """Refuse epochs for which no learning rate is planned: the cosine would rise again in them."""
        if self.state.max_epochs > self.schedule_epochs:
            raise InputError(
                f"the learning rate is planned over {self.schedule_epochs} epochs and {self.state.max_epochs} are asked"
                " for; in a federation give the number of rounds times local_epochs as schedule_epochs (fine-tuning) or"
                " max_epochs (pre-training)"
            )

    def stage(self, epoch: int) -> str:
        """Name of what is trained in an epoch, counted from 1; empty where there is one stage only."""
        return ""

    def to_save(self) -> dict[str, Any]:
        """Everything besides handlers and random states that a resumed run must find as it was."""
        return {"network": self.network, "optimizer": self.optimizer, "scaler": self.loss_scaler}

    def export_states(self) -> dict[str, dict[str, Tensor]]:
        """State dicts to keep of the best epoch, by file name."""
        return {"model.pt": self.network.state_dict()}

    def step_metrics(self) -> dict[str, Tensor]:
        """Numbers of this iteration whose mean over the epoch is recorded."""
        return {name: self.state.output[name] for name in self.losses if name in self.state.output}

    def epoch_metrics(self) -> dict[str, float]:
        """Further numbers recorded at the end of an epoch."""
        return {}

    def generator_step(self, forward: Callable[[], dict[str, Tensor]]) -> tuple[dict[str, Tensor], bool]:
        """One batch of the network's optimizer.

        Args:
            forward: computes the outputs, among them ``loss``, under ``self.context`` where it runs the network.

        Returns:
            The outputs, detached, and whether the optimizer stepped: after the last of the accumulated batches.
        """
        first, last = self.accumulation()
        self.network.train()
        if first:
            self.optimizer.zero_grad()
        output = forward()
        self.fire_event(IterationEvents.LOSS_COMPLETED)
        self.loss_scaler.scale(output["loss"] / self.accumulation_steps).backward()
        self.fire_event(IterationEvents.BACKWARD_COMPLETED)
        if last:
            optimizer_step(self.optimizer, self.loss_scaler, self.gradient_clip)
        return {name: value.detach() for name, value in output.items()}, last

    def accumulation(self) -> tuple[bool, bool]:
        """Whether this iteration is the first and whether it is the last before an optimizer step."""
        position = (self.state.iteration - 1) % self.state.epoch_length
        last = (position + 1) % self.accumulation_steps == 0 or position + 1 == self.state.epoch_length
        return position % self.accumulation_steps == 0, last
